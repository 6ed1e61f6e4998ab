"""Five thousand followers lose their connections at once and are back at once.

Each comes with a cursor of its own somewhere in the thousand tokens that its log has, and is live
again when it has all of them and the first that was written while it followed before the cut.
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from tests.bench.delivery.load import check_written, open_followers
from tests.bench.delivery.series import NOTHING, arms_here, describe_sides, open_bench, runs_of, say
from tests.bench.delivery.stages import REJOIN, RESUMABLE, XREAD, Arm, Bench, Load
from tests.bench.delivery.turn import AT_EASE, FOLLOWERS, OURSELVES, REDIS, SERVER
from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.process_cost import Cost, Meter
from tests.bench.table import cell

AT_ONCE: Final = 5_000
AT_ONCE_QUICK: Final = 1_000

SHARED_BY: Final = 100
"""Followers of each log in the first storm; in the second each has a log of its own."""

HISTORY: Final = 1_000
"""Tokens of each log."""

PACE: Final = 1.0
"""Tokens a second of each log meanwhile: the generations go on."""

TOKENS: Final = HISTORY + 12
CUT_AFTER_S: Final = 1.5
PATIENCE_S: Final = 30.0

BOUND_S: Final = 3.0
"""Of ours, until the last is live."""


@dataclass(frozen=True, slots=True)
class Storm:
    """One of them."""

    live: int
    """Followers that were live again in time."""
    seconds: float | None
    """Until the last of them was; None if some never were."""
    seen: Mapping[str, Any]
    cost: Cost | None
    """From the cut until the last was live; None if the server did not outlive it."""

    @property
    def wrongs(self) -> dict[str, int]:
        """What somebody lost or heard twice; empty if nobody did."""
        names = ("missing", "duplicates", "wrong_ids", "lost", "refused")
        return {name: int(self.seen[name]) for name in names if self.seen[name]}

    @property
    def worthless(self) -> str | None:
        """Why this run says nothing of the server, if so."""
        share = self.cost.share(FOLLOWERS) if self.cost else 0.0
        return f"the followers used {share:.0%} of their core" if share > AT_EASE else None


@dataclass(slots=True)
class Storms:
    """All runs of one arm."""

    arm: Arm
    load: Load
    runs: list[Storm] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people who look for what went wrong."""
        return f"{self.arm.name}, {self.load.followers:,} followers of {self.load.logs:,} logs"

    @property
    def worth(self) -> list[Storm]:
        """The runs that say something of the server."""
        return [run for run in self.runs if run.worthless is None]

    def cell(self, what: Callable[[Storm], float], spec: str) -> str:
        """Median, least and most of what every run says."""
        return cell([what(run) for run in self.worth], spec) if self.worth else NOTHING

    def busy(self, process: str) -> str:
        """The same of the processor time of one process, in the runs that it outlived."""
        costs = [run.cost for run in self.worth if run.cost is not None]
        return cell([cost.busy[process] for cost in costs], ".2f") if costs else NOTHING

    def most(self, name: str) -> str:
        """The worst of what the followers counted."""
        return f"{max(int(run.seen[name]) for run in self.runs):,}"

    @property
    def until_live(self) -> str:
        """How long it took, or how many it never reached."""
        times = [run.seconds for run in self.worth if run.seconds is not None]
        if times and len(times) == len(self.worth):
            return cell(times, ".2f")
        fewest = min((run.live for run in self.worth), default=0)
        deaths = sum(run.cost is None for run in self.runs)
        died = f"; it died in {deaths} of {len(self.runs)} runs" if deaths else ""
        return f"never all: {fewest:,} after {PATIENCE_S:g} s{died}"


