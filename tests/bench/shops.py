"""Where jobs are accepted: our queue, filled as the API fills it, and arq's as it comes.

A job is released at the moment just before the last step of accepting it, which makes it due.
"""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import redis.asyncio
from arq.connections import ArqRedis

from shared.connections import Client
from shared.generation_store import GenerationStore
from shared.ids import GenerationId, draw_generation_id
from shared.keys import OWNER_PREFIX, Keys
from shared.queue import Queue
from tests.support.fold import CLOSING_TYPES
from tests.support.stack import user
from tests.support.stores import ORDER

_LIFE = timedelta(hours=1)
_PLENTY = 100_000
_PATIENCE_S = 30
_FILL_TOGETHER = 50
_KEYS = Keys()


class Shop:
    """The queue of one Redis, as the API fills it."""

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self._connection = connection
        client = Client(connection)
        self._store, self._queue = GenerationStore(client, _KEYS), Queue(client, _KEYS)

    async def ask(self, prompt: str) -> tuple[float, float]:
        """Run one generation to its end."""
        generation = await self._promise(prompt)
        key = _KEYS.log(generation)
        (queued, _), *_ = await self._connection.xrange(key)
        waiting = asyncio.create_task(read_entry(self._connection, key, queued))
        released_at = time.time()
        await self._queue.release(generation, lifetime=_LIFE)
        entry_id, kind, started_at = await waiting
        while kind not in CLOSING_TYPES:
            entry_id, kind, _ = await read_entry(self._connection, key, entry_id)
        return released_at, started_at

    async def fill(self, count: int, directive: str) -> None:
        """Have `count` generations wait, all told the same."""
        for first in range(0, count, _FILL_TOGETHER):
            prompts = [f"{directive} {n}" for n in range(first, first + _FILL_TOGETHER)]
            for generation in await asyncio.gather(*(self._promise(prompt) for prompt in prompts)):
                await self._queue.release(generation, lifetime=_LIFE)

    async def jobs(self) -> int:
        """Jobs that wait or run."""
        return await self._queue.length()

    async def _promise(self, prompt: str) -> GenerationId:
        """Accept a request, but for the release."""
        generation = draw_generation_id()
        order = replace(ORDER, request={"messages": user(prompt)})
        await self._queue.offer(generation, lifetime=_LIFE, max_length=_PLENTY)
        await self._store.create(generation, order)
        return generation


class UsualShop:
    """The same of arq as it comes."""

    def __init__(self, jobs: ArqRedis) -> None:
        self._jobs = jobs

    async def ask(self, prompt: str) -> tuple[float, None]:
        """Enqueue a job and wait for the first token."""
        name = draw_generation_id()
        released_at = time.time()
        await self._jobs.enqueue_job("generate", name, prompt)
        await read_entry(self._jobs, f"stream:{name}", b"0-0")
        return released_at, None

    async def fill(self, count: int) -> None:
        """Leave what `count` jobs that run elsewhere leave: the job, its place, who is at it."""
        for _ in range(count):
            name = draw_generation_id()
            await self._jobs.set(OWNER_PREFIX + name, b"1", px=_LIFE)
            await self._jobs.enqueue_job("generate", name, "elsewhere", _job_id=name)

    async def probe(self, prompt: str) -> None:
        """Enqueue a job and do not wait for it."""
        await self._jobs.enqueue_job("generate", draw_generation_id(), prompt)


async def read_entry(connection: Any, key: str, cursor: bytes) -> tuple[bytes, str, float]:
    """Wait for the entry after `cursor`: its id, its type, when it was here in Unix seconds."""
    async with asyncio.timeout(_PATIENCE_S):
        while not (found := await connection.xread({key: cursor}, count=1, block=1_000)):
            pass
    here_at = time.time()
    ((_, ((entry_id, fields),)),) = found
    return entry_id, fields[b"t"].decode(), here_at
