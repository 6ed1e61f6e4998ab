"""The door to arq: its Worker, with leases that are owned and a queue that wakes.

arq runs the jobs; what it lacks is replaced at the names it offers for that:

| arq's | here |
|---|---|
| `main`: poll every 0.5 s | lease due jobs, then block on `wake` and `control` until one is due |
| `start_jobs`: 3 round trips a queued *or running* job | one script for all |
| `finish_job`, `finish_failed_job`: delete whoever's keys | compare the lease's token first |
| `Job.abort` | a message on this worker's control list |
"""

import asyncio
from datetime import timedelta
from typing import Any, Final

import structlog
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from shared.connections import Client, is_garbage
from shared.errors import GenerationUnknown, RecordUnreadable, StoreUnavailable
from shared.failures import JOB_EXPIRED, JOB_UNDECODABLE, Failure
from shared.ids import GenerationId
from shared.keys import Keys
from shared.queue import JOB_FUNCTION, Lease, Queue, decode_json, encode_json
from worker.generate import Ownership
from worker.lease import LeaseKeeper
from worker.outcome import OWNER_LIFE, Outcome, carry_out, condemn
from worker.tools import STORE_RETRY_S, Tools

MANY_TRIES: Final = 10**9
"""arq counts runs, deploys and crashes alike; we keep our own accounts."""

SHORTEST_POP_S: Final = 0.001
"""BLPOP takes 0 for ever."""

CRASH_DELAY: Final = timedelta(seconds=1)
"""Pause before a job that raised is tried again."""

HAND_OVER_S: Final = 2.0
"""How long a drained worker tries to give its jobs back. Redis is away then: their leases lapse."""

log = structlog.get_logger()


