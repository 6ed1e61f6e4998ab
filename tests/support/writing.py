"""A generation that a worker writes, on fakeredis and a virtual clock, with faults to order."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import fakeredis

from shared.events import Event, EventType
from shared.ids import GenerationId
from tests.support.faulty_client import Fault, FaultyClient
from tests.support.fold import Folded, fold_log
from tests.support.stores import Stores
from tests.support.virtual_clock import run_virtual
from worker.flusher import Flusher
from worker.log_writer import LogWriter

DONE = {"finish_reason": "stop", "usage": None}


class Writing:
    """One claimed generation, a flusher that runs, and the writer of the log."""

    def __init__(self, faults: list[Fault]) -> None:
        connection = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2)
        self.stores = Stores(connection)
        self.client = FaultyClient(connection, faults)
        self.flusher = Flusher(Stores(connection, self.client).log)
        self.generation: GenerationId
        self.writer: LogWriter

    async def open(self) -> None:
        self.generation = await self.stores.create()
        claim = await self.stores.claim(self.generation, "w/1")
        await self.client.remember(self.generation)
        self.writer = self.flusher.open_writer(self.generation, "w/1", claim.last_id)

    async def folded(self, *, closed: bool = True) -> Folded:
        return fold_log(await self.stores.entries(self.generation), closed=closed)

    async def put_all(self, *texts: str) -> None:
        for text in texts:
            await self.writer.put(Event(EventType.TOKEN, {"text": text}))

    async def close(self) -> None:
        await self.writer.close(EventType.DONE, DONE, None)


def play(act: Callable[[Writing], Coroutine[Any, Any, None]], *faults: Fault) -> None:
    """Run `act` beside a flusher, on a store that meets `faults` in turn."""

    async def main() -> None:
        writing = Writing(list(faults))
        await writing.open()
        running = asyncio.create_task(writing.flusher.run())
        try:
            await act(writing)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    run_virtual(main())
