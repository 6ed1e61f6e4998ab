"""What happens to processes and connections. A fault counts only when it hit something.

Two lanes at once: in one the processes of ours die, in the other Redis and the ways to it.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack
from random import Random

import redis

from shared.keys import OWNER_PREFIX
from tests.chaos.clients import Clients
from tests.chaos.fleet import Apis, Workers, end_in_order
from tests.chaos.lost import DeadFiles, Past, compare
from tests.support.redis_server import Kind, RedisServer
from tests.support.wait import wait_until

LEASE_S, MARK_S = 2.0, 1.0
"""The workers' defaults."""

Fault = Callable[[], Awaitable[int]]
"""Returns how often it hit."""

_PAST_ITS_LEASE_S = LEASE_S + MARK_S + 0.5
_FIND_VICTIM_S = 15.0
_BETWEEN_FAULTS_S = ((0.3, 1.5), (1.0, 4.0))
"""The moment after each, by lane. Redis' faults hit all generations at once: where they were as
many, few would be left of which nothing was forgotten, and of those more is asked.
"""

_SHORT_OUTAGE_S = (0.0, 0.5)
_LONG_OUTAGE_S = (LEASE_S + 0.3, LEASE_S + 1.0)
"""Every lease lapses meanwhile; running attempts go on all the same."""

_FORGETS_S = (0.05, 1.0)
"""How much Redis forgets: less than its writers keep watch."""

_TORN_BYTES: Mapping[Kind, int] = {"valkey": 300, "redis": 0}
"""How far behind the end of a command its file may be cut, in the middle of the next one.

Redis 7.0 keeps the whole commands of a transaction that was torn; it does not run them when it
starts, but when it starts once more. Valkey cuts the transaction off.
"""

_STORES = ("rejoin-log", "rejoin-queue", "rejoin-lease", "rejoin-api", "rejoin-history")
_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)


