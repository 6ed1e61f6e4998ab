"""How long a client waits for the next text after kill -9 of the worker that wrote its answer.

A worker is one of two, with default settings but for the ladder, and nobody is started in the dead
one's place before the answer is complete. The kills are spread over the time between two renewals
of the lease, and over the text.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

from tests.bench.line import Line, Result, Scale
from tests.bench.summary import percentile
from tests.support.promises import PROMISES, SLACK
from tests.support.promises_recovery import Recovery
from tests.support.promises_site import Site, Strike, open_site
from worker.settings import WorkerSettings

BOUND = PROMISES["worker killed"].bound.within()
MEDIAN_AT_MOST = BOUND - timedelta(seconds=0.5)
LONGEST_AT_MOST = BOUND + SLACK
"""Beyond these the line fails: the promise is for every kill, a busy machine may add to one."""

_RENEWAL: timedelta = WorkerSettings.model_fields["renewal"].default
_ANSWER = "[standin tokens=200 pace=100]"
_SHARES = {"early": 0.0, "middle": 0.35, "late": 0.68}
"""Where in the text a kill may come at the earliest; waiting for its phase adds up to a quarter."""

_SAMPLES_A_KILL = 20
_FEWEST_A_RUN = 2


@dataclass(slots=True)
class Arm:
    """One way to go on after a death."""

    name: str
    resume: str
    """How the second attempt calls itself."""
    env: Mapping[str, str]
    """What its workers are told."""
    continues: Callable[[str], list[int | None]]
    """What the stand-in's ledger must say of its calls, given what the client held."""
    share_of_kills: float = 1.0
    keeps_text: bool = True
    """Whether what the client held stands; if not it has to be said anew before there is more."""
    recoveries: list[Recovery] = field(default_factory=list)


def _arms() -> list[Arm]:
    continues = {"WORKER_LADDER": '{"*": ["continue", "restart"]}'}
    rejoins = {"WORKER_LADDER": '{"*": ["reattach", "restart"]}'}
    return [
        Arm("`reattach`", "reattach", rejoins, lambda _: [None], 1 / 3),
        Arm("`continue`", "continue", continues, lambda held: [None, len(held)]),
        Arm("`restart`", "restart", {}, lambda _: [None, None], 1 / 3, keeps_text=False),
    ]


def _strikes(arm: Arm, count: int) -> list[Strike]:
    """Phases in `count` strata, the parts of the text in turn; in an order that mixes them."""
    shares = list(_SHARES.values())
    strikes = [
        Strike(
            f"{_ANSWER} {arm.resume} {number}",
            share=shares[number % len(shares)],
            phase=_RENEWAL * ((number + 0.5) / count),
        )
        for number in range(count)
    ]
    Random(count).shuffle(strikes)
    return strikes


async def _run(arm: Arm, kills: int, failures: list[str]) -> None:
    """Kill one of two workers that often, each time with two that are idle before."""
    async with open_site(workers=2, worker_env=arm.env) as site:
        for strike in _strikes(arm, kills):
            recovery = await site.strike(strike)
            try:
                recovery.check(arm.resume, arm.continues(recovery.held))
            except AssertionError as error:
                failures.append(f"{arm.name}: {strike}: {error}")
            arm.recoveries.append(recovery)
            await _be_two_again(site)


async def _be_two_again(site: Site) -> None:
    """The answer is complete: start a worker in the dead one's place, let the other become idle."""
    await asyncio.gather(site.wait_idle(), site.start_worker())


async def measure(scale: Scale) -> Result:
    """Kill, arm after arm."""
    kills = scale.runs * max(_FEWEST_A_RUN, scale.per_run // _SAMPLES_A_KILL)
    failures: list[str] = []
    arms = _arms()
    for arm in arms:
        await _run(arm, max(1, round(kills * arm.share_of_kills)), failures)
        failures += _judge(arm)
    return Result(
        columns=[
            "seconds from kill -9",
            "kills",
            "text beyond what the client held: p50 / p90",
            "least to most",
            "the next attempt's first text: p50 / p90",
            "least to most",
            "of which, p50: lease lapses + marked + taken over + model asked + text there",
        ],
        rows=[_row(arm) for arm in arms],
        notes=[
            "One of two workers is killed, with default settings but for `WORKER_LADDER`; none is"
            " started before the answer is complete. The time counts from the signal to the"
            " client's event. Each answer was byte-right in the end; after `continue` the model had"
            " been asked twice, with what the client held as prefix. It says 100 tokens/s, so a"
            " `restart` is beyond what was held only once that was said again.",
            f"Promised: {BOUND.total_seconds():g} s. The line fails beyond"
            f" {MEDIAN_AT_MOST.total_seconds():g} s (p50) or"
            f" {LONGEST_AT_MOST.total_seconds():g} s (one kill).",
            *(_spread(arm) for arm in arms),
        ],
        data={arm.resume: [_as_json(each) for each in arm.recoveries] for arm in arms},
        failures=failures,
    )


def _text_after(recovery: Recovery) -> float:
    return recovery.text_at - recovery.struck_at


def _beyond_after(recovery: Recovery) -> float:
    return recovery.beyond_at - recovery.struck_at


def _judge(arm: Arm) -> list[str]:
    what = _beyond_after if arm.keeps_text else _text_after
    times = [what(each) for each in arm.recoveries]
    failures = []
    if (median := percentile(times, 50)) > MEDIAN_AT_MOST.total_seconds():
        failures.append(f"{arm.name}: p50 {median:.2f} s")
    if (longest := max(times)) > LONGEST_AT_MOST.total_seconds():
        failures.append(f"{arm.name}: longest {longest:.2f} s")
    return failures


def _steps(recovery: Recovery) -> list[float]:
    """Where the time went, from the strike to the next attempt's first text."""
    moments = [
        recovery.struck_at,
        recovery.lapsed_at,
        recovery.marked_at,
        recovery.taken_at,
        recovery.asked_at,
        recovery.text_at,
    ]
    return [until - since for since, until in pairwise(moments)]


def _row(arm: Arm) -> list[str]:
    cells = [arm.name, str(len(arm.recoveries))]
    for what in (_beyond_after, _text_after):
        times = [what(each) for each in arm.recoveries]
        cells.append(f"{percentile(times, 50):.2f} / {percentile(times, 90):.2f}")
        cells.append(f"{min(times):.2f} to {max(times):.2f}")
    steps = zip(*(_steps(each) for each in arm.recoveries), strict=True)
    cells.append(" + ".join(f"{percentile(step, 50):.3f}" for step in steps))
    return cells


def _spread(arm: Arm) -> str:
    """Where the kills really hit."""
    phases = sorted(each.phase for each in arm.recoveries)
    shares = sorted(each.share for each in arm.recoveries)
    return (
        f"{arm.name}: killed {phases[0]:.2f} to {phases[-1]:.2f} s after the last renewal,"
        f" with {shares[0]:.0%} to {shares[-1]:.0%} of the text said."
    )


def _as_json(recovery: Recovery) -> dict[str, Any]:
    steps: Sequence[float] = _steps(recovery)
    names = ("lapses", "marked", "taken", "asked", "text")
    return {
        "phase": recovery.phase,
        "share": recovery.share,
        "beyond": _beyond_after(recovery),
        "text": _text_after(recovery),
        "steps": dict(zip(names, steps, strict=True)),
    }


LINE = Line("recovery", "How long is the silence after a worker was killed?", measure)
