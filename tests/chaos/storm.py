"""One run: everything as real processes, clients that come and go, faults, then the verdict.

SEED chooses what is asked and in which order things fail; MINUTES goes on with it for that long;
SERVER is `valkey` or `redis`.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

from tests.chaos.asks import draw_asks
from tests.chaos.clients import Clients
from tests.chaos.corrupted import CALM, check_judge
from tests.chaos.court import Court
from tests.chaos.faults import Faults, pause
from tests.chaos.fleet import Apis, Workers, end_in_order
from tests.chaos.report import Report
from tests.chaos.watch import ABSENCE_S, Watch, stall_bound_s
from tests.support.leaks import check_children, child_processes
from tests.support.processes import free_port, open_process
from tests.support.redis_server import Kind, RedisServer, open_redis_server
from tests.support.wait import wait_until

SHORT_MINUTES = 0.6
"""What a run takes in `make test`, beside its beginning and its end."""

_APIS, _WORKERS = 2, 2
_ASKED_PER_SECOND = 4.0
_END_S = 60.0


class Storm:
    """The processes of a run and who uses them."""

    def __init__(self, server: RedisServer, standin_url: str, seed: int, exits: AsyncExitStack):
        self.server, self.standin_url = server, standin_url
        self.workers = Workers(server.url, f"{standin_url}/v1", exits)
        self.apis = Apis(server.url, _APIS, exits)
        self.clients = Clients(self.apis.addresses, seed)
        self.watch = Watch(server, self.clients)
        self.faults = Faults(server, self.workers, self.apis, self.clients, seed)
        self.faults.on_forgotten = self.watch.reopen
        self.court = Court(server, standin_url, self.workers, self.clients, self.faults)

    async def start(self) -> None:
        """Start the workers and the APIs."""
        await asyncio.gather(
            *(self.workers.start() for _ in range(_WORKERS)),
            *(self.apis.start(address) for address in self.apis.addresses),
        )

    async def stop(self) -> None:
        """I8: told to end, every process ends by itself and in order."""
        for address in self.apis.addresses:
            await end_in_order(self.apis.running[address])
        for name in list(self.workers.running):
            await self.workers.end(name)


@asynccontextmanager
async def open_storm(kind: Kind, seed: int) -> AsyncIterator[Storm]:
    """Start Redis with its file, the model, the APIs and the workers; all end with the block."""
    before = {row.pid for row in child_processes()}
    async with AsyncExitStack() as exits:
        server = await exits.enter_async_context(open_redis_server(kind, aof=True))
        standin_url = f"http://127.0.0.1:{free_port()}"
        env = {"STANDIN_PORT": standin_url.rpartition(":")[2]}
        await exits.enter_async_context(
            open_process("worker.standin", env, f"{standin_url}/healthz")
        )
        storm = Storm(server, standin_url, seed, exits)
        await storm.start()
        yield storm
    await check_children(before)


async def ask_all(clients: Clients, seed: int, faults_over: asyncio.Event) -> None:
    """Ask at random moments until the faults are over; await every end."""
    random = Random(f"{seed}/arrivals")
    async with asyncio.TaskGroup() as tasks:
        for ask in draw_asks(seed):
            if faults_over.is_set():
                return
            tasks.create_task(clients.run(ask))
            await pause(random.expovariate(_ASKED_PER_SECOND))


async def run(seed: int, minutes: float, kind: Kind) -> Report:
    """Run and judge. Raises: AssertionError, an invariant does not hold."""
    report = Report(seed, kind)
    try:
        async with open_storm(kind, seed) as storm:
            calm = await storm.clients.run(CALM)
            await storm.court.wait_nothing_left()
            report.corruptions = check_judge(await storm.court.hear(calm))
            await rage(storm, report, minutes)
            await storm.court.judge_all(report)
            check_counts(report)
            await storm.stop()
    except (AssertionError, ExceptionGroup) as error:
        error.add_note(str(report))
        raise
    return report


def check_counts(report: Report) -> None:
    """Raises AssertionError unless every fault hit, and I7 holds."""
    missed = [name for name, hits in report.hits.items() if hits == 0]
    assert not missed, f"nothing was hit by: {missed}"
    assert report.longest_stall_s <= report.stall_bound_s, "I7: a generation stood still"
    assert report.longest_silence_s <= report.silence_bound_s, "I7: a reader heard nothing"


async def rage(storm: Storm, report: Report, minutes: float) -> None:
    """Ask and break for so long, until everything that was asked has ended."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(storm.watch.run())
        traffic = tasks.create_task(ask_all(storm.clients, report.seed, over))
        await storm.faults.run(asyncio.get_running_loop().time() + minutes * 60)
        over.set()
        try:
            await wait_until(traffic.done, "all generations and readers to end", _END_S)
        except AssertionError as error:
            for line in await storm.court.describe_open():
                error.add_note(line)
            raise
        # What Redis forgot the end of goes on, though nobody reads it any more.
        await storm.court.wait_nothing_left()
        watch.cancel()
    report.hits = storm.faults.hits
    report.longest_outage_s = max(until - since for since, until in storm.faults.outages)
    report.longest_stall_s = storm.watch.longest_stall_s
    report.stall_bound_s = stall_bound_s(report.longest_outage_s)
    report.silence_bound_s = report.stall_bound_s + ABSENCE_S


def chosen_seed() -> int:
    """SEED, or a fresh one."""
    return int(os.environ.get("SEED") or secrets.randbelow(1_000_000))


def chosen_minutes(default: float) -> float:
    """MINUTES, or the default."""
    return float(os.environ.get("MINUTES") or default)


def chosen_server() -> Kind:
    """SERVER, or the one that is there on every platform."""
    chosen = os.environ.get("SERVER") or "valkey"
    if chosen == "valkey":
        return "valkey"
    if chosen == "redis":
        return "redis"
    raise SystemExit(f"SERVER is valkey or redis, not {chosen}")
