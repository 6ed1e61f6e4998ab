"""What delivery adds to a token, from its append until its client has read it.

Every arm has the same core for its server in turn, and the same load: so many logs, each followed
by one client. The load is raised until an arm falls behind.
"""

from collections.abc import Iterator
from statistics import median
from typing import Final

from tests.bench.delivery.series import Series, arms_here, describe_sides, open_bench, runs_of, say
from tests.bench.delivery.stages import REJOIN, RESUMABLE, TIMED, XREAD, Bench, Load
from tests.bench.delivery.turn import REDIS, SERVER, WARM_UP_S, take_turn
from tests.bench.line import FULL, Line, Result, Scale

STREAMS: Final = (1, 200, 500, 1_000, 2_000)

FEW: Final = 200
MANY: Final = 2_000
"""Between these two the cost of a token is compared."""

PACE: Final = 50.0
"""Tokens a second of each log."""

MEASURED_S: Final = 10.0
MEASURED_QUICK_S: Final = 3.0

BOUNDS_MS: Final = {1_000: 100.0, 2_000: 300.0}
"""Of our p99."""

ONE_STREAM_MS: Final = 2.0
"""Of our p50 with a single stream."""

RISES_AT_MOST: Final = 0.15
"""How much more processor time a token may cost among many streams than among few."""

_ARMS: Final = (REJOIN, XREAD, TIMED, RESUMABLE)


async def measure(scale: Scale) -> Result:
    """Raise the load; the arms take turns."""
    async with open_bench() as bench:
        series = await _measure(bench, scale)
        notes = _describe(bench, scale)
    ours = {s.load.logs: s for s in series if s.arm is REJOIN}
    rise = _rise(ours)
    if rise is not None:
        notes.insert(0, f"Ours: {rise:+.0%} processor time a token from {FEW} to {MANY:,} streams.")
    return Result(
        columns=[
            *("streams", "arm", "p50, ms", "p99, ms", "arrived"),
            *("server's core", "server, µs/token", "Redis, µs/token", "commands/token"),
            "other core",
        ],
        rows=[_row(s) for s in series],
        notes=notes,
        data={"series": [s.data() for s in series]},
        failures=[
            *(found for s in series for found in s.find_worthless()),
            *_find_missed(ours, rise),
        ],
    )


async def _measure(bench: Bench, scale: Scale) -> list[Series]:
    measured_s = MEASURED_S if scale == FULL else MEASURED_QUICK_S
    tokens = round((WARM_UP_S + measured_s) * PACE)
    arms = arms_here(bench, _ARMS)
    series: list[Series] = []
    for streams in STREAMS:
        load = Load(streams, PACE, tokens)
        rung = [Series(arm, load) for arm in arms]
        for run in range(runs_of(scale)):
            for one in rung:
                say(f"latency: {one.name}, run {run}")
                one.turns.append(await take_turn(one.arm, bench, load))
        series += rung
        # Who lost its readers at one load is not asked for more.
        arms = [one.arm for one in rung if one.arm is REJOIN or _keeps_up(one)]
    return series


def _keeps_up(series: Series) -> bool:
    return all(turn.is_sound for turn in series.turns)


def _row(series: Series) -> list[str]:
    return [
        f"{series.load.logs:,}",
        series.arm.name,
        series.cell(lambda turn: turn.p50_ms, ",.1f"),
        series.cell(lambda turn: turn.p99_ms, ",.1f"),
        series.arrival,
        series.cell(lambda turn: turn.steady.share(SERVER), ".0%"),
        series.cell(lambda turn: turn.microseconds(SERVER), ".1f"),
        series.redis_cell(lambda turn: turn.microseconds(REDIS), ".1f"),
        series.redis_cell(lambda turn: turn.commands_each, ".2f"),
        series.cell(lambda turn: turn.rest, ".0%"),
    ]


def _rise(ours: dict[int, Series]) -> float | None:
    """How processor time for a token rises from few streams to many."""
    few, many = (
        [turn.microseconds(SERVER) for turn in ours[streams].worth] for streams in (FEW, MANY)
    )
    return median(many) / median(few) - 1 if few and many else None


def _describe(bench: Bench, scale: Scale) -> list[str]:
    return [
        f"{PACE:.0f} tokens/s of each log, appended by a small program with plain `XADD`; followers"
        " are another one. A token carries the time at which it was written, and the figure is"
        f" what the follower's clock says beyond it. {runs_of(scale)} runs in which the arms take"
        " turns; in each cell the median over the runs (least to most).",
        "Arrived: a follower that lacks a token 3 s after the last was written has not got it in"
        " time. An arm whose readers fell behind is not asked for more.",
        *describe_sides(bench),
    ]


def _find_missed(ours: dict[int, Series], rise: float | None) -> Iterator[str]:
    for streams, bound_ms in BOUNDS_MS.items():
        if ours[streams].worth and not ours[streams].carries(bound_ms):
            yield f"{ours[streams].name}: not carried with a p99 of {bound_ms:g} ms"
    if (alone := ours[1].worth) and median(turn.p50_ms for turn in alone) > ONE_STREAM_MS:
        yield f"one stream: its p50 is not within {ONE_STREAM_MS:g} ms"
    if rise is not None and rise > RISES_AT_MOST:
        yield f"a token costs {rise:.0%} more among {MANY:,} streams than among {FEW}"


LINE = Line("latency", "What does delivery add to a token, from append to client?", measure)
