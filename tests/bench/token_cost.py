"""How much processor time a token costs, by process, beside an endpoint that has no queue at all.

Real workers, a stand-in for the model, and a client for each answer; the arms take turns. A token
counts once a client has it, in a text that is byte for byte what the model said.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.process_cost import Cost, Meter
from tests.bench.stacks import Stack, open_stacks
from tests.bench.table import cell
from tests.bench.wire import read_stream
from tests.support.processes import Process
from tests.support.sse_reader import SseReader
from tests.support.stack import expected_tokens

AT_ONCE = 100
"""Answers at once, each with a client."""

PACE = 50
"""Tokens a second of each answer: twice what hosted models mostly do, and nobody falls behind."""

_TOKENS, _TOKENS_QUICK = 600, 100
_WARM_UP_TOKENS = 20
_PATIENCE_S = 120.0
_END = b"event: done"

AT_EASE = 0.8
"""Of one core: above it, whoever feeds or reads what is measured may have set the pace."""

PROCESSES = ("worker", "Redis", "API")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one arm did in one run."""

    tokens: int
    cost: Cost

    def microseconds(self, process: str) -> float:
        """Processor time for a token, which is also seconds for a million; 0 without such one."""
        return self.cost.busy.get(process, 0.0) / self.tokens * 1e6

    @property
    def whole(self) -> float:
        """The same of all processes."""
        return sum(map(self.microseconds, PROCESSES))


@dataclass(slots=True)
class Arm:
    """One way to build it, and what it did."""

    stack: Stack
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """All arms, and the model they ask."""

    model: Process
    arms: Sequence[Arm]


@asynccontextmanager
async def _open_bench() -> AsyncIterator[Bench]:
    ours, theirs = {"WORKER_MAX_GENERATIONS": str(AT_ONCE)}, {"MAX_JOBS": str(AT_ONCE)}
    async with open_stacks(ours=ours, theirs=theirs) as stacks:
        arms = [Arm(stack) for stack in (stacks.direct, stacks.rejoin, stacks.usual)]
        yield Bench(stacks.model, arms)


async def _take_turn(stack: Stack, model: Process, name: str, tokens: int) -> Turn:
    """Have all answers read to their ends.

    Raises: AssertionError: a client's text is not what the model said.
    """
    prompts = [
        f"[standin tokens={tokens} pace={PACE}] {name}, {stack.name}, {number}"
        for number in range(AT_ONCE)
    ]
    said = [expected_tokens(prompt) for prompt in prompts]

    async def read(prompt: str) -> bytes:
        ask = await stack.begin(prompt)
        return await read_stream(ask, end=_END, patience_s=_PATIENCE_S)

    pids = {kind: process.pid for kind, process in stack.processes.items()}
    meter = Meter({**pids, "model": model.pid, "clients": os.getpid()})
    bodies = await asyncio.gather(*map(read, prompts))
    cost = meter.read()
    for body, expected in zip(bodies, said, strict=True):
        events = SseReader().feed(body)
        text = "".join(stack.read_text(event) for event in events if event.type == "token")
        assert text == "".join(expected), f"{name}: {stack.name} garbled an answer"
    return Turn(sum(map(len, said)), cost)


async def measure(scale: Scale) -> Result:
    """Run every arm, alternating, and compare."""
    tokens = _TOKENS if scale == FULL else _TOKENS_QUICK
    async with _open_bench() as bench:
        for arm in bench.arms:
            await _take_turn(arm.stack, bench.model, "warm-up", _WARM_UP_TOKENS)
        for run in range(scale.runs):
            for arm in bench.arms:
                turn = await _take_turn(arm.stack, bench.model, f"run {run}", tokens)
                arm.turns.append(turn)
    return Result(
        columns=[
            "CPU seconds per million tokens",
            *PROCESSES,
            "together",
            "model's core, clients'",
        ],
        rows=[_row(arm) for arm in bench.arms],
        notes=[
            f"{AT_ONCE} answers of {tokens:,} tokens at once, {PACE} tokens/s each, each with a"
            f" client from its first token to its last; {scale.runs} runs, in which the arms take"
            " turns; in each cell the median over the runs (least to most). Each text is byte for"
            " byte what the model said.",
        ],
        data={
            "arms": {
                arm.stack.name: [{**asdict(turn), "whole": turn.whole} for turn in arm.turns]
                for arm in bench.arms
            }
        },
        failures=list(_find_worthless(bench.arms)),
    )


def _row(arm: Arm) -> list[str]:
    turns, kinds = arm.turns, arm.stack.processes
    costs = (
        cell([turn.microseconds(kind) for turn in turns], ".0f") if kind in kinds else "none"
        for kind in PROCESSES
    )
    whole = cell([turn.whole for turn in turns], ".0f")
    shares = (
        cell([turn.cost.share(name) for turn in turns], ".0%") for name in ("model", "clients")
    )
    return [arm.stack.name, *costs, whole, ", ".join(shares)]


def _find_worthless(arms: Sequence[Arm]) -> Iterator[str]:
    """Who, beside what is measured, was too busy for the figures to mean what they seem to."""
    for arm in arms:
        for run, turn in enumerate(arm.turns):
            for name in ("model", "clients"):
                if (share := turn.cost.share(name)) > AT_EASE:
                    yield f"{arm.stack.name}, run {run}: the {name} used {share:.0%} of a core"


LINE = Line("token-cost", "How much processor time does a token cost?", measure)
