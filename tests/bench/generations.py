"""A thousand generations at once in one worker process: what they take, and whether it keeps up.

The model speaks slowly, so that all of them are open at the same time; its ledger is the witness.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from shared.keys import OWNER_PREFIX
from tests.bench.carriers import RejoinCarrier, open_rejoin
from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.process_cost import Cores, Meter, pin, private_kib, share_out_cores
from tests.bench.table import cell
from tests.support.api_client import ApiClient
from tests.support.processes import free_port, open_process
from tests.support.stack import expected_text

AT_ONCE = 1_000

PACE = 2
"""Tokens a second of each answer."""

_TOKENS = 60
_TOKENS_QUICK = 30
_STEADY_S = 10.0
_STEADY_QUICK_S = 3.0

_LOOKS_EVERY_S = 0.1
_ASKS_EVERY_S = 0.5
_FILES = 4_096
"""Open files a process may have: each generation is a connection."""

LEASE = timedelta(seconds=2)
RENEWAL = timedelta(seconds=0.5)
"""The worker's defaults."""


@dataclass(frozen=True, slots=True)
class Run:
    """One worker's life."""

    idle_kib: int
    """Private memory after a first generation, when everything is loaded."""
    full_kib: int
    """The same while all generations are open, at its most."""
    busy: float
    """Share of one core meanwhile."""
    until_open_s: float
    """From the first request until the model had all of them."""
    shortest_lease_s: float
    """How long the lease that was nearest to its end still had, over the whole run."""
    lapsed: int
    """Leases that were seen lapsed."""
    at_once: int
    """Calls that the model had open at one moment, by its ledger."""
    wrong: int
    """Texts that are not what the model said."""
    asked_twice: int

    @property
    def each_kib(self) -> float:
        """Private memory of one generation."""
        return (self.full_kib - self.idle_kib) / AT_ONCE

    @property
    def late_ms(self) -> float:
        """How late the latest renewal was."""
        return max(0.0, (LEASE - RENEWAL).total_seconds() - self.shortest_lease_s) * 1000


class LeaseWatch:
    """Looks at the leases of some generations, all in one moment of Redis' time."""

    def __init__(self, carrier: RejoinCarrier) -> None:
        self._shop = carrier.shop
        self.shortest_s = LEASE.total_seconds()
        self.lapsed = 0

    async def run(self, names: Sequence[str]) -> None:
        """Look until cancelled."""
        while True:
            await self._look(names)
            await asyncio.sleep(_LOOKS_EVERY_S)

    async def _look(self, names: Sequence[str]) -> None:
        pipe = self._shop.connection.pipeline(transaction=True)
        pipe.time()
        pipe.mget([OWNER_PREFIX + name for name in names])
        pipe.zrange(self._shop.keys.queue, 0, -1, withscores=True)
        (seconds, microseconds), owners, rows = await pipe.execute()
        now_ms = seconds * 1000 + microseconds / 1000
        ends = {raw_id.decode(): score for raw_id, score in rows}
        for name, owner in zip(names, owners, strict=True):
            if owner is not None and name in ends:
                self.lapsed += owner.startswith(b"~")
                self.shortest_s = min(self.shortest_s, (ends[name] - now_ms) / 1000)


@asynccontextmanager
async def _open_worker(cores: Cores) -> AsyncIterator[tuple[RejoinCarrier, ApiClient]]:
    async with AsyncExitStack() as exits:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        await exits.enter_async_context(
            open_process("worker.standin", {"STANDIN_PORT": str(port)}, f"{url}/healthz")
        )
        settings = {"WORKER_MAX_GENERATIONS": str(AT_ONCE)}
        carrier = await exits.enter_async_context(open_rejoin(url, settings))
        pin(carrier.worker, cores.tested)
        yield carrier, ApiClient(url)


