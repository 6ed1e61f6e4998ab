"""How long a queued job waits for an idle worker, while nothing and while much runs elsewhere.

Everything is a process of its own. All arms live at once and take turns, so that the load of a
thousand generations on this machine befalls all alike, and the difference is the queue's. A job is
accepted by the code that the API uses, called from here; the clock starts just before the last of
its steps, the release that makes it due. It has started when `started` is in its log, as a
blocking XREAD from here sees it; when the model was asked, the stand-in says by the same clock.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from tests.bench.line import Line, Result, Scale
from tests.bench.poll_cost import SIZES, in_words, measure_costs
from tests.bench.shops import Shop, UsualShop
from tests.bench.summary import percentile, spread
from tests.support.api_client import ApiClient
from tests.support.processes import Process, free_port, open_process
from tests.support.redis_server import open_redis_server
from tests.support.stack import MODEL, WORKER_IS_UP, user, worker_environment
from tests.support.wait import wait_until
from worker.standin import request_key

STARTED_WITHIN_MS = 10
"""Ours to keep, at p50, while `ELSEWHERE` jobs run on another worker."""

ELSEWHERE = 1_000
_LASTS = "[standin tokens=2000 pace=0.2]"
"""What those say: one token in five seconds, for longer than all this takes."""

_MANY = f"{ELSEWHERE:,} run elsewhere"

_GROWN = 2
"""So many times the cost of a poll of an empty queue is no noise any more."""

_PROBE_AT_LEAST_S = 5
"""So long a job may wait where it will probably never start."""

_WARM_UP = 3

_ARQ_POLLS_EVERY_S = 0.5
"""Jobs must come at any moment of it."""

_ARQ_EVERY = 4
"""The usual recipe takes only every so manieth turn: it takes long."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One job, in milliseconds since its release; `started` only where there is such a sign."""

    asked: float
    started: float | None


@dataclass(slots=True)
class Arm:
    """One way to build it: how to have a job done, and what came."""

    name: str
    ask: Callable[[str], Awaitable[tuple[float, float | None]]]
    """Runs one job to its end; when it was released, and when it was seen to have started."""
    pause_s: float = 0.05
    every: int = 1
    runs: list[list[Sample]] = field(default_factory=list)


@dataclass(slots=True)
class Bench:
    """All that runs."""

    arms: list[Arm]
    standin: ApiClient
    busy: Process
    idle: Process
    elsewhere: Shop
    usual_elsewhere: UsualShop

    async def requests(self) -> dict[str, dict[str, Any]]:
        """Every request that the model had, by its key."""
        ledger = (await self.standin.call("GET", "/ledger")).json
        return {request["key"]: request for request in ledger["requests"]}


def _leases(worker: Process) -> list[str]:
    return [line for line in worker.lines if '"job_leased"' in line]


@asynccontextmanager
async def _open_bench() -> AsyncIterator[Bench]:
    """Start the model, a Redis for each arm, their workers, and what runs elsewhere."""
    async with AsyncExitStack() as exits:
        port = free_port()
        model = f"http://127.0.0.1:{port}"

        async def start(module: str, env: dict[str, str], ready: str) -> Process:
            return await exits.enter_async_context(open_process(module, env, ready))

        async def start_worker(url: str, **settings: str) -> Process:
            told = {f"WORKER_{name.upper()}": value for name, value in settings.items()}
            env = worker_environment(url, f"{model}/v1", {"LOG_LEVEL": "debug", **told})
            return await start("worker", env, WORKER_IS_UP)

        async def start_usual(url: str) -> None:
            env = {"REDIS_URL": url, "OPENAI_BASE_URL": f"{model}/v1", "OPENAI_API_KEY": "sk-test"}
            await start("tests.bench.baselines.arq_worker", env, "worker started")

        await start("worker.standin", {"STANDIN_PORT": str(port)}, f"{model}/healthz")
        servers = [await exits.enter_async_context(open_redis_server()) for _ in range(4)]
        quiet, loaded = [
            Shop(await exits.enter_async_context(server.client())) for server in servers[:2]
        ]
        pools = [await create_pool(RedisSettings.from_dsn(server.url)) for server in servers[2:]]
        for pool in pools:
            exits.push_async_callback(pool.aclose)
        usual, usual_loaded = (UsualShop(pool) for pool in pools)
        await start_worker(servers[0].url)
        busy = await start_worker(servers[1].url, name="busy", max_generations=str(ELSEWHERE))
        await loaded.fill(ELSEWHERE, _LASTS)
        await wait_until(lambda: len(_leases(busy)) == ELSEWHERE, "the busy one to be full", 30)
        idle = await start_worker(servers[1].url, name="idle")
        await usual_loaded.fill(ELSEWHERE)
        for server in servers[2:]:
            await start_usual(server.url)
        arms = [
            Arm("**Rejoin**, nothing else runs", quiet.ask),
            Arm(f"**Rejoin**, {_MANY}", loaded.ask),
            Arm("arq as it comes, nothing else runs", usual.ask, _ARQ_POLLS_EVERY_S, _ARQ_EVERY),
        ]
        yield Bench(arms, ApiClient(model), busy, idle, loaded, usual_loaded)


