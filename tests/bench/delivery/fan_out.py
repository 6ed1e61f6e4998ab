"""One log and two thousand followers: a token is read once and written two thousand times."""

from collections.abc import Iterator
from typing import Final

from tests.bench.delivery.series import Series, arms_here, describe_sides, open_bench, runs_of, say
from tests.bench.delivery.stages import REJOIN, RESUMABLE, XREAD, Load
from tests.bench.delivery.turn import REDIS, SERVER, WARM_UP_S, take_turn
from tests.bench.line import FULL, Line, Result, Scale

FOLLOWERS: Final = 2_000

PACE: Final = 50.0
"""Tokens a second."""

BOUND_MS: Final = 150.0
"""Of our p99."""

MEASURED_S: Final = 10.0
MEASURED_QUICK_S: Final = 3.0

_ARMS: Final = (REJOIN, XREAD, RESUMABLE)


async def measure(scale: Scale) -> Result:
    """Let the arms take turns."""
    measured_s = MEASURED_S if scale == FULL else MEASURED_QUICK_S
    load = Load(1, PACE, round((WARM_UP_S + measured_s) * PACE), followers_each=FOLLOWERS)
    async with open_bench() as bench:
        series = [Series(arm, load) for arm in arms_here(bench, _ARMS)]
        for run in range(runs_of(scale)):
            for one in series:
                say(f"fan-out: {one.name}, run {run}")
                one.turns.append(await take_turn(one.arm, bench, load))
        sides = describe_sides(bench)
    return Result(
        columns=[
            *("arm", "p50, ms", "p99, ms", "arrived", "server's core"),
            *("server, µs/delivery", "Redis, µs/delivery", "commands/token", "other core"),
        ],
        rows=[_row(one) for one in series],
        notes=[
            f"{FOLLOWERS:,} followers of one log, {PACE:.0f} tokens/s by plain `XADD`, so"
            f" {FOLLOWERS * PACE:,.0f} deliveries a second. {runs_of(scale)} runs; median (least to"
            " most).",
            *sides,
        ],
        data={"series": [one.data() for one in series]},
        failures=[
            *(found for one in series for found in one.find_worthless()),
            *_find_missed(series[0]),
        ],
    )


def _row(series: Series) -> list[str]:
    return [
        series.arm.name,
        series.cell(lambda turn: turn.p50_ms, ",.1f"),
        series.cell(lambda turn: turn.p99_ms, ",.1f"),
        series.arrival,
        series.cell(lambda turn: turn.steady.share(SERVER), ".0%"),
        series.cell(lambda turn: turn.microseconds(SERVER), ".1f"),
        series.cell(lambda turn: turn.microseconds(REDIS), ".2f"),
        series.cell(lambda turn: turn.commands_each, ",.1f"),
        series.cell(lambda turn: turn.rest, ".0%"),
    ]


def _find_missed(ours: Series) -> Iterator[str]:
    if ours.worth and not ours.carries(BOUND_MS):
        yield f"{ours.name}: not carried with a p99 of {BOUND_MS:g} ms"


LINE = Line("fan-out", "One log, two thousand followers: when do they have a token?", measure)
