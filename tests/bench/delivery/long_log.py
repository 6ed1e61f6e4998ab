"""Whether a token costs more the longer its log is: the server's time at both ends of a log."""

import asyncio
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from tests.bench.delivery.load import check_written, open_followers
from tests.bench.delivery.series import describe_sides, open_bench, runs_of, say
from tests.bench.delivery.stages import REJOIN, Bench, Load
from tests.bench.delivery.turn import GRACE_S, REDIS, SERVER
from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.process_cost import Cost, Meter
from tests.bench.table import cell

LOGS: Final = 20
PACE: Final = 500.0
"""Tokens a second of each log: faster than a model, so that the end comes within seconds."""

TOKENS: Final = 10_000
TOKENS_QUICK: Final = 4_000

MARGIN: Final = 500
"""Tokens left out at both ends: connections and caches are warm by then."""

SPAN: Final = 1_500
"""Tokens of each log that an end is."""

RISES_AT_MOST: Final = 0.15

PROCESSES: Final = (SERVER, REDIS)


@dataclass(frozen=True, slots=True)
class Ends:
    """One run."""

    first: Cost
    last: Cost
    seen: dict[str, Any]

    def microseconds(self, process: str) -> tuple[float, float]:
        """Processor time for a token, at the beginning and at the end of the logs."""
        tokens = [cost.seconds * PACE * LOGS for cost in (self.first, self.last)]
        first, last = (cost.busy[process] for cost in (self.first, self.last))
        return first / tokens[0] * 1e6, last / tokens[1] * 1e6

    def rise(self, process: str) -> float:
        """By which share the second is above the first."""
        first, last = self.microseconds(process)
        return last / first - 1


async def _run(bench: Bench, tokens: int) -> Ends:
    load = Load(LOGS, PACE, tokens)
    async with REJOIN.open(bench, load) as stage:
        assert stage.redis is not None
        pids = {SERVER: stage.server.pid, REDIS: stage.redis.pid}
        async with open_followers(
            bench.programs, stage.port, stage.asks(load), last=tokens
        ) as followers:
            await followers.wait_ready()
            async with stage.write() as writer:
                assert writer is not None
                await writer.wait_said("begun")
                began = time.monotonic()
                first = await _measure_span(began, MARGIN, pids)
                last = await _measure_span(began, tokens - MARGIN - SPAN, pids)
                check_written(await writer.wait_said("ended"))
                seen = await followers.finish(GRACE_S)
    return Ends(first, last, seen)


async def _measure_span(began: float, number: int, pids: dict[str, int]) -> Cost:
    """Measure while tokens `number` and following are written."""
    await asyncio.sleep(began + number / PACE - time.monotonic())
    meter = Meter(pids)
    await asyncio.sleep(began + (number + SPAN) / PACE - time.monotonic())
    return meter.read()


async def measure(scale: Scale) -> Result:
    """Write logs to their end, and look at both ends."""
    tokens = TOKENS if scale == FULL else TOKENS_QUICK
    runs: list[Ends] = []
    async with open_bench() as bench:
        for run in range(runs_of(scale)):
            say(f"long-log: run {run}")
            runs.append(await _run(bench, tokens))
        sides = describe_sides(bench)
    rise = median(run.rise(SERVER) for run in runs)
    failures = [
        f"run {number}: {missing:,} tokens are missing"
        for number, run in enumerate(runs)
        if (missing := run.seen["missing"])
    ]
    if rise > RISES_AT_MOST:
        failures.append(f"a token at the end of a log costs {rise:.0%} more than at its beginning")
    return Result(
        columns=["µs/token", "first tokens", f"up to the {tokens:,}th", "rise"],
        rows=[
            [
                process,
                cell([run.microseconds(process)[0] for run in runs], ".1f"),
                cell([run.microseconds(process)[1] for run in runs], ".1f"),
                cell([run.rise(process) for run in runs], "+.0%"),
            ]
            for process in PROCESSES
        ],
        notes=[
            f"{LOGS} logs at {PACE:.0f} tokens/s, each with a follower; {SPAN:,} tokens of each"
            f" log at either end. {runs_of(scale)} runs; median (least to most).",
            *sides,
        ],
        data={"tokens": tokens, "runs": [asdict(run) for run in runs]},
        failures=failures,
    )


LINE = Line("long-log", "Does a token cost more the longer its log is?", measure)
