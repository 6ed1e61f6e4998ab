"""A whole Rejoin of real processes, of which a worker is struck while a client follows.

    async with open_site(workers=2) as site:
        recovery = await site.strike(Strike("[standin tokens=200 pace=100] Hello", share=0.5))

What is measured starts right before the blow and ends when the client has the text.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.keys import OWNER_PREFIX, Keys
from tests.support.api_client import ApiClient
from tests.support.fold import fold
from tests.support.processes import Process, free_port, open_process
from tests.support.promises import Bound
from tests.support.promises_recovery import Recovery, Watched
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.stack import (
    MODEL,
    WORKER_IS_UP,
    api_environment,
    expected_text,
    user,
    worker_environment,
)
from tests.support.wait import wait_until
from worker.standin import request_key

_MARKED = "~"
_PATIENCE_S = 20.0
"""When a recovery is given up: beyond every bound, so that the figure says by how much."""


@dataclass(frozen=True, slots=True)
class Strike:
    """When in an answer's life its worker is struck."""

    prompt: str
    share: float
    """Not before the client holds this part of the text."""
    phase: timedelta | None = None
    """So long after the last renewal of its lease; None: at once."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What Redis says of a job's lease at one moment."""

    worker: str
    is_marked: bool
    ends_at: float


class Site:
    """Redis, the stand-in, an API and workers, and what they say of each other."""

    def __init__(
        self,
        exits: AsyncExitStack,
        redis: RedisServer,
        connection: Any,
        urls: tuple[str, str],
        worker_env: Mapping[str, str],
        module: str,
    ) -> None:
        standin_url, api_url = urls
        self.redis = redis
        self.api, self.standin = ApiClient(api_url), ApiClient(standin_url)
        self.workers: dict[str, Process] = {}
        """By the name each has drawn; those that were killed are gone."""
        self._module = module
        self._exits = exits
        self._connection = connection
        self._env = worker_environment(redis.url, f"{standin_url}/v1", worker_env)
        self._lease_s = Bound(("WORKER_LEASE",)).within(worker_env).total_seconds()
        self._mark_s = Bound(("WORKER_MARK",)).within(worker_env).total_seconds()

    async def start_worker(self) -> Process:
        """Start one more; ready when this returns."""
        process = await self._exits.enter_async_context(
            open_process(self._module, self._env, WORKER_IS_UP)
        )
        line = next(line for line in process.lines if WORKER_IS_UP in line)
        self.workers[json.loads(line)["worker"]] = process
        return process

    async def lease(self, generation: str) -> Lease | None:
        """The lease of a generation's job, in one look."""
        pipe = self._connection.pipeline(transaction=True)
        pipe.get(OWNER_PREFIX + generation)
        pipe.zscore(Keys().queue, generation)
        owner, score = await pipe.execute()
        if owner is None or score is None:
            return None
        token = owner.decode()
        worker = token.removeprefix(_MARKED).partition("/")[0]
        return Lease(worker, token.startswith(_MARKED), score / 1000)

    async def calls(self, prompt: str) -> list[dict[str, Any]]:
        """What the model was asked of a prompt."""
        ledger = (await self.standin.call("GET", "/ledger")).json["requests"]
        key = request_key(MODEL, user(prompt))
        return [call for call in ledger if call["key"] == key]

    async def wait_idle(self) -> None:
        """Wait until no job is left and no answer under way."""

        async def is_idle() -> bool:
            if await self._connection.exists(Keys().queue):
                return False
            under_way: int = (await self.standin.call("GET", "/ledger")).json["open"]
            return under_way == 0

        await wait_until(is_idle, "all jobs and calls to end")

    async def strike(
        self, strike: Strike, blow: Callable[[Process], None] = Process.kill
    ) -> Recovery:
        """Have a generation's worker struck, read the answer to its end and say what happened."""
        generation = await self.api.create(strike.prompt)
        watched = Watched()
        async with (
            self.api.follow(generation, timeout_s=_PATIENCE_S) as follower,
            asyncio.TaskGroup() as tasks,
        ):
            reading = tasks.create_task(watched.read(follower))
            whole = len(expected_text(strike.prompt))
            await wait_until(
                lambda: watched.length >= max(1, strike.share * whole),
                "the text to be there in part",
            )
            lease = await self._wait_phase(generation, strike.phase)
            victim = self.workers[lease.worker]
            assert not reading.done(), "the answer was over before its worker could be struck"
            struck_at = time.time()
            blow(victim)
            if not victim.running:
                del self.workers[lease.worker]
            before, marked, taken = await self._watch_take_over(generation, lease)
            await reading
        held, text_at, beyond_at = watched.tell()
        return Recovery(
            prompt=strike.prompt,
            lease_s=self._lease_s,
            struck_at=struck_at,
            held=held,
            folded=fold(watched.events),
            calls=await self.calls(strike.prompt),
            lapsed_at=before.ends_at,
            marked_at=marked.ends_at - self._mark_s,
            taken_at=taken.ends_at - self._lease_s,
            text_at=text_at,
            beyond_at=beyond_at,
        )

    async def _wait_phase(self, generation: str, phase: timedelta | None) -> Lease:
        """Wait for the moment so long after a renewal; the lease as it is then."""
        lease = await self._held(generation)
        if phase is None:
            return lease
        while True:
            strike_at = lease.ends_at - self._lease_s + phase.total_seconds()
            if strike_at < time.time():
                lease = await self._wait_renewed(generation, lease)
                continue
            await _wait_time(strike_at)
            now = await self._held(generation)
            if now == lease:
                return lease
            lease = now

    async def _held(self, generation: str) -> Lease:
        lease = await self.lease(generation)
        assert lease is not None, "the answer was over before its worker could be struck"
        return lease

    async def _wait_renewed(self, generation: str, before: Lease) -> Lease:
        async def renewed() -> Lease | None:
            lease = await self._held(generation)
            return lease if lease.ends_at > before.ends_at else None

        return await wait_until(renewed, "the lease to be renewed")

    async def _watch_take_over(self, generation: str, lease: Lease) -> tuple[Lease, Lease, Lease]:
        """The lease as the victim left it, as it was marked, and as its new owner took it."""
        before, marked = lease, None

        async def is_taken() -> Lease | None:
            nonlocal before, marked
            now = await self._held(generation)
            if now.worker != lease.worker:
                return now
            if now.is_marked:
                marked = now
            else:
                before = now
            return None

        taken = await wait_until(is_taken, "another worker to take the job", _PATIENCE_S)
        assert marked is not None, "a lease that lapses is marked first"
        return before, marked, taken


@asynccontextmanager
async def open_site(
    *, workers: int, worker_env: Mapping[str, str] | None = None, module: str = "worker"
) -> AsyncIterator[Site]:
    """Start everything at once; workers run `module` and are told `worker_env` beside addresses."""
    async with AsyncExitStack() as exits:
        redis = await exits.enter_async_context(open_redis_server())
        connection = await exits.enter_async_context(redis.client())
        standin_url, api_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        site = Site(exits, redis, connection, (standin_url, api_url), worker_env or {}, module)
        api_env = api_environment(redis.url, _port(api_url), {})
        standin_env = {"STANDIN_PORT": str(_port(standin_url))}
        await asyncio.gather(
            exits.enter_async_context(
                open_process("worker.standin", standin_env, f"{standin_url}/healthz")
            ),
            exits.enter_async_context(open_process("api", api_env, f"{api_url}/healthz")),
            *(site.start_worker() for _ in range(workers)),
        )
        yield site


async def _wait_time(at: float) -> None:
    await wait_until(lambda: time.time() >= at, "the phase of a lease")


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
