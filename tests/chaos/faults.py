"""What happens to the processes. A fault counts only when it hit something that was running."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random

from shared.keys import OWNER_PREFIX
from tests.chaos.clients import Clients
from tests.support.processes import Process, open_process
from tests.support.redis_server import RedisServer
from tests.support.stack import WORKER_IS_UP, worker_environment
from tests.support.wait import wait_until

LEASE_S, MARK_S = 2.0, 1.0
"""The workers' defaults."""

_PAST_ITS_LEASE_S = LEASE_S + MARK_S + 0.5
_FIND_VICTIM_S = 10.0


class Workers:
    """Two workers; one that dies is replaced at once, by a process with another name."""

    def __init__(self, redis_url: str, base_url: str, exits: AsyncExitStack) -> None:
        self._redis_url, self._base_url, self._exits = redis_url, base_url, exits
        self.running: dict[str, Process] = {}
        self.all: list[Process] = []

    async def start(self) -> None:
        """Start one more."""
        name = f"worker{len(self.all)}"
        told = {"WORKER_NAME": name, "WORKER_MAX_DEATHS": "50", "WORKER_DRAIN": "5"}
        env = worker_environment(self._redis_url, self._base_url, told)
        process = await self._exits.enter_async_context(open_process("worker", env, WORKER_IS_UP))
        self.running[name] = process
        self.all.append(process)


class Faults:
    """Every kind of fault, and how often each hit."""

    def __init__(
        self,
        redis: RedisServer,
        workers: Workers,
        restart_api: Callable[[], Awaitable[None]],
        clients: Clients,
        random: Random,
    ) -> None:
        self._redis = redis
        self._workers = workers
        self._restart_api = restart_api
        self._clients = clients
        self._random = random
        self.hits: Counter[str] = Counter(dict.fromkeys(self.kinds, 0))

    @property
    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """The faults by name."""
        return {
            "worker killed": self._kill_worker,
            "worker frozen past its lease": self._freeze_worker,
            "API killed": self._kill_api,
            "Redis killed": self._kill_redis,
        }

    async def round(self) -> None:
        """Every kind once, in some order, with a moment to recover after each."""
        kinds = list(self.kinds)
        self._random.shuffle(kinds)
        for kind in kinds:
            await self.kinds[kind]()
            self.hits[kind] += 1
            await pause(self._random.uniform(0.3, 1.5))

    async def _busy_worker(self) -> str:
        """Wait for a worker that holds jobs and choose it; the one with more is likelier."""

        async def holder() -> str | None:
            async with self._redis.client() as client:
                owners = [
                    (await client.get(key) or b"").lstrip(b"~").decode().partition("/")[0]
                    async for key in client.scan_iter(f"{OWNER_PREFIX}*", count=1_000)
                ]
            held = [name for name in owners if name in self._workers.running]
            return self._random.choice(held) if held else None

        return await wait_until(holder, "a worker that holds jobs", _FIND_VICTIM_S)

    async def _kill_worker(self) -> None:
        self._workers.running.pop(await self._busy_worker()).kill()
        await self._workers.start()

    async def _freeze_worker(self) -> None:
        worker = self._workers.running[await self._busy_worker()]
        worker.freeze()
        await pause(_PAST_ITS_LEASE_S)
        worker.thaw()

    async def _kill_api(self) -> None:
        await wait_until(lambda: self._clients.reading > 0, "somebody to read", _FIND_VICTIM_S)
        await self._restart_api()

    async def _kill_redis(self) -> None:
        await self._busy_worker()
        self._redis.kill()
        await pause(self._random.uniform(0, 0.5))
        await self._redis.start()


async def pause(seconds: float) -> None:
    """Let time pass, since faults need some between them."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    await wait_until(lambda: loop.time() >= until, "a pause to end", seconds + 10)
