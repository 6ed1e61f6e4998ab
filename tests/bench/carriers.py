"""Workers that carry a model's tokens into Redis: Rejoin's, and the plain loop it is measured by.

Each has a Redis of its own, and the same model server, which is a process too.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import redis.asyncio

from shared.generation import State
from shared.ids import GenerationId
from tests.bench.baselines import naive_worker
from tests.support.fold import CLOSING_TYPES, Entry, fold_log
from tests.support.processes import Process, open_process
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.stack import WORKER_IS_UP, worker_environment
from tests.support.wait import wait_until
from tests.support.workshop import Workshop
from worker.standin import Ledger, Standin

PATIENCE_S = 240.0
_TIMEOUT = timedelta(seconds=PATIENCE_S)

_ASKED_AT_ONCE = 50
"""Each of them takes a connection to Redis."""


class Carrier(Protocol):
    """One worker process, and the Redis it writes to."""

    name: str
    worker: Process
    server: RedisServer

    async def ask(self, prompts: Sequence[str]) -> list[str]:
        """Have the prompts answered; returns at once, with the name of each answer."""
        ...

    async def wait_closed(self, names: Sequence[str]) -> None:
        """Return when the last of the answers has ended."""
        ...

    async def take(self, name: str) -> tuple[str, int]:
        """The text of an answer, and how many entries it has; it is forgotten by then.

        Raises: AssertionError: it did not end well.
        """
        ...

    async def wait_idle(self) -> None:
        """Return when nothing is left to do, so that somebody else has the core for himself."""
        ...


class RejoinCarrier:
    """`python -m worker`. Generations enter as the API lets them in."""

    name = "**Rejoin**"

    def __init__(self, worker: Process, shop: Workshop) -> None:
        self.worker = worker
        self.server = shop.server
        self.shop = shop

    async def ask(self, prompts: Sequence[str]) -> list[str]:
        """Offer, create, release."""
        accept = partial(self.shop.accept, queue_timeout=_TIMEOUT, generation_timeout=_TIMEOUT)
        names: list[str] = []
        for start in range(0, len(prompts), _ASKED_AT_ONCE):
            some = prompts[start : start + _ASKED_AT_ONCE]
            names += await asyncio.gather(*map(accept, some))
        return names

    async def wait_closed(self, names: Sequence[str]) -> None:
        """Look at the last entry of each log."""
        keys = [self.shop.keys.log(GenerationId(name)) for name in names]
        await _wait_closed(self.shop.connection, keys)

    async def take(self, name: str) -> tuple[str, int]:
        """Check the whole log and fold it."""
        generation = GenerationId(name)
        entries = await self.shop.log(generation)
        folded = fold_log(entries)
        assert folded.closing_type == State.DONE, f"{folded.closing_type}: {folded.closing_data}"
        assert len(folded.attempts) == 1, f"it took {len(folded.attempts)} attempts"
        keys = self.shop.keys
        await self.shop.connection.delete(keys.log(generation), keys.record(generation))
        return folded.text, _count_tokens(entries)

    async def wait_idle(self) -> None:
        """Jobs leave the queue a moment after their logs are closed."""

        async def is_idle() -> bool:
            return await self.shop.queue.length() == 0

        await wait_until(is_idle, "the queue to be empty")


class NaiveCarrier:
    """`tests.bench.baselines.naive_worker`."""

    name = "`async for chunk in stream: await redis.xadd(...)`"

    def __init__(self, worker: Process, server: RedisServer, connection: Any) -> None:
        self.worker = worker
        self.server = server
        self._connection = connection
        self._asked = 0

    async def ask(self, prompts: Sequence[str]) -> list[str]:
        """Push them to its list."""
        first, self._asked = self._asked, self._asked + len(prompts)
        asked = {str(number): prompt for number, prompt in enumerate(prompts, first)}
        bodies = [json.dumps({"id": name, "prompt": prompt}) for name, prompt in asked.items()]
        await self._connection.rpush(naive_worker.ASKED, *bodies)
        return list(asked)

    async def wait_closed(self, names: Sequence[str]) -> None:
        """Look at the last entry of each stream."""
        await _wait_closed(self._connection, [naive_worker.stream_key(name) for name in names])

    async def take(self, name: str) -> tuple[str, int]:
        """Join the texts."""
        key = naive_worker.stream_key(name)
        entries: list[Entry] = await self._connection.xrange(key)
        await self._connection.delete(key)
        tokens = [fields[b"d"] for _, fields in entries if fields[b"t"] == b"token"]
        return "".join(json.loads(data)["text"] for data in tokens), len(tokens)

    async def wait_idle(self) -> None:
        """It does nothing after the end of an answer."""


def _count_tokens(entries: Sequence[Entry]) -> int:
    return sum(fields[b"t"] == b"token" for _, fields in entries)


async def _wait_closed(connection: redis.asyncio.Redis, keys: Sequence[str]) -> None:
    """Wait for the closing entries in one stream after the other: the last one ends it."""
    for key in keys:

        async def is_closed(key: str = key) -> bool:
            last: Any = await connection.xrevrange(key, count=1)
            return bool(last) and last[0][1][b"t"].decode() in CLOSING_TYPES

        await wait_until(is_closed, f"{key} to be closed", PATIENCE_S)


@asynccontextmanager
async def open_rejoin(model: str, settings: Mapping[str, str]) -> AsyncIterator[RejoinCarrier]:
    """Start our worker; `settings` are variables of its environment, `model` is a root URL."""
    async with open_redis_server() as server, server.client() as connection:
        environment = worker_environment(server.url, f"{model}/v1", settings)
        async with open_process("worker", environment, WORKER_IS_UP) as worker:
            # The shop needs a stand-in to run workers of its own and to see it idle: it does not.
            shop = Workshop(server, connection, Standin(model, Ledger()))
            yield RejoinCarrier(worker, shop)


@asynccontextmanager
async def open_naive(model: str, at_once: int) -> AsyncIterator[NaiveCarrier]:
    """Start the plain loop, as often as there may be answers at once."""
    async with open_redis_server() as server, server.client() as connection:
        environment = worker_environment(server.url, f"{model}/v1", {"AT_ONCE": str(at_once)})
        module = naive_worker.__name__
        async with open_process(module, environment, naive_worker.READY) as worker:
            yield NaiveCarrier(worker, server, connection)
