"""One turn: a stage under its load, from the first token to the last that anybody got."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.bench.delivery.load import Followers, check_written, open_followers
from tests.bench.delivery.stages import Arm, Bench, Load, Stage
from tests.bench.process_cost import Cost, Meter
from tests.support.redis_server import RedisServer

WARM_UP_S: Final = 2.0

GRACE_S: Final = 3.0
"""After the last token was written; who is further behind than that does not keep up."""

AT_EASE: Final = 0.8
"""A writer or followers that use more of their core than this may be what was measured."""

FULL: Final = 0.9
"""Beyond it the other core was in the way: the latency is an upper bound."""

DISTURBED: Final = 0.05
"""Share of the time in which the server was ready to run and somebody else had its core."""

_EARLIER_S: Final = 0.3

SERVER, FOLLOWERS, REDIS, OURSELVES = "server", "followers", "redis", "bench"
WRITER, PRODUCER = "writer", "producer"
"""Ours, and one that belongs to what is measured."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of it."""

    load: Load
    seen: Mapping[str, Any]
    """By the followers: see `report` in followers.c."""
    late_us: int
    """How late the writer's latest token was."""
    steady: Cost
    """While tokens were measured, without the warm-up."""
    whole: Cost
    """Of server and Redis, from the first token written until the last was read."""
    commands: Mapping[str, int]
    """That Redis ran meanwhile."""

    @property
    def p50_ms(self) -> float:
        return float(self.seen["latency_us"]["p50"]) / 1000

    @property
    def p99_ms(self) -> float:
        return float(self.seen["latency_us"]["p99"]) / 1000

    @property
    def arrived(self) -> float:
        """Share of the tokens that arrived."""
        return 1 - int(self.seen["missing"]) / (self.load.followers * self.load.fresh)

    @property
    def is_sound(self) -> bool:
        """Whether everybody got everything, once, in order."""
        names = ("missing", "duplicates", "wrong_ids", "lost", "refused")
        return all(self.seen[name] == 0 for name in names)

    @property
    def rest(self) -> float:
        """Share that everything but the server has of the other core."""
        return sum(self.steady.share(name) for name in self.steady.busy if name != SERVER)

    def microseconds(self, process: str) -> float:
        """Processor time for one token that arrived."""
        return self.whole.busy[process] / float(self.seen["tokens"]) * 1e6

    @property
    def commands_each(self) -> float:
        """Commands of Redis for one token that was written, its own append among them."""
        return sum(self.commands.values()) / (self.load.logs * self.load.fresh)

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seen": dict(self.seen),
            "late_us": self.late_us,
            "steady": asdict(self.steady),
            "whole": asdict(self.whole),
            "commands": dict(self.commands),
            "worthless": self.worthless,
        }

    @property
    def worthless(self) -> str | None:
        """Why this turn says nothing of the server, if so."""
        for name in (FOLLOWERS, WRITER):
            if name in self.steady.busy and (share := self.steady.share(name)) > AT_EASE:
                return f"the {name} used {share:.0%} of their core"
        waited = self.steady.waited[SERVER] / self.steady.seconds
        if waited > DISTURBED:
            return f"others had the server's core for {waited:.0%} of the time"
        return None


async def take_turn(arm: Arm, bench: Bench, load: Load) -> Turn:
    """Take a turn, and another one if that says nothing."""
    turn = await _take_turn(arm, bench, load, WARM_UP_S)
    if turn.worthless is None:
        return turn
    print(f"{arm.name}: again, since {turn.worthless}", file=sys.stderr, flush=True)
    return await _take_turn(arm, bench, load, WARM_UP_S)


async def _take_turn(arm: Arm, bench: Bench, load: Load, warm_up_s: float) -> Turn:
    """Open the stage, let everybody follow, write, and look."""
    async with arm.open(bench, load) as stage:
        measure_from = load.history + round(warm_up_s * load.pace) + 1
        async with open_followers(
            *(bench.programs, stage.port, stage.asks(load)),
            last=load.tokens,
            measure_from=measure_from,
        ) as followers:
            await followers.wait_ready()
            return await _write(stage, load, followers, warm_up_s)


async def _write(stage: Stage, load: Load, followers: Followers, warm_up_s: float) -> Turn:
    lasting = {SERVER: stage.server.pid}
    if stage.redis is not None:
        lasting[REDIS] = stage.redis.pid
    passing = {FOLLOWERS: followers.pid, OURSELVES: os.getpid()}
    async with stage.write() as writer:
        if writer is not None:
            passing[PRODUCER if stage.has_own_writer else WRITER] = writer.pid
            await writer.wait_said("begun")
        else:
            await _sleep_until(stage.begins_at_us or 0)
        began = time.monotonic()
        before, whole = _commands(stage.redis), Meter(lasting)
        await asyncio.sleep(warm_up_s)
        steady = Meter(lasting | passing)
        # The programs are gone when they have ended: look a little earlier.
        await asyncio.sleep(began + load.fresh / load.pace - _EARLIER_S - time.monotonic())
        steady_cost = steady.read()
        written = check_written(await writer.wait_said("ended")) if writer is not None else None
        seen = await followers.finish(GRACE_S)
        cost, after = whole.read(), _commands(stage.redis)
    ran = {name: calls - before.get(name, 0) for name, calls in after.items()}
    return Turn(
        load,
        seen,
        written["late"]["max"] if written else 0,
        steady_cost,
        cost,
        {name: calls for name, calls in ran.items() if calls},
    )


async def _sleep_until(at_us: int) -> None:
    left_s = at_us / 1e6 - time.monotonic()
    if left_s < 0:
        raise AssertionError(f"its followers were ready {-left_s:.1f} s too late")
    await asyncio.sleep(left_s)


def _commands(redis: RedisServer | None) -> dict[str, int]:
    """How often every command was called, but for the one that tells."""
    if redis is None:
        return {}
    with redis.blocking_client() as client:
        stats: Any = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(s["calls"]) for name, s in stats.items()}
    return {name: n for name, n in calls.items() if name not in ("info", "client|setinfo")}