async def _cause_storm(arm: Arm, bench: Bench, load: Load) -> Storm:
    async with arm.open(bench, load) as stage:
        asks = stage.asks(load, after_cut=lambda: random.randrange(load.history))
        async with open_followers(
            *(bench.programs, stage.port, asks),
            last=load.tokens,
            catch_up_to=load.history + 1,
        ) as followers:
            await followers.wait_ready()
            async with stage.write() as writer:
                assert writer is not None
                assert stage.redis is not None
                await writer.wait_said("begun")
                await asyncio.sleep(CUT_AFTER_S)
                pids = {SERVER: stage.server.pid, REDIS: stage.redis.pid}
                meter = Meter({**pids, FOLLOWERS: followers.pid, OURSELVES: os.getpid()})
                followers.begin()
                seconds: float | None = None
                try:
                    said = await followers.wait_said("caught_up", PATIENCE_S)
                    seconds = said["ms"] / 1000
                except AssertionError:
                    say(f"storm: {arm.name}: some were not live after {PATIENCE_S:g} s")
                cost = _read_cost(meter, arm)
                check_written(await writer.wait_said("ended"))
                seen = await followers.finish(PATIENCE_S if seconds else 0)
    return Storm(seen["caught_up"], seconds, seen, cost)


def _read_cost(meter: Meter, arm: Arm) -> Cost | None:
    try:
        return meter.read()
    except FileNotFoundError:
        say(f"storm: {arm.name}: the server is gone")
        return None


async def measure(scale: Scale) -> Result:
    """Let the arms take turns, first with logs that are shared, then with one each."""
    at_once = AT_ONCE if scale == FULL else AT_ONCE_QUICK
    shared = Load(at_once // SHARED_BY, PACE, TOKENS, SHARED_BY, HISTORY)
    alone = Load(at_once, PACE, TOKENS, 1, HISTORY)
    async with open_bench() as bench:
        storms = [Storms(arm, shared) for arm in arms_here(bench, (REJOIN, XREAD, RESUMABLE))]
        storms += [Storms(arm, alone) for arm in arms_here(bench, (REJOIN, XREAD))]
        for run in range(runs_of(scale)):
            for one in storms:
                say(f"storm: {one.name}, run {run}")
                one.runs.append(await _cause_storm(one.arm, bench, one.load))
        sides = describe_sides(bench)
    return Result(
        columns=[
            *("logs", "arm", "until the last is live, s", "p50, s"),
            *("server's CPU, s", "Redis' CPU, s"),
            *("sent away, came again", "turned away", "duplicates", "missing"),
        ],
        rows=[_row(one) for one in storms],
        notes=[
            f"{at_once:,} followers are cut at once and back at once, each with a cursor of its"
            f" own in the {HISTORY:,} tokens of its log; the logs grow on by {PACE:g} token/s."
            f" {runs_of(scale)} runs; median (least to most), of what went wrong the worst.",
            "Sent away: answered 200 and ended; it comes again after the `retry:` it was told, as"
            " an `EventSource` does. Turned away: answered with an error, or not at all.",
            *sides,
        ],
        data={"storms": [_data(one) for one in storms]},
        failures=[found for one in storms for found in _find_failures(one)],
    )


def _row(storms: Storms) -> list[str]:
    return [
        f"{storms.load.logs:,}",
        storms.arm.name,
        storms.until_live,
        storms.cell(lambda run: run.seen["catching_up_us"]["p50"] / 1e6, ".2f"),
        storms.busy(SERVER),
        storms.busy(REDIS),
        *(storms.most(name) for name in ("came_again", "refused", "duplicates", "missing")),
    ]


def _data(storms: Storms) -> dict[str, Any]:
    return {
        "arm": storms.arm.name,
        "logs": storms.load.logs,
        "followers": storms.load.followers,
        "runs": [asdict(run) for run in storms.runs],
    }


def _find_failures(storms: Storms) -> Iterator[str]:
    for number, run in enumerate(storms.runs):
        if run.worthless is not None:
            yield f"{storms.name}, run {number}: discarded: {run.worthless}"
        if storms.arm is REJOIN and run.wrongs:
            yield f"{storms.name}, run {number}: not everybody got everything once: {run.wrongs}"
    if storms.arm is not REJOIN or storms.load.followers_each == 1:
        return
    times = [run.seconds or PATIENCE_S for run in storms.worth]
    if times and median(times) > BOUND_S:
        yield f"{storms.name}: {median(times):.1f} s until the last was live, not {BOUND_S:g} s"


LINE = Line("storm", "Five thousand followers come back at once: when are they live?", measure)