class Faults:
    """Every kind of fault, and how often each hit."""

    def __init__(
        self,
        server: RedisServer,
        workers: Workers,
        apis: Apis,
        clients: Clients,
        seed: int,
    ) -> None:
        self._server, self._workers, self._apis = server, workers, apis
        self._clients, self._seed = clients, seed
        self._random = Random(f"{seed}/faults")
        self._redis = asyncio.Lock()
        """Whoever does something to Redis or to its connections has it for himself."""
        self.outages: list[tuple[float, float]] = []
        """When Redis was away: from, until, in Unix seconds."""
        self.pasts: dict[str, list[Past]] = defaultdict(list)
        """What Redis was made to forget, by generation."""
        self.on_forgotten: Callable[[Collection[str]], None] = lambda _: None
        """Called with each generation of which Redis forgot something."""
        self.lanes: tuple[Mapping[str, Fault], Mapping[str, Fault]] = (
            {
                "worker killed": self._kill_worker,
                "worker frozen past its lease": self._freeze_worker,
                "API killed": self._kill_api,
                "all told to end in turn": self._restart_all,
            },
            {
                "Redis killed": lambda: self._kill_redis(_SHORT_OUTAGE_S),
                "Redis away longer than a lease": lambda: self._kill_redis(_LONG_OUTAGE_S),
                "AOF cut back": self._cut_aof,
                "AOF cut back, a worker lost with it": self._cut_aof_and_kill,
                "tracking connection dropped": lambda: self._drop("rejoin-hub", tracked=True),
                "wake connection dropped": lambda: self._drop("rejoin-wake"),
                "store connections dropped": lambda: self._drop(*_STORES),
            },
        )
        self.hits: Counter[str] = Counter({kind: 0 for lane in self.lanes for kind in lane})

    async def run(self, ends_at: float) -> None:
        """Both lanes, each at least once through, until the loop's clock says `ends_at`."""
        async with asyncio.TaskGroup() as lanes:
            for number, lane in enumerate(self.lanes):
                lanes.create_task(self._run_lane(number, lane, ends_at))

    async def _run_lane(self, number: int, lane: Mapping[str, Fault], ends_at: float) -> None:
        """Every kind in some order, again and again, with a moment after each."""
        random = Random(f"{self._seed}/lane/{number}")
        loop = asyncio.get_running_loop()
        while True:
            for kind in random.sample(list(lane), len(lane)):
                if loop.time() >= ends_at and all(self.hits[kind] for kind in lane):
                    return
                self.hits[kind] += await lane[kind]()
                await pause(random.uniform(*_BETWEEN_FAULTS_S[number]))

    # --- ours -----------------------------------------------------------------------------------

    async def _busy_worker(self) -> str:
        """Wait for a worker that holds jobs and choose it; the one with more is likelier."""

        async def holder() -> str | None:
            try:
                async with self._server.client(socket_timeout=1) as client:
                    keys = [key async for key in client.scan_iter(f"{OWNER_PREFIX}*", count=1_000)]
                    owners = [owner for owner in await client.mget(keys) if owner] if keys else []
            except _AWAY:
                return None
            names = [owner.decode().lstrip("~").partition("/")[0] for owner in owners]
            held = [name for name in names if name in self._workers.running]
            return self._random.choice(held) if held else None

        return await wait_until(holder, "a worker that holds jobs", _FIND_VICTIM_S)

    async def _kill_worker(self) -> int:
        self._workers.kill(await self._busy_worker())
        await self._workers.start()
        return 1

    async def _freeze_worker(self) -> int:
        worker = self._workers.freeze(await self._busy_worker())
        await pause(_PAST_ITS_LEASE_S)
        self._workers.thaw(worker)
        return 1

    async def _read_api(self) -> str:
        """Wait for an API that somebody reads from."""

        def read() -> str | None:
            addresses = [a for a, count in self._clients.reading.items() for _ in range(count)]
            return self._random.choice(addresses) if addresses else None

        return await wait_until(read, "somebody to read", _FIND_VICTIM_S)

    async def _kill_api(self) -> int:
        address = await self._read_api()
        self._apis.running[address].kill()
        await self._apis.start(address)
        return 1

    async def _restart_all(self) -> int:
        """Every process, told to end and replaced, one after the other: a deploy."""
        for name in list(self._workers.running):
            if name in self._workers.running:  # the other lane may have killed it meanwhile
                await self._workers.end(name)
                await self._workers.start()
        for address in self._apis.addresses:
            await end_in_order(self._apis.running[address])
            await self._apis.start(address)
        async with self._redis:
            await self._restart_redis(self._server.stop)
        return 1

    # --- Redis ----------------------------------------------------------------------------------

    async def _restart_redis(
        self,
        end: Callable[[], Awaitable[None]],
        meanwhile: Callable[[], None] = lambda: None,
        outage_s: float = 0.0,
    ) -> None:
        began = time.time()
        await end()
        await pause(outage_s)
        meanwhile()
        await self._server.start()
        self.outages.append((began, time.time()))

    async def _die(self) -> None:
        self._server.kill()

    async def _kill_redis(self, for_s: tuple[float, float]) -> int:
        await self._busy_worker()
        outage_s = self._random.uniform(*for_s)
        async with self._redis:
            await self._restart_redis(self._die, outage_s=outage_s)
        return 1

    async def _cut_aof(self) -> int:
        await self._busy_worker()
        return await self._forget(lambda: None)

    async def _cut_aof_and_kill(self) -> int:
        victim, lost = await self._busy_worker(), []

        def lose_worker() -> None:
            if victim in self._workers.running:  # the other lane may have had it meanwhile
                self._workers.kill(victim)
                lost.append(victim)

        forgotten = await self._forget(lose_worker)
        if lost:
            await self._workers.start()
        return min(forgotten, len(lost))

    async def _forget(self, with_it: Callable[[], None]) -> int:
        """Kill Redis and cut its last writes off. A hit if what was acknowledged is gone."""
        async with self._redis:
            with ExitStack() as exits:
                files = DeadFiles(self._server, exits)
                mark = self._server.aof_bytes()
                await pause(self._random.uniform(*_FORGETS_S))
                mark += self._random.randint(0, _TORN_BYTES[self._server.kind])
                before = after = self._server

                def cut() -> None:
                    nonlocal before, after
                    before = files.copy()
                    with_it()
                    if mark < self._server.aof_bytes():
                        self._server.truncate_aof(mark)
                    after = files.copy()

                died_at = time.time()
                await self._restart_redis(self._die, cut)
                forgotten = await compare(before, after, died_at)
        for generation, past in forgotten.items():
            self.pasts[generation].append(past)
        self.on_forgotten(forgotten)
        return 1 if forgotten else 0

    async def _drop(self, *names: str, tracked: bool = False) -> int:
        """Have Redis close connections of ours, one for each name, while somebody needs them."""
        await self._read_api()
        await self._busy_worker()
        async with self._redis, self._server.client() as client:
            rows = await client.client_list()
            dropped = 0
            for name in names:
                ids = [
                    row["id"]
                    for row in rows
                    if row["name"] == name and (not tracked or "t" in row["flags"])
                ]
                if ids:
                    dropped += await client.client_kill_filter(_id=self._random.choice(ids))
        return dropped


async def pause(seconds: float) -> None:
    """Let time pass, since faults need some between them."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    await wait_until(lambda: loop.time() >= until, "a pause to end", seconds + 10)
