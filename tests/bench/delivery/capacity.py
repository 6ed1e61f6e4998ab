"""How many streams one server core carries: the most whose every reader has every token in time.

For each arm the number is searched anew in every run: doubled while it is carried, then narrowed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from tests.bench.delivery.series import arms_here, describe_sides, open_bench, runs_of, say
from tests.bench.delivery.stages import REJOIN, RESUMABLE, TIMED, XREAD, Arm, Bench, Load
from tests.bench.delivery.turn import WARM_UP_S, take_turn
from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.table import cell

PACE: Final = 50.0
"""Tokens a second of each log."""

BOUND_MS: Final = 100.0
"""Of the p99."""

FIRST: Final = 50
MOST: Final = 3_200

NARROW: Final = 0.15
"""The search ends when what is carried and what is not are this near."""

MEASURED_S: Final = 6.0
"""A sweep of all logs, which comes every 5 s, falls into it."""

MEASURED_QUICK_S: Final = 3.0

TIMES: Final = 4.0
"""So many times the streams of one XREAD per client ours should carry."""


@dataclass(slots=True)
class Search:
    """One arm, and what was found in each run."""

    arm: Arm
    carried: list[int] = field(default_factory=list)
    tried: list[list[dict[str, Any]]] = field(default_factory=list)


async def _search(arm: Arm, bench: Bench, measured_s: float, tried: list[dict[str, Any]]) -> int:
    """Return the most streams that were carried; 0 if not even the first number was."""
    carried, refused, streams = 0, MOST * 2, FIRST
    while streams <= MOST and refused - carried > max(1, carried * NARROW):
        load = Load(streams, PACE, round((WARM_UP_S + measured_s) * PACE))
        turn = await take_turn(arm, bench, load)
        is_carried = turn.is_sound and turn.p99_ms <= BOUND_MS
        say(f"capacity: {arm.name}, {streams} streams: p99 {turn.p99_ms:.1f} ms, {is_carried}")
        tried.append({"streams": streams, "carried": is_carried, "rest": turn.rest, **turn.data()})
        if is_carried:
            carried = streams
        else:
            refused = streams
        streams = carried * 2 if refused > MOST else (carried + refused) // 2
        if carried == 0 and refused <= FIRST:
            break
    return carried


async def measure(scale: Scale) -> Result:
    """Search for each arm in turn."""
    measured_s = MEASURED_S if scale == FULL else MEASURED_QUICK_S
    async with open_bench() as bench:
        searches = [Search(arm) for arm in arms_here(bench, (REJOIN, XREAD, TIMED, RESUMABLE))]
        for _ in range(runs_of(scale)):
            for search in searches:
                tried: list[dict[str, Any]] = []
                search.carried.append(await _search(search.arm, bench, measured_s, tried))
                search.tried.append(tried)
        sides = describe_sides(bench)
    found = {search.arm: median(search.carried) for search in searches}
    ratio = found[REJOIN] / max(found[XREAD], 1)
    return Result(
        columns=["arm", f"streams with a p99 of at most {BOUND_MS:g} ms"],
        rows=[[search.arm.name, cell(search.carried, ",.0f")] for search in searches],
        notes=[
            f"**{ratio:.1f} times** the streams of one XREAD per client.",
            f"Carried: every follower got everything that was appended, once and in order, and the"
            f" p99 of {measured_s:g} s is within the bound. {PACE:.0f} tokens/s of each log;"
            f" searched anew in each of {runs_of(scale)} runs, up to {MOST:,} and until what is"
            f" carried and what is not are within {NARROW:.0%}; median (least to most).",
            *sides,
        ],
        data={
            "ratio": ratio,
            "searches": [
                {"arm": search.arm.name, "carried": search.carried, "tried": search.tried}
                for search in searches
            ],
        },
        failures=[*_find_worthless(searches), *_find_missed(ratio)],
    )


def _find_worthless(searches: list[Search]) -> Iterator[str]:
    for search in searches:
        for run, tried in enumerate(search.tried):
            for turn in tried:
                if turn["worthless"] is not None:
                    where = f"{search.arm.name}, run {run}, {turn['streams']} streams"
                    yield f"{where}: worthless twice: {turn['worthless']}"


def _find_missed(ratio: float) -> Iterator[str]:
    if ratio < TIMES:
        yield f"{ratio:.1f} times the streams of one XREAD per client, not {TIMES:g}"


LINE = Line("capacity", "How many streams does one server core carry?", measure)
