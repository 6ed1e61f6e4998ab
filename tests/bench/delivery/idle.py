"""What a follower costs that hears nothing: memory of the server, and of Redis."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tests.bench.delivery.load import NEVER, open_followers
from tests.bench.delivery.series import arms_here, describe_sides, open_bench, runs_of, say
from tests.bench.delivery.stages import REJOIN, RESUMABLE, XREAD, Arm, Bench, Load
from tests.bench.delivery.turn import SERVER
from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.process_cost import Meter, private_kib
from tests.bench.table import cell
from tests.support.redis_server import RedisServer

FOLLOWERS: Final = 5_000
FOLLOWERS_QUICK: Final = 1_000

SHARED_BY: Final = 100
"""Followers of each log, in half of the measurements."""

SETTLES_S: Final = 2.0
"""What the opening itself took is free again after this."""

WATCHED_S: Final = 10.0
"""So long nobody says anything: a sweep of all logs falls into it twice."""


@dataclass(frozen=True, slots=True)
class Idle:
    """One run."""

    server_kib: float
    """Private memory of the server for each follower."""
    redis_kib: float
    """Memory that Redis says it uses more, for each follower: connections, tracking."""
    busy: float
    """Share of one core while nothing happens."""
    opened_s: float
    """Until all were let in."""


@dataclass(slots=True)
class Measured:
    """All runs of one arm."""

    arm: Arm
    load: Load
    runs: list[Idle] = field(default_factory=list)

    def cell(self, what: Callable[[Idle], float], spec: str) -> str:
        """Median, least and most of what every run says."""
        return cell([what(run) for run in self.runs], spec)


async def _hold(arm: Arm, bench: Bench, load: Load) -> Idle:
    async with arm.open(bench, load) as stage:
        assert stage.redis is not None
        server_kib, redis_bytes = private_kib(stage.server.pid), _used_bytes(stage.redis)
        async with open_followers(
            bench.programs, stage.port, stage.asks(load), last=NEVER
        ) as followers:
            opened_ms = await followers.wait_ready()
            await asyncio.sleep(SETTLES_S)
            meter = Meter({SERVER: stage.server.pid})
            await asyncio.sleep(WATCHED_S)
            busy = meter.read().share(SERVER)
            server_kib = private_kib(stage.server.pid) - server_kib
            redis_bytes = _used_bytes(stage.redis) - redis_bytes
    count = load.followers
    return Idle(server_kib / count, redis_bytes / 1024 / count, busy, opened_ms / 1000)


def _used_bytes(redis: RedisServer) -> int:
    with redis.blocking_client() as client:
        memory: Any = client.info("memory")
    return int(memory["used_memory"])


async def measure(scale: Scale) -> Result:
    """Let the arms take turns."""
    count = FOLLOWERS if scale == FULL else FOLLOWERS_QUICK
    shared = Load(count // SHARED_BY, 0, 0, SHARED_BY)
    alone = Load(count, 0, 0)
    async with open_bench() as bench:
        measured = [Measured(REJOIN, alone)]
        measured += [Measured(arm, shared) for arm in arms_here(bench, (REJOIN, XREAD, RESUMABLE))]
        for run in range(runs_of(scale)):
            for one in measured:
                say(f"idle: {one.arm.name}, {one.load.logs:,} logs, run {run}")
                one.runs.append(await _hold(one.arm, bench, one.load))
        sides = describe_sides(bench)
    return Result(
        columns=[
            *("logs", "arm", "server, KiB each", "Redis, KiB each"),
            *("server's core", "all let in after, s"),
        ],
        rows=[
            [
                f"{one.load.logs:,}",
                one.arm.name,
                one.cell(lambda run: run.server_kib, ".1f"),
                one.cell(lambda run: run.redis_kib, ".1f"),
                one.cell(lambda run: run.busy, ".1%"),
                one.cell(lambda run: run.opened_s, ".1f"),
            ]
            for one in measured
        ],
        notes=[
            f"{count:,} followers of logs in which nothing happens, looked at"
            f" {SETTLES_S + WATCHED_S:g} s after the last was let in; private memory of the"
            " process, the kernel's for sockets not counted. Of Redis: what it says it uses more"
            f" than before. {runs_of(scale)} runs; median (least to most).",
            *sides,
        ],
        data={
            "idle": [
                {
                    "arm": one.arm.name,
                    "logs": one.load.logs,
                    "followers": one.load.followers,
                    "runs": [asdict(run) for run in one.runs],
                }
                for one in measured
            ]
        },
    )


LINE = Line("idle", "What does a follower cost that hears nothing?", measure)
