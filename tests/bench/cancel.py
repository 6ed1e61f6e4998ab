"""How long a cancelled generation still runs: until its followers know, and until nobody pays.

Everything is a process of its own and speaks over sockets. The generations are in the middle of
their text, one after the other, each with a follower. All moments are of the same clock: when the
client sent its POST, when the follower had the closing event, and when the stand-in saw that its
answer was wanted no more.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.bench.line import Line, Result, Scale
from tests.bench.summary import percentile, spread
from tests.bench.wire import Ask, first_token_time, post
from tests.support.api_client import ApiClient
from tests.support.processes import free_port, open_process
from tests.support.redis_server import open_redis_server
from tests.support.stack import MODEL, WORKER_IS_UP, api_environment, user, worker_environment
from worker.standin import request_key

STOPPED_WITHIN_MS = 100
"""Ours to keep, at p99: a provider is not paid for longer than this."""

_PACE = 4
"""Tokens a second: so few that no worker learns of its cancel because the log refuses the next."""

_LONGEST_S = 60
"""Far longer than anything here takes: whatever ends an answer is the cancel."""

_SOMEWHERE_S = 0.2
"""An answer is cancelled at any moment of its first tokens."""

_WARM_UP = 3
_PATIENCE_S = 30
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which a model is asked: what the prompt and the worker are told."""

    name: str
    directive: str
    outcome: str
    """What becomes of a cancelled answer, by the model's own account."""
    worker_env: dict[str, str] = field(default_factory=dict)


WAYS = (
    Way(
        "Chat Completions, in the middle of the text",
        directive=f"tokens={_LONGEST_S * _PACE}",
        outcome="client_closed",
    ),
    Way(
        "Responses in the background, in the middle of the text",
        directive=f"tokens={_LONGEST_S * _PACE}",
        outcome="cancelled",
        worker_env={"WORKER_LADDER": '{"*": ["reattach", "restart"]}'},
    ),
)


@dataclass(frozen=True, slots=True)
class Moments:
    """Of one cancel, in Unix seconds."""

    prompt: str
    sent_at: float
    answered_at: float
    told_at: float
    """When the follower had the closing event."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The same, in milliseconds since the client sent its POST."""

    answered: float
    told: float
    stopped: float


@dataclass(slots=True)
class Bench:
    """What runs: where to ask, and the model's own account."""

    api: str
    standin: ApiClient

    async def ledger(self) -> list[dict[str, Any]]:
        """Every request that the model had, once nothing is on its way any more."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                ledger = (await self.standin.call("GET", "/ledger")).json
                if not ledger["open"] and not ledger["running"]:
                    requests: list[dict[str, Any]] = ledger["requests"]
                    return requests
                await asyncio.sleep(_LOOK_EVERY_S)


@asynccontextmanager
async def _open_bench(way: Way) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as exits:
        redis = (await exits.enter_async_context(open_redis_server())).url
        model_port, api_port = free_port(), free_port()
        model, api = (f"http://127.0.0.1:{port}" for port in (model_port, api_port))
        worker_env = worker_environment(redis, f"{model}/v1", way.worker_env)
        for module, env, ready in (
            ("worker.standin", {"STANDIN_PORT": str(model_port)}, f"{model}/healthz"),
            ("api", api_environment(redis, api_port, {}), f"{api}/healthz"),
            ("worker", worker_env, WORKER_IS_UP),
        ):
            await exits.enter_async_context(open_process(module, env, ready))
        yield Bench(api, ApiClient(model))


async def _cancel_one(api: str, prompt: str) -> Moments:
    """Ask, follow, cancel in the middle of the text, and see the end."""
    answer = await post(f"{api}/v1/generations", {"prompt": prompt})
    generation = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]
    url = f"{api}/v1/generations/{generation}"
    end = b"event: cancelled"
    events = Ask("GET", f"{url}/events")
    follower = asyncio.create_task(first_token_time(events, token=end, end=end))
    try:
        await first_token_time(events, token=b"event: token", end=b"event: token")
        await asyncio.sleep(random.uniform(0, _SOMEWHERE_S))
        sent_at = time.time()
        head, _, body = (await post(f"{url}/cancel", {})).partition(b"\r\n\r\n")
        answered_at = time.time()
        if not head.startswith(b"HTTP/1.1 200") or json.loads(body)["status"] != "cancelled":
            raise ConnectionError(f"the cancel was answered by {head!r}")
        return Moments(prompt, sent_at, answered_at, await follower)
    finally:
        follower.cancel()


async def _run(bench: Bench, way: Way, name: str, count: int) -> list[Sample]:
    """Cancel `count` generations, one after the other."""
    prompts = [f"[standin {way.directive} pace={_PACE}] {name} {number}" for number in range(count)]
    taken = [await _cancel_one(bench.api, prompt) for prompt in prompts]
    by_key = {request["key"]: request for request in await bench.ledger()}
    return [_sample(by_key[request_key(MODEL, user(m.prompt))], way, m) for m in taken]


def _sample(request: dict[str, Any], way: Way, moments: Moments) -> Sample:
    if request["outcome"] != way.outcome:
        raise ConnectionError(f"the model's answer was {request['outcome']}, not {way.outcome}")
    return Sample(
        answered=(moments.answered_at - moments.sent_at) * 1000,
        told=(moments.told_at - moments.sent_at) * 1000,
        stopped=(request["ended_at"] - moments.sent_at) * 1000,
    )


async def measure(scale: Scale) -> Result:
    """Run every way and compare it with what it may take."""
    count = scale.per_run // 2
    runs: dict[str, list[list[Sample]]] = {}
    for way in WAYS:
        async with _open_bench(way) as bench:
            await _run(bench, way, "warm-up", _WARM_UP)
            runs[way.name] = [
                await _run(bench, way, f"run {number}", count) for number in range(scale.runs)
            ]
    failures = []
    for name, taken in runs.items():
        slowest = percentile([sample.stopped for run in taken for sample in run], 99)
        if slowest > STOPPED_WITHIN_MS:
            failures.append(f"{name}: the provider was stopped after {slowest:.1f} ms (p99)")
    return Result(
        columns=[
            "ms since the cancel was sent, p50 / p99 / max",
            "answered",
            "followers know",
            "provider stopped",
        ],
        rows=[
            [name, *(_cell(taken, what) for what in ("answered", "told", "stopped"))]
            for name, taken in runs.items()
        ],
        notes=[
            f"{scale.runs} runs of {count} generations each, one after the other, cancelled within"
            f" {_SOMEWHERE_S * 1000:.0f} ms of their first token at {_PACE} tokens/s; in each cell"
            " the median over the runs (least to most). Stopped as the model's server saw it: the"
            " connection closed, or the run in the background ended."
            f" It must be within {STOPPED_WITHIN_MS} ms (p99).",
        ],
        data={
            "ways": {
                name: [[[s.answered, s.told, s.stopped] for s in run] for run in taken]
                for name, taken in runs.items()
            }
        },
        failures=failures,
    )


def _cell(runs: list[list[Sample]], what: str) -> str:
    figures = [[float(getattr(sample, what)) for sample in run] for run in runs]
    return " / ".join(str(spread(figures, percent)) for percent in (50, 99, 100))


LINE = Line("cancel", "How long does a cancelled generation still run?", measure)
