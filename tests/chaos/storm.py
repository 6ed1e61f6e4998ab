"""One run: everything as real processes, clients that come and go, faults, then the verdict.

SEED chooses what is asked and in which order things fail; MINUTES goes on with it for that long.
"""

import asyncio
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import redis

from tests.chaos.asks import draw_asks
from tests.chaos.clients import Clients
from tests.chaos.faults import LEASE_S, MARK_S, Faults, Workers, pause
from tests.chaos.verdict import check_generation, check_nothing_is_left, read_ledger
from tests.support.fold import CLOSING_TYPES
from tests.support.processes import Process, free_port, open_process
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.stack import api_environment
from tests.support.wait import wait_until

GENERATIONS = 40
ROUNDS = 2
_ASKED_PER_SECOND = 2.5

STALL_BOUND_S = LEASE_S + MARK_S + 1 + 5
"""I7: the longest an accepted generation may make no step: the design's bound for a lost worker,
and slack for a second fault on top of the first and for a machine that starts processes meanwhile.
"""

ORDERLY_ENDS = (0, -signal.SIGTERM)
"""Exit statuses of a process told to end; uvicorn raises the signal again when it is done."""

_END_S = 60.0
_LOOK_EVERY_S = 0.1


@dataclass(slots=True)
class Report:
    """What a run was and did."""

    seed: int
    hits: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    readers: int = 0
    connections: int = 0
    longest_stall_s: float = 0.0

    def __str__(self) -> str:
        hits = ", ".join(f"{kind} {count}" for kind, count in self.hits.items())
        ends = ", ".join(f"{kind} {count}" for kind, count in sorted(self.ends.items()))
        return (
            f"chaos: SEED={self.seed}\n  faults: {hits}\n"
            f"  {self.ends.total()} generations: {ends}\n"
            f"  {self.readers} readers over {self.connections} connections\n"
            f"  longest stall {self.longest_stall_s:.1f} s of {STALL_BOUND_S:g} s allowed"
        )


class Storm:
    """The processes of a run and what it found out."""

    def __init__(self, server: RedisServer, workers: Workers, standin_url: str, api_url: str):
        self.server, self.workers, self.standin_url = server, workers, standin_url
        self.clients: Clients
        self._api_url = api_url
        self._api: Process | None = None

    async def restart_api(self, exits: AsyncExitStack) -> None:
        """Kill the API, if there is one, and start it on the same port."""
        if self._api is not None:
            self._api.kill()
        env = api_environment(self.server.url, int(self._api_url.rpartition(":")[2]), {})
        self._api = await exits.enter_async_context(
            open_process("api", env, f"{self._api_url}/healthz")
        )

    async def watch_stalls(self, report: Report) -> None:
        """Measure, until cancelled, how long each open generation makes no step."""
        loop = asyncio.get_running_loop()
        moved: dict[str, tuple[bytes, float]] = {}
        closed: set[str] = set()
        while True:
            await pause(_LOOK_EVERY_S)
            names = [a.generation for a in self.clients.asked if a.generation not in closed]
            try:
                async with self.server.client(socket_timeout=1) as client:
                    for name in names:
                        ((last, fields),) = await client.xrevrange(f"gen:{{{name}}}:log", count=1)
                        before, since = moved.get(name, (b"", loop.time()))
                        report.longest_stall_s = max(report.longest_stall_s, loop.time() - since)
                        if last != before:
                            moved[name] = (last, loop.time())
                        if fields[b"t"].decode() in CLOSING_TYPES:
                            closed.add(name)
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                continue

    async def stop(self) -> None:
        """I8: told to end, every process ends by itself and in order."""
        assert self._api is not None
        processes = [self._api, *self.workers.running.values()]
        for process in processes:
            process.terminate()
        for process in processes:
            assert await process.wait() in ORDERLY_ENDS, process.output


@asynccontextmanager
async def open_storm(exits: AsyncExitStack, seed: int) -> AsyncIterator[Storm]:
    """Start Redis with its file, the model, the API and two workers."""
    server = await exits.enter_async_context(open_redis_server(aof=True))
    standin_url, api_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    env = {"STANDIN_PORT": standin_url.rpartition(":")[2]}
    await exits.enter_async_context(open_process("worker.standin", env, f"{standin_url}/healthz"))
    workers = Workers(server.url, f"{standin_url}/v1", exits)
    storm = Storm(server, workers, standin_url, api_url)
    storm.clients = Clients(api_url, seed)
    await asyncio.gather(workers.start(), workers.start(), storm.restart_api(exits))
    yield storm


async def ask_all(clients: Clients, seed: int, faults_over: asyncio.Event) -> None:
    """Ask at random moments until there were enough and the faults are over; await every end."""
    random = Random(f"{seed}/arrivals")
    async with asyncio.TaskGroup() as tasks:
        for ask in draw_asks(seed):
            if ask.number >= GENERATIONS and faults_over.is_set():
                return
            tasks.create_task(clients.run(ask))
            await pause(random.expovariate(_ASKED_PER_SECOND))


async def run(seed: int, minutes: float) -> Report:
    """Run and judge. Raises: AssertionError, an invariant does not hold."""
    report = Report(seed)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + minutes * 60
    async with AsyncExitStack() as exits, open_storm(exits, seed) as storm:
        faults = Faults(
            storm.server,
            storm.workers,
            lambda: storm.restart_api(exits),
            storm.clients,
            Random(f"{seed}/faults"),
        )
        over = asyncio.Event()
        watch = asyncio.create_task(storm.watch_stalls(report))
        traffic = asyncio.create_task(ask_all(storm.clients, seed, over))
        try:
            rounds = 0
            while rounds < ROUNDS or loop.time() < ends_at:
                await faults.round()
                rounds += 1
            over.set()
            await wait_until(traffic.done, "all generations and readers to end", _END_S)
            await traffic
        finally:
            for task in (watch, traffic):
                task.cancel()
            await asyncio.gather(watch, traffic, return_exceptions=True)
        await judge(storm, faults, report)
        await storm.stop()
    return report


async def judge(storm: Storm, faults: Faults, report: Report) -> None:
    """Check everything that a run promised, and count what it was made of."""
    await check_nothing_is_left(storm.server, storm.standin_url)
    _, calls = await read_ledger(storm.standin_url)
    async with storm.server.client() as client:
        for asked in storm.clients.asked:
            try:
                end = await check_generation(asked, client, calls, storm.clients)
            except AssertionError as error:
                error.add_note(f"generation {asked.generation} of {asked.ask}")
                raise
            report.ends[end] += 1
            report.readers += len(asked.readers)
            report.connections += sum(reader.connections for reader in asked.readers)
    cuts = sum(call["outcome"] == "cut" for made in calls.values() for call in made)
    report.hits = faults.hits + Counter({"provider cut": cuts})
    missed = [kind for kind in [*faults.kinds, "provider cut"] if report.hits[kind] == 0]
    assert not missed, f"nothing was hit by: {missed}"
    assert report.longest_stall_s <= STALL_BOUND_S, f"I7: {report}"


def chosen_seed() -> int:
    """SEED, or a fresh one."""
    return int(os.environ.get("SEED") or secrets.randbelow(1_000_000))


def chosen_minutes() -> float:
    """MINUTES, or none: the short run."""
    return float(os.environ.get("MINUTES") or 0)