async def _run(cores: Cores, run: int, tokens: int, steady_s: float) -> Run:
    async with _open_worker(cores) as (carrier, model):
        pid = carrier.worker.pid
        await carrier.wait_closed(await carrier.ask(["[standin tokens=5 pace=0] warm-up"]))
        await carrier.wait_idle()
        idle_kib = private_kib(pid)

        prompts = [f"[standin tokens={tokens} pace={PACE}] run {run}, {n}" for n in range(AT_ONCE)]
        began_at = time.perf_counter()
        names = await carrier.ask(prompts)
        leases = LeaseWatch(carrier)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(leases.run(names))
            await _wait_all_open(model, within_s=tokens / PACE)
            until_open_s = time.perf_counter() - began_at
            meter, full_kib = Meter({"worker": pid}), 0
            while (cost := meter.read()).seconds < steady_s:
                full_kib = max(full_kib, private_kib(pid))
                await asyncio.sleep(_LOOKS_EVERY_S)
            await carrier.wait_closed(names)
            watching.cancel()
        texts = [(await carrier.take(name))[0] for name in names]
        ledger = (await model.call("GET", "/ledger")).json
    return Run(
        idle_kib=idle_kib,
        full_kib=full_kib,
        busy=cost.share("worker"),
        until_open_s=until_open_s,
        shortest_lease_s=leases.shortest_s,
        lapsed=leases.lapsed,
        at_once=_most_open(ledger["requests"]),
        wrong=sum(t != expected_text(p) for t, p in zip(texts, prompts, strict=True)),
        asked_twice=len(ledger["paid_twice"]),
    )


async def _wait_all_open(model: ApiClient, within_s: float) -> None:
    """Return once the model has every call at the same time; it is asked seldom: that costs it.

    Raises: AssertionError: it has not, and the first answers would end now.
    """
    gives_up_at = time.perf_counter() + within_s
    open_now = 0
    while open_now < AT_ONCE:
        if time.perf_counter() > gives_up_at:
            raise AssertionError(f"only {open_now} of {AT_ONCE:,} calls were open at once")
        await asyncio.sleep(_ASKS_EVERY_S)
        open_now = (await model.call("GET", "/ledger")).json["open"]


def _most_open(requests: Sequence[Mapping[str, Any]]) -> int:
    """The most calls that were open at one moment."""
    turns = [(request["received_at"], 1) for request in requests]
    turns += [(request["ended_at"], -1) for request in requests]
    most = now = 0
    for _, step in sorted(turns):
        now += step
        most = max(most, now)
    return most


async def measure(scale: Scale) -> Result:
    """Fill one worker after the other."""
    tokens, steady_s = (_TOKENS, _STEADY_S) if scale == FULL else (_TOKENS_QUICK, _STEADY_QUICK_S)
    _allow_open_files()
    with share_out_cores() as cores:
        runs = [await _run(cores, run, tokens, steady_s) for run in range(scale.runs)]
    return Result(
        columns=[
            "at once, by the model's ledger",
            "idle worker, MiB",
            f"with {AT_ONCE:,} generations, MiB",
            "each, KiB",
            "worker's core",
            "until all were open, s",
            "latest renewal, ms late",
        ],
        rows=[
            [
                cell([run.at_once for run in runs], ",d"),
                cell([run.idle_kib / 1024 for run in runs], ".1f"),
                cell([run.full_kib / 1024 for run in runs], ".1f"),
                cell([run.each_kib for run in runs], ".1f"),
                cell([run.busy for run in runs], ".0%"),
                cell([run.until_open_s for run in runs], ".1f"),
                cell([run.late_ms for run in runs], ".0f"),
            ]
        ],
        notes=[
            f"{scale.runs} runs, each with a fresh worker; in each cell the median over the runs"
            " (least to most).",
            f"{AT_ONCE:,} answers of {tokens} tokens at {PACE} tokens/s each, all of them byte for"
            " byte what the model said. Memory is what the process has for itself alone"
            " (Private_Clean + Private_Dirty).",
            f"A lease is {LEASE.total_seconds():g} s long and renewed every"
            f" {RENEWAL.total_seconds():g} s: late is what more than that had gone by, at looks"
            f" {_LOOKS_EVERY_S * 1000:.0f} ms apart.",
        ],
        data={"runs": [{**asdict(run), "each_kib": run.each_kib} for run in runs]},
        failures=[failure for run in runs for failure in _find_failures(run)],
    )


def _find_failures(run: Run) -> list[str]:
    failures = []
    if run.at_once < AT_ONCE:
        failures.append(f"only {run.at_once} calls were open at once")
    if run.wrong:
        failures.append(f"{run.wrong} texts are not what the model said")
    if run.lapsed:
        failures.append(f"{run.lapsed} leases were seen lapsed")
    if run.asked_twice:
        failures.append(f"{run.asked_twice} answers were asked for twice")
    return failures


def _allow_open_files() -> None:
    """Raise our limit, which every process of the line inherits; macOS begins with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))


LINE = Line("generations", "What do 1,000 generations at once take of a worker?", measure)
