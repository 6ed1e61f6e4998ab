"""Run one worker until it is told to drain: `python -m worker`, configured by the environment."""

import asyncio
import contextlib
import signal
from pathlib import Path

from shared.connections import Client, open_connection
from shared.event_log import EventLog
from shared.generation_store import GenerationStore
from shared.keys import Keys
from shared.queue import Queue
from shared.settings import LogSettings, RedisSettings, read_settings
from shared.telemetry import configure_logging
from worker.flusher import Flusher
from worker.lease import LeaseKeeper
from worker.main import GenerationWorker
from worker.provider.model_server import open_model_server
from worker.recovery import default_ladder
from worker.settings import ProviderSettings, WorkerSettings
from worker.tools import Tools


async def serve(
    redis_settings: RedisSettings, provider_settings: ProviderSettings, settings: WorkerSettings
) -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    keys = Keys(redis_settings.key_prefix)
    if settings.ladder is None:
        ladder = default_ladder(provider_settings.base_url)
        settings = settings.model_copy(update={"ladder": ladder})
    async with contextlib.AsyncExitStack() as stack:
        log_store = Client(await stack.enter_async_context(open_connection(redis_settings, "log")))
        queue_store = await stack.enter_async_context(open_connection(redis_settings, "queue"))
        blocking = await stack.enter_async_context(
            open_connection(redis_settings, "wake", block=settings.poll)
        )
        provider = await stack.enter_async_context(open_model_server(provider_settings, settings))
        event_log = EventLog(log_store, keys)
        flusher = Flusher(event_log)
        queue = Queue(Client(queue_store), keys)
        tools = Tools(
            store=GenerationStore(log_store, keys),
            queue=queue,
            event_log=event_log,
            flusher=flusher,
            provider=provider,
            settings=settings,
            model=provider_settings.model,
        )
        worker = GenerationWorker(
            tools,
            queue,
            keys,
            queue_store,
            Client(blocking),
        )
        worker.keeper = LeaseKeeper(redis_settings, keys, settings, worker.stop_lost)
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(flusher.run(), name="flusher"),
                tasks.create_task(flusher.look_forever(settings.renewal), name="looks"),
                tasks.create_task(worker.keeper.run(), name="lease"),
            ]
            if settings.alive_file is not None:
                background.append(tasks.create_task(show_alive(settings.alive_file)))
            tasks.create_task(worker.main(), name="queue")
            await told.wait()
            await worker.drain()
            for task in background:
                task.cancel()


async def show_alive(path: Path) -> None:
    """Touch `path` every second: a hung loop shows by its age."""
    while True:
        path.touch()  # noqa: ASYNC240 - one small write, on purpose from the loop
        await asyncio.sleep(1)


def main() -> None:
    """Read the settings, or say in one line what is wrong with them."""
    redis_settings = read_settings(RedisSettings)
    provider_settings, settings = read_settings(ProviderSettings), read_settings(WorkerSettings)
    configure_logging(read_settings(LogSettings).level, "worker")
    asyncio.run(serve(redis_settings, provider_settings, settings))


if __name__ == "__main__":
    main()