async def _run(bench: Bench, name: str, count: int) -> list[list[Sample]]:
    """Let the arms take turns `count` times; the samples of each."""
    taken: list[list[tuple[str, float, float | None]]] = [[] for _ in bench.arms]
    for number in range(count):
        for arm, times in zip(bench.arms, taken, strict=True):
            if number % arm.every:
                continue
            prompt = f"[standin tokens=1] {name} {number} {arm.name}"
            await asyncio.sleep(random.uniform(0, arm.pause_s))
            times.append((prompt, *await arm.ask(prompt)))
    asked = await bench.requests()
    return [
        [_sample(asked[request_key(MODEL, user(p))], released, at) for p, released, at in times]
        for times in taken
    ]


def _sample(request: dict[str, Any], released_at: float, started_at: float | None) -> Sample:
    return Sample(
        asked=(request["received_at"] - released_at) * 1000,
        started=(started_at - released_at) * 1000 if started_at is not None else None,
    )


async def measure(scale: Scale) -> Result:
    """Run every arm, alternating, and compare; then what a poll costs Redis."""
    waits: list[tuple[float, bool]] = []
    async with _open_bench() as bench:
        await _run(bench, "warm-up", _WARM_UP)
        for number in range(scale.runs):
            probe, since = f"[standin tokens=1] probe {number}", time.monotonic()
            await bench.usual_elsewhere.probe(probe)
            samples = await _run(bench, f"run {number}", scale.per_run)
            for arm, taken in zip(bench.arms, samples, strict=True):
                arm.runs.append(taken)
            await asyncio.sleep(max(0.0, since + _PROBE_AT_LEAST_S - time.monotonic()))
            is_asked = request_key(MODEL, user(probe)) in await bench.requests()
            waits.append((time.monotonic() - since, is_asked))
        failures = await _find_failures(bench, scale)
    empty, found = [await measure_costs(scale.runs, finds=finds) for finds in (False, True)]
    if median(empty[SIZES[-1]]) > _GROWN * median(empty[0]):
        failures.append(f"a poll costs more the more is leased: {in_words(empty)} µs")
    started = sum(is_asked for _, is_asked in waits)
    never = f"{started} of {len(waits)} started within {min(wait for wait, _ in waits):.0f} s"
    return Result(
        columns=["ms since the release, p50 / p99", "`started` in the log", "model asked"],
        rows=[
            *([arm.name, _cell(arm, "started"), _cell(arm, "asked")] for arm in bench.arms),
            [f"arq as it comes, {_MANY}", "", never],
        ],
        notes=[
            f"{scale.runs} runs of {scale.per_run} jobs an arm, one after the other, the arms"
            f" taking turns (arq every {_ARQ_EVERY}th); in each cell the median over the runs"
            f" (least to most). `started` must be there within {STARTED_WITHIN_MS} ms (p50).",
            f"A poll that finds nothing costs Redis {in_words(empty)} jobs leased, in µs; one that"
            f" finds a job and leases it {in_words(found)}.",
        ],
        data={
            "columns of arms": ["started", "asked"],
            "arms": {
                arm.name: [[[s.started, s.asked] for s in run] for run in arm.runs]
                for arm in bench.arms
            },
            "arq_probes": waits,
            "poll_us": {"finds nothing": dict(empty), "finds one": dict(found)},
        },
        failures=failures,
    )


async def _find_failures(bench: Bench, scale: Scale) -> list[str]:
    failures = []
    p50 = percentile([s.started or 0.0 for run in bench.arms[1].runs for s in run], 50)
    if p50 > STARTED_WITHIN_MS:
        failures.append(f"an idle worker took {p50:.1f} ms (p50) to start a job")
    jobs = _WARM_UP + scale.runs * scale.per_run
    busy, idle = len(_leases(bench.busy)), _leases(bench.idle)
    if busy != ELSEWHERE or len(idle) != jobs:
        failures.append(f"the busy worker leased {busy} jobs, the idle one {len(idle)} of {jobs}")
    if not any('"by": "wake"' in line for line in idle):
        failures.append("the wake never fired")
    if (left := await bench.elsewhere.jobs()) < ELSEWHERE:
        failures.append(f"only {left} jobs ran elsewhere in the end")
    return failures


def _cell(arm: Arm, what: str) -> str:
    if getattr(arm.runs[0][0], what) is None:
        return "(no such sign)"
    runs = [[float(getattr(sample, what)) for sample in run] for run in arm.runs]
    return f"{spread(runs, 50)} / {spread(runs, 99)}"


LINE = Line("pick-up", "How long does a queued job wait for an idle worker?", measure)
