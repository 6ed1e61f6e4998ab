"""How long a model's first token is on its way to the client, and what the queue adds before it.

The arms take turns, one generation each, so that whatever else the machine does befalls all
alike. Both ends of a token's way are read from the same clock: the stand-in writes down when the
token left it.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.line import Line, Result, Scale
from tests.bench.stacks import Stack, open_stacks
from tests.bench.summary import spread
from tests.bench.wire import first_token_time
from tests.support.api_client import ApiClient
from tests.support.processes import Process
from tests.support.stack import MODEL, user
from worker.standin import request_key

MODEL_THINKS_MS = 50
"""So long the model is silent before its first token: a client is connected by then, as with any
real model, and what is measured is the token's way and not the client's."""

_ARQ_POLLS_EVERY_S = 0.5
"""Requests must come at any moment of it, else the queue's share would be an artefact."""

_WARM_UP = 3


@dataclass(slots=True)
class Sample:
    """One generation, in milliseconds."""

    on_its_way: float
    """From the model's first token to the client's."""
    until_asked: float
    """From the request to the moment at which the model has it."""
    whole: float
    """From the request to the client's first token, the model's own time included."""


@dataclass(slots=True)
class Arm:
    """One way to build it, and what came."""

    stack: Stack
    pause_s: float
    """Before a request there is a pause of up to so long."""
    runs: list[list[Sample]] = field(default_factory=list)


@dataclass(slots=True)
class Bench:
    """All processes of the line."""

    arms: list[Arm]
    standin: ApiClient
    worker: Process

    def leases(self) -> Counter[str]:
        """What made Rejoin's worker take its jobs: `wake`, or the poll that stands in for it."""
        events = [json.loads(line) for line in self.worker.lines if '"job_leased"' in line]
        return Counter(event["by"] for event in events)


async def _read(stack: Stack, prompt: str) -> float:
    return await first_token_time(
        await stack.begin(prompt), token=b"event: token", end=b"event: done"
    )


@asynccontextmanager
async def _open_bench() -> AsyncIterator[Bench]:
    async with open_stacks(ours={"LOG_LEVEL": "debug"}, theirs={}) as stacks:
        arms = [
            Arm(stacks.direct, 0.05),
            Arm(stacks.rejoin, 0.05),
            Arm(stacks.usual, _ARQ_POLLS_EVERY_S),
        ]
        yield Bench(arms, ApiClient(stacks.model_url), stacks.rejoin.processes["worker"])


async def _run(bench: Bench, name: str, count: int) -> list[list[Sample]]:
    """Let the arms take turns `count` times; the samples of each."""
    taken: list[list[tuple[str, float, float]]] = [[] for _ in bench.arms]
    for number in range(count):
        for arm, times in zip(bench.arms, taken, strict=True):
            prompt = f"[standin tokens=5 pace=500 first_token_ms={MODEL_THINKS_MS}] {name} {number}"
            prompt = f"{prompt} {arm.stack.name}"
            await asyncio.sleep(random.uniform(0, arm.pause_s))
            asked_at = time.time()
            times.append((prompt, asked_at, await _read(arm.stack, prompt)))
    ledger = (await bench.standin.call("GET", "/ledger")).json["requests"]
    by_key = {request["key"]: request for request in ledger}
    return [[_sample(by_key[request_key(MODEL, user(p))], a, f) for p, a, f in t] for t in taken]


def _sample(request: dict[str, float], asked_at: float, first_at: float) -> Sample:
    return Sample(
        on_its_way=(first_at - request["first_token_at"]) * 1000,
        until_asked=(request["received_at"] - asked_at) * 1000,
        whole=(first_at - asked_at) * 1000,
    )


async def measure(scale: Scale) -> Result:
    """Run every arm, alternating, and compare."""
    async with _open_bench() as bench:
        await _run(bench, "warm-up", _WARM_UP)
        for run in range(scale.runs):
            samples = await _run(bench, f"run {run}", scale.per_run)
            for arm, taken in zip(bench.arms, samples, strict=True):
                arm.runs.append(taken)
        leases = bench.leases()
    failures = []
    if leases["wake"] == 0:
        failures.append(f"the wake never fired: {dict(leases)}")
    return Result(
        columns=[
            "ms, p50 / p99",
            "token on its way",
            "request → model asked",
            f"request → first token (model: {MODEL_THINKS_MS})",
        ],
        rows=[
            [arm.stack.name, *(_cell(arm, what) for what in ("on_its_way", "until_asked", "whole"))]
            for arm in bench.arms
        ],
        notes=[
            f"{scale.runs} runs of {scale.per_run} sequential generations an arm, taking turns; "
            "in each cell the median over the runs (least to most).",
            f"Rejoin's worker took {leases.total()} jobs: {leases['wake']} by wake,"
            f" {leases['poll']} by poll.",
        ],
        data={
            "leases": dict(leases),
            "arms": {
                arm.stack.name: [
                    [[s.on_its_way, s.until_asked, s.whole] for s in r] for r in arm.runs
                ]
                for arm in bench.arms
            },
        },
        failures=failures,
    )


def _cell(arm: Arm, what: str) -> str:
    runs = [[float(getattr(sample, what)) for sample in run] for run in arm.runs]
    return f"{spread(runs, 50)} / {spread(runs, 99)}"


LINE = Line("first-token", "What does the queue cost before the first token?", measure)
