"""What surrounds a worker under test: a queue to fill, the stand-in as its model, its process.

    async with open_workshop(valkey, standin) as shop, shop.open_worker() as worker:
        generation = await shop.accept("[standin tokens=5] Hello")
        folded = await shop.closed(generation)

Generations enter as the API lets them in, by the shared code: offer, create, release.
"""

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis.asyncio

from shared.connections import Client
from shared.generation import Order, Record, Surface
from shared.generation_store import GenerationStore
from shared.ids import GenerationId, draw_generation_id
from shared.keys import JOB_PREFIX, OWNER_PREFIX, Keys
from shared.queue import Queue
from tests.support.fold import CLOSING_TYPES, Entry, Folded, fold_log, raw_entries
from tests.support.processes import Process, free_port, open_process
from tests.support.redis_server import RedisServer
from tests.support.stack import SHORT_WATCH, WORKER_IS_UP, user, worker_environment
from tests.support.wait import DEFAULT_TIMEOUT_S, wait_until, wait_until_blocking
from worker.standin import Standin

PROVIDER_KEY = "sk-nobody-may-see-this"

_MAX_QUEUE = 1_000


def _environment(redis_url: str, base_url: str, settings: Mapping[str, str]) -> dict[str, str]:
    told = {"OPENAI_API_KEY": PROVIDER_KEY, "LOG_LEVEL": "debug", **SHORT_WATCH}
    told.update({f"WORKER_{name.upper()}": value for name, value in settings.items()})
    return worker_environment(redis_url, base_url, told)


@dataclass(frozen=True, slots=True)
class SharedWorker:
    """One worker for the tests of a module. Each test serves the model on `model_port` itself."""

    name: str
    process: Process
    model_port: int


@contextmanager
def run_worker(redis_url: str, **settings: str) -> Iterator[SharedWorker]:
    """Run `python -m worker` without an event loop, for a fixture that outlives single tests."""
    port, name = free_port(), "shared"
    env = _environment(redis_url, f"http://127.0.0.1:{port}/v1", {"name": name, **settings})
    process = Process([sys.executable, "-m", "worker"], env)

    def is_up() -> bool:
        assert process.running, f"{process} ended while starting:\n{process.output}"
        return any(WORKER_IS_UP in line for line in process.lines)

    try:
        wait_until_blocking(is_up, f"{process} to start")
        yield SharedWorker(name, process, port)
    finally:
        process.end()


class Workshop:
    """One Redis, one stand-in, any number of workers."""

    def __init__(
        self, server: RedisServer, connection: redis.asyncio.Redis, standin: Standin
    ) -> None:
        self.server = server
        self.connection: Any = connection
        self.standin = standin
        self.keys = Keys()
        self.store = GenerationStore(Client(connection), self.keys)
        self.queue = Queue(Client(connection), self.keys)

    def open_worker(self, **settings: str) -> AbstractAsyncContextManager[Process]:
        """Run `python -m worker`; `settings` are `WORKER_*` names in small letters."""
        environment = _environment(self.server.url, self.standin.base_url, settings)
        return open_process("worker", environment, WORKER_IS_UP)

    async def accept(
        self,
        prompt: str,
        *,
        surface: Surface = Surface.NATIVE,
        queue_timeout: timedelta = timedelta(seconds=60),
        generation_timeout: timedelta = timedelta(seconds=60),
        parameters: Mapping[str, Any] | None = None,
        release: bool = True,
    ) -> GenerationId:
        """Put a generation into the queue; `release` False keeps it promised only."""
        generation = draw_generation_id()
        order = Order(
            request={"messages": user(prompt), **(parameters or {})},
            tenant="default",
            surface=surface,
            queue_timeout=queue_timeout,
            generation_timeout=generation_timeout,
            retention=timedelta(seconds=60),
        )
        lifetime = order.longest_life
        await self.queue.offer(generation, lifetime=lifetime, max_length=_MAX_QUEUE)
        await self.store.create(generation, order)
        if release:
            await self.queue.release(generation, lifetime=lifetime)
        return generation

    async def cancel(self, generation: GenerationId) -> None:
        """Cancel as the API does: close the log, then tell its worker."""
        closed = await self.store.cancel(generation)
        if closed.worker:
            await self.queue.recall(generation, closed.worker)

    async def make_due(self, generation: GenerationId) -> None:
        """Have a waiting or lapsing job due now: time passes because the test moves its score."""
        pipe = self.connection.pipeline(transaction=True)
        pipe.zadd(self.keys.queue, {generation: 1})
        pipe.lpush(self.keys.wake, generation)
        await pipe.execute()

    # --- what there is of a generation --------------------------------------------------------

    async def log(self, generation: GenerationId) -> list[Entry]:
        """The raw log."""
        return raw_entries(await self.connection.xrange(self.keys.log(generation)))

    async def types(self, generation: GenerationId) -> list[str]:
        """The types of all entries, in order."""
        return [fields[b"t"].decode() for _, fields in await self.log(generation)]

    async def record(self, generation: GenerationId) -> Record:
        """The record."""
        return await self.store.record(generation)

    async def owner(self, generation: GenerationId) -> bytes | None:
        """The lease token of the job, with its mark."""
        token: bytes | None = await self.connection.get(OWNER_PREFIX + generation)
        return token

    async def wait_type(
        self, generation: GenerationId, kind: str, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        """Wait until the log holds an entry of that type."""

        async def holds() -> bool:
            return kind in await self.types(generation)

        await wait_until(holds, f"a {kind} in the log", timeout_s)

    async def closed(
        self, generation: GenerationId, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Folded:
        """Wait for the closing entry, check I1 to I5 on the whole log, and fold it."""
        log = self.keys.log(generation)

        async def is_closed() -> bool:
            last = await self.connection.xrevrange(log, count=1)
            return bool(last) and raw_entries(last)[0][1][b"t"].decode() in CLOSING_TYPES

        await wait_until(is_closed, f"{generation} to be closed", timeout_s)
        return fold_log(await self.log(generation))

    async def ended(self, generation: GenerationId, timeout_s: float = DEFAULT_TIMEOUT_S) -> Folded:
        """`closed`, and its worker let go of the job: from here on the worker may die."""
        folded = await self.closed(generation, timeout_s)

        async def is_let_go() -> bool:
            return not await self.connection.exists(JOB_PREFIX + generation)

        await wait_until(is_let_go, f"the job of {generation} to go", timeout_s)
        return folded

    async def wait_idle(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait until no job, no owner and no open call to the provider is left."""

        async def left() -> list[str]:
            names = [str(row) for row in await self.connection.zrange(self.keys.queue, 0, -1)]
            for prefix in (JOB_PREFIX, OWNER_PREFIX):
                names += [str(key) async for key in self.connection.scan_iter(f"{prefix}*")]
            calls = self.standin.ledger.open
            return names + ([f"{calls} calls to the provider"] if calls else [])

        async def is_idle() -> bool:
            return not await left()

        try:
            await wait_until(is_idle, "the worker to be idle", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {await left()}") from None


@asynccontextmanager
async def open_workshop(server: RedisServer, standin: Standin) -> AsyncIterator[Workshop]:
    """Open a connection of the test's own to `server`."""
    async with server.client() as connection:
        yield Workshop(server, connection, standin)
