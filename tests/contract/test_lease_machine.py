"""Workers, zombies and lapsed leases in any order: a job has one owner at most and is never lost.

The model is a table: of each job that was promised and not finished, whether it is due, whose it
is, and whether the owner was warned by a mark. Time passes because the test moves scores.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import fakeredis
import redis.asyncio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from shared.ids import GenerationId
from shared.keys import JOB_PREFIX, OWNER_PREFIX
from shared.queue import Lease
from tests.support.redis_server import RedisServer
from tests.support.stores import Stores

T = TypeVar("T")

JOBS = 4
WORKERS = ("v", "w")

# So long that no lease, mark or delay ends by itself while an example runs.
LEASE = timedelta(hours=1)
MARK = timedelta(minutes=30)
DELAY = timedelta(minutes=20)
LIFE = timedelta(hours=5)
PLENTY = 100

ACCEPTS = ("offer", *["release"] * 2)
TIMES = ("pass_time", "pass_time", "pass_all_time")
OWNS = ("lease", "lease", "renew", "renew", "finish", "give_back")


@dataclass(frozen=True, slots=True)
class Job:
    """What the queue should know of one job."""

    due: bool
    owner: str = ""
    marked: bool = False

    @property
    def free(self) -> bool:
        """Whether whoever asks may have it: nobody owns it, or its owner let the mark pass."""
        return self.due and (self.marked or not self.owner)

    @property
    def lapsed(self) -> bool:
        """Whether it is to be marked before anybody gets it."""
        return self.due and not self.free


NOBODY = Job(due=False)


class LeaseMachine(RuleBasedStateMachine):
    """Drives a few jobs of a real queue."""

    def __init__(self, connect: Callable[[], redis.asyncio.Redis]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.connection = self.runner.run(_opened(connect))
        self.stores = Stores(self.connection)
        self.queue = self.stores.queue
        # The same every time: equal scores go by name, and a history must be one to be shrunk.
        self.ids = [GenerationId(f"gen_{letter * 32}") for letter in "abcd"[:JOBS]]
        self.model: dict[GenerationId, Job] = {}
        self.leases: list[Lease] = []
        """Every lease that was ever granted, in order."""

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        """Whatever happened, and though every worker dies now: no job is lost."""
        try:
            self._take_all_lapsed()
        finally:
            self.do(self.connection.flushall())
            self.do(self.connection.aclose())
            self.runner.close()

    @rule(data=st.data(), step=st.sampled_from([*ACCEPTS, *TIMES, *OWNS, *OWNS]))
    def step(self, data: st.DataObject, step: str) -> None:
        """One rule for all, since hypothesis would leave out some of many for a whole run."""
        if step in ("renew", "finish", "give_back") and not self.leases:
            step = "lease"
        if step in ("lease", *TIMES) and not self.model:
            step = "release"
        getattr(self, step)(data)

    # --- what may happen --------------------------------------------------------------------

    def offer(self, data: st.DataObject) -> None:
        """A promise of what is there changes nothing; one of what is not is not due yet."""
        job = _choose(data, self.ids)
        self.do(self.queue.offer(job, lifetime=LIFE, max_length=PLENTY))
        if job not in self.model:
            # The delay is short: it is made longer, so that no pause of this machine ends it.
            assert self.do(self.stores.due_ms(job)) > 0
            self._move(job, DELAY)
            self.model[job] = Job(due=False)

    def release(self, data: st.DataObject) -> None:
        """Of a job that is owned, nothing; of any other that it is due."""
        job = _choose(data, self.ids)
        self.do(self.queue.release(job, lifetime=LIFE))
        if job not in self.model or not self.model[job].owner:
            self.model[job] = Job(due=True)

    def lease(self, data: st.DataObject) -> None:
        """As many as there is room for, of those that nobody has; of the lapsed only a mark."""
        count = data.draw(st.integers(0, JOBS))
        self._poll(data.draw(st.sampled_from(WORKERS)), count)

    def renew(self, data: st.DataObject) -> None:
        """By the owner it takes a mark back; by anybody else it does nothing."""
        lease = self._draw_lease(data)
        if self._is_accepted(lease, self.queue.renew(lease, LEASE)):
            self.model[lease.generation] = Job(due=False, owner=lease.token)

    def finish(self, data: st.DataObject) -> None:
        lease = self._draw_lease(data)
        if self._is_accepted(lease, self.queue.finish(lease)):
            del self.model[lease.generation]

    def give_back(self, data: st.DataObject) -> None:
        lease, delay = self._draw_lease(data), data.draw(st.sampled_from([timedelta(0), DELAY]))
        if self._is_accepted(lease, self.queue.give_back(lease, delay)):
            self.model[lease.generation] = Job(due=not delay)

    def pass_time(self, data: st.DataObject) -> None:
        """A delay, a lease or a mark ends."""
        self._pass_time(_choose(data, list(self.model)))

    def pass_all_time(self, _: st.DataObject) -> None:
        """An outage: all of them end."""
        for job in self.model:
            self._pass_time(job)

    def _pass_time(self, job: GenerationId) -> None:
        self.do(self.stores.make_due(job))
        self.model[job] = replace(self.model[job], due=True)

    def _move(self, job: GenerationId, ahead: timedelta) -> None:
        due_ms = self.do(self.stores.now_ms()) + ahead // timedelta(milliseconds=1)
        self.do(self.stores.client.call("ZADD", self.stores.keys.queue, due_ms, job))

    def _draw_lease(self, data: st.DataObject) -> Lease:
        """Of somebody who has a job more often than of a zombie."""
        owners = [lease for lease in self.leases if self._owns(lease)]
        return _choose(data, [*self.leases, *owners * 2])

    # --- what must hold ---------------------------------------------------------------------

    def _owns(self, lease: Lease) -> bool:
        job = self.model.get(lease.generation)
        return job is not None and job.owner == lease.token

    def _is_accepted(self, lease: Lease, move: Any) -> bool:
        """Do as the holder of `lease`: accepted from the one owner, without a trace from others."""
        before = None if self._owns(lease) else self.do(self._held())
        accepted: bool = self.do(move)
        assert accepted is self._owns(lease)
        assert accepted or self.do(self._held()) == before
        return accepted

    async def _held(self) -> dict[bytes, Any]:
        """Everything the queue's Redis holds."""
        call, held = self.stores.client.call, {}
        for key in await self.stores.all_keys():
            match await call("TYPE", key):
                case b"zset":
                    held[key] = await call("ZRANGE", key, 0, -1, "WITHSCORES")
                case b"list":
                    held[key] = await call("LRANGE", key, 0, -1)
                case _:
                    held[key] = await call("GET", key)
        return held

    def _poll(self, worker: str, count: int) -> None:
        free = {job for job, known in self.model.items() if known.free}
        lapsed = {job for job, known in self.model.items() if known.lapsed}
        leased = self.do(
            self.queue.lease(count, worker=worker, lease=LEASE, mark=MARK, owner_life=LIFE)
        )
        assert len(leased.leases) == min(count, len(free))
        for lease in leased.leases:
            free.remove(lease.generation)
            assert lease.token not in {known.token for known in self.leases}
            assert lease.token.startswith(f"{worker}/")
            self.model[lease.generation] = Job(due=False, owner=lease.token)
            self.leases.append(lease)
        # Which of the lapsed were looked at before the room was full is Redis' affair.
        owners = {job: self.do(self.stores.owner(job)) for job in lapsed}
        marked = {job for job, owner in owners.items() if owner and owner.startswith("~")}
        assert marked == lapsed or len(leased.leases) == count
        for job in marked:
            self.model[job] = replace(self.model[job], due=False, marked=True)

    def _take_all_lapsed(self) -> None:
        """Two polls, each after everything has ended, take every job that is not finished."""
        for _ in range(2):
            for job in self.model:
                self._pass_time(job)
            self._poll("heir", JOBS)
        assert all(known.owner.startswith("heir/") for known in self.model.values()), self.model

    @invariant()
    def queue_is_as_the_model_says(self) -> None:
        """The same jobs, each due or not, with its data and the one owner that it has."""
        owners = [OWNER_PREFIX + job for job in self.ids]
        data = [JOB_PREFIX + job for job in self.ids]
        queue = ("ZRANGE", self.stores.keys.queue, 0, -1, "WITHSCORES")
        rows, found, promised, now = self.do(
            self.stores.client.call_all(
                (queue, ("MGET", *owners), ("MGET", *data), ("TIME",)), atomic=True
            )
        )
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        pairs = zip(rows[::2], rows[1::2], strict=True)
        due = {row.decode(): float(score) <= now_ms for row, score in pairs}
        assert due == {job: known.due for job, known in self.model.items()}
        for job, owner, raw in zip(self.ids, found, promised, strict=True):
            known = self.model.get(job, NOBODY)
            assert (owner or b"").decode() == "~" * known.marked + known.owner
            assert (raw is not None) is (job in self.model)


def _choose(data: st.DataObject, among: Sequence[T]) -> T:
    """One of them, drawn alike however many there are: that may hang on Redis' clock."""
    return among[data.draw(st.integers(0, 2**16)) % len(among)]


async def _opened(connect: Callable[[], redis.asyncio.Redis]) -> redis.asyncio.Redis:
    return connect()


def _run(connect: Callable[[], redis.asyncio.Redis]) -> None:
    class Connected(LeaseMachine):
        def __init__(self) -> None:
            super().__init__(connect)

    run_state_machine_as_test(Connected, settings=settings(stateful_step_count=30))


def test_any_history_leaves_each_job_one_owner_on_fakeredis() -> None:
    """Promises, leases, marks, renewals, zombies and deaths: no second owner, no lost job."""
    _run(lambda: fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2))


def test_any_history_leaves_each_job_one_owner_on_a_real_server(real_server: RedisServer) -> None:
    """The same against servers whose scripts are Redis' own."""
    _run(real_server.client)