class GenerationWorker(Worker):
    """Runs up to `max_generations` jobs at once until told to drain."""

    def __init__(
        self, tools: Tools, queue: Queue, keys: Keys, store: Redis, blocking: Client
    ) -> None:
        """`store` is the queue's Redis, for what arq itself does; `blocking` may block on it."""
        settings = tools.settings
        super().__init__(
            functions=[func(self._generate, name=JOB_FUNCTION, timeout=None)],
            queue_name=keys.queue,
            redis_pool=ArqRedis(pool_or_conn=store.connection_pool),
            handle_signals=False,
            max_jobs=settings.max_generations,
            job_timeout=OWNER_LIFE,
            keep_result=0,
            max_tries=MANY_TRIES,
            job_serializer=encode_json,
            job_deserializer=decode_json,
            log_results=False,
        )
        self._tools = tools
        self._settings = settings
        self._queue = queue
        self._keys = keys
        self._blocking = blocking
        self._leases: dict[str, Lease] = {}
        self._began: dict[str, Lease] = {}
        self._slots: set[str] = set()
        self._owned: dict[str, Ownership] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._pauses: dict[str, timedelta] = {}
        self._keeper: LeaseKeeper | None = None
        self._is_woken = False
        self._wait: asyncio.Timeout | None = None

    async def main(self) -> None:
        """Lease and start due jobs until draining. Redis being away only makes it wait."""
        log.info("worker_started", worker=self._settings.name, slots=self.max_jobs)
        is_away = False
        while self.allow_pick_jobs:
            try:
                await self._poll_iteration()
                is_away = False
            except (StoreUnavailable, RedisError) as error:
                # The top of the queue: whatever Redis says, the running generations go on.
                tell = log.debug if is_away else log.warning
                tell("poll_failed", error=str(error) or repr(error))
                is_away = True
                await asyncio.sleep(STORE_RETRY_S)

    async def _poll_iteration(self) -> None:
        pause = self._settings.poll
        free = self.max_jobs - self.job_counter
        if free > 0:
            leased = await self._queue.lease(
                free,
                worker=self._settings.name,
                lease=self._settings.lease,
                mark=self._settings.mark,
                owner_life=OWNER_LIFE,
            )
            for lease in leased.leases:
                if self.allow_pick_jobs:
                    self._start(lease)
                else:
                    # Told to drain while Redis was answering: nobody would wait for this one.
                    await self._queue.give_back(lease)
            if leased.next_due is not None:
                pause = min(pause, max(leased.next_due, timedelta(milliseconds=1)))
            free -= len(leased.leases)
        if self.allow_pick_jobs:
            await self._wait_for_news(pause, listen_for_work=free > 0)

    async def _wait_for_news(self, pause: timedelta, *, listen_for_work: bool) -> None:
        """Block until there is work for a free slot, a message for us, or the pause is over."""
        control = self._keys.control(self._settings.name)
        lists = (control, self._keys.wake) if listen_for_work else (control,)
        news = None
        seconds = max(pause.total_seconds(), SHORTEST_POP_S)
        try:
            async with asyncio.timeout(None) as self._wait:
                news = await self._blocking.call("BLPOP", *lists, f"{seconds:.3f}")
        except TimeoutError:
            pass
        finally:
            self._wait = None
        self._is_woken = news is not None and news[0].decode() == self._keys.wake
        if news is not None and not self._is_woken:
            self._hear(news[1].decode(errors="replace"))

    def _hear(self, message: str) -> None:
        """Act on `cancel <generation>`; any other message only ends the wait."""
        word, _, generation = message.partition(" ")
        if word == "cancel" and (owned := self._owned.get(generation)):
            owned.stop()

    def _start(self, lease: Lease) -> None:
        job_id = lease.generation
        log.debug("job_leased", generation=job_id, by="wake" if self._is_woken else "poll")
        self._leases[job_id] = lease
        self.keeper.hold(lease)
        if job_id in self.tasks:
            # Our own, which lapsed while we were frozen and nobody took: it goes on under this one.
            return
        self.job_counter += 1
        self._slots.add(job_id)
        self._began[job_id] = lease
        task = self.loop.create_task(self.run_job(job_id, 0), name=f"job {job_id}")
        self.tasks[job_id] = task
        task.add_done_callback(lambda done: self._end(job_id, done))

    def _end(self, job_id: str, task: "asyncio.Task[None]") -> None:
        """The job's task is over, in whatever way."""
        self._free_slot(job_id)
        del self.tasks[job_id], self._began[job_id]
        self.keeper.drop(self._leases.pop(job_id))
        if not task.cancelled() and (error := task.exception()):
            # Not given back: the lease lapses, and whoever takes the job next begins afresh.
            log.error("job_crashed", generation=job_id, error=repr(error))

    def _free_slot(self, job_id: str) -> None:
        """Let another job have the slot, once: its task may have a while to go."""
        if job_id not in self._slots:
            return
        self._slots.remove(job_id)
        was_full = self.job_counter == self.max_jobs
        self.job_counter -= 1
        if was_full and self.allow_pick_jobs:
            self.loop.create_task(self._tell_self())

    async def _tell_self(self) -> None:
        """End a wait that listens for no work although a slot has become free."""
        try:
            await self._queue.tell(self._settings.name, "look")
        except StoreUnavailable:
            return

    @property
    def keeper(self) -> LeaseKeeper:
        """Set once, before `main` runs."""
        if self._keeper is None:
            raise RuntimeError("the worker has no lease keeper yet")
        return self._keeper

    @keeper.setter
    def keeper(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper

    def stop_lost(self, lease: Lease) -> None:
        """Another worker has the job now: stop without touching it."""
        if owned := self._owned.get(lease.generation):
            log.warning("lease_lost", generation=lease.generation)
            owned.stop(Outcome.NOT_MINE)

    async def _generate(self, ctx: dict[str, Any], *arguments: Any, **named: Any) -> None:
        """arq's job: one ownership, whose outcome `finish_job` carries out."""
        generation: str = ctx["job_id"]
        if arguments != (generation,) or named:
            await self._fail_unusable(generation, JOB_UNDECODABLE)
            return
        owned = self._owned[generation] = Ownership(
            self._tools, self._began[generation], lambda: self._free_slot(generation)
        )
        try:
            outcome = await owned.run()
        finally:
            del self._owned[generation]
        if outcome is Outcome.NO_RECORD and ctx["job_try"] > 1:
            outcome = Outcome.NO_RECORD_AGAIN
        self._outcomes[generation] = outcome
        self._pauses[generation] = owned.pause

    async def run_job(self, job_id: str, score: int) -> None:
        """Run a job; one whose keys arq cannot even read is as one that it cannot decode."""
        try:
            await super().run_job(job_id, score)
        except ResponseError as error:
            if not is_garbage(error):
                raise
            await self._fail_unusable(job_id, JOB_UNDECODABLE)
            await self.finish_job(job_id, True)

    async def finish_job(self, job_id: str, finish: bool, *_: Any) -> None:
        """Carry out the outcome of a job; one that was cancelled is handed over.

        arq says `finish` of one that raised: that one waits a little, so that it cannot spin.
        """
        default = Outcome.GIVE_BACK if finish else Outcome.HAND_OVER
        outcome = self._outcomes.pop(job_id, default)
        pause = self._pauses.pop(job_id, CRASH_DELAY)
        lease = self._began[job_id]
        while True:
            try:
                await carry_out(outcome, lease, pause, self._tools.store, self._queue)
            except StoreUnavailable as error:
                log.warning("finish_failed", generation=job_id, reason=error.reason)
                await asyncio.sleep(STORE_RETRY_S)
            else:
                newest = self._leases.get(job_id, lease)
                if newest == lease:
                    return
                # Leased again meanwhile, by ourselves: nobody else can let go of it. What it is
                # for was not looked at: a generation made anew under the same id, perhaps.
                lease, outcome, pause = newest, Outcome.GIVE_BACK, timedelta(0)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """End the log of a job that arq could not even start: none of its hooks runs then."""
        is_there = await self.pool.exists(job_key_prefix + job_id)
        await self._fail_unusable(job_id, JOB_UNDECODABLE if is_there else JOB_EXPIRED)
        await self.finish_job(job_id, True)

    async def _fail_unusable(self, job_id: str, failure: Failure) -> None:
        """End the log of a job that cannot run; the job itself goes with its outcome."""
        log.error("job_unusable", generation=job_id, code=failure.code)
        generation, store = GenerationId(job_id), self._tools.store
        try:
            await store.fail(generation, failure)
        except GenerationUnknown:
            log.warning("job_dropped", generation=job_id, reason="no record")
        except RecordUnreadable as error:
            await condemn(generation, error, store)
        self._outcomes[job_id] = Outcome.FINISHED

    async def drain(self) -> None:
        """Take nothing new, let running jobs finish within the drain time, hand over the rest."""
        self.allow_pick_jobs = False
        if self._wait is not None:
            self._wait.reschedule(self.loop.time())
        running = list(self.tasks.values())
        log.info("worker_draining", worker=self._settings.name, running=len(running))
        if running:
            await asyncio.wait(running, timeout=self._settings.drain.total_seconds())
        left = list(self.tasks.values())
        for task in left:
            task.cancel()
        handed_over: set[asyncio.Task[Any]] = set()
        if left:
            handed_over, _ = await asyncio.wait(left, timeout=HAND_OVER_S)
        log.info("worker_drained", worker=self._settings.name, handed_over=len(handed_over))
