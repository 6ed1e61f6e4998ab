"""The job on one screen: claim the log, stream the model's answer into it, close it, keep watch."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from shared.errors import (
    AppendRefused,
    ClaimLost,
    Fenced,
    GenerationUnknown,
    LogAbsent,
    LogClosed,
    RecordUnreadable,
)
from shared.failures import WORKER_LOST
from shared.generation import Record, State
from shared.generation_store import Claim, ClaimOutcome
from shared.queue import Lease
from worker.attempts import Attempts, end_run
from worker.log_writer import LogWriter, Refusal
from worker.outcome import Outcome, condemn
from worker.recovery import Plan, choose_resume, find_rungs, plan_attempt
from worker.said import Said
from worker.tools import Tools, insist

EXPIRE_TRIES: Final = 40
EXPIRE_PAUSE_S: Final = 0.05
"""Two clocks differ by milliseconds a day, not by the two seconds these make."""

log = structlog.get_logger()


class Ownership:
    """One run of one job: take the log over, write it until it is closed, and see that it stays so.

    `stop` ends it from outside, at once, wherever it waits.
    """

    def __init__(self, tools: Tools, lease: Lease, free_slot: Callable[[], None]) -> None:
        """`free_slot` is called when nothing is asked of a provider any more."""
        self._tools = tools
        self._lease = lease
        self._free_slot = free_slot
        self._stopped: Outcome | None = None
        self._scope: asyncio.Timeout | None = None
        self.pause = timedelta(0)
        """How long the job should wait before it runs again, where the outcome is PAUSE."""

    def stop(self, outcome: Outcome = Outcome.FINISHED) -> None:
        """End it because the log is closed or held by another: write nothing more."""
        self._stopped = outcome
        self._interrupt()

    def _interrupt(self) -> None:
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> Outcome:
        """Return what is to be done with the job. Raises: StoreUnavailable."""
        try:
            return await self._run()
        except RecordUnreadable as error:
            # Condemned, its record can be read again, and names the run that is to be ended.
            await condemn(self._lease.generation, error, self._tools.store)
            with suppress(RecordUnreadable):
                await self._clear_up_after_others(None)
            return Outcome.FINISHED

    async def _run(self) -> Outcome:
        try:
            record = await self._tools.store.record(self._lease.generation)
        except GenerationUnknown:
            return await self._clear_up_after_others(None)
        if record.is_overdue(datetime.now(UTC)):
            await self._tools.store.expire(self._lease.generation)
            record = await self._tools.store.record(self._lease.generation)
        if record.state.is_closed:
            return await self._clear_up_after_others(record)
        return await self._claim(record)

    async def _claim(self, record: Record) -> Outcome:
        generation, store = self._lease.generation, self._tools.store
        plan = await self._plan(record)
        if plan is None:
            failed = await store.fail(generation, WORKER_LOST, seen_epoch=record.epoch)
            if not failed.state.is_closed:
                return Outcome.NOT_MINE
            return await self._clear_up_after_others(record)
        if self._stopped is not None:
            if self._stopped is Outcome.FINISHED:
                return await self._clear_up_after_others(record)
            return self._stopped
        if not await self._is_lease_young():
            return Outcome.NOT_MINE
        claim = await store.claim(
            generation,
            seen_epoch=record.epoch,
            token=self._lease.token,
            started=plan.started,
            reset=plan.reset,
        )
        match claim.outcome:
            case ClaimOutcome.CLAIMED:
                return await self._hold(replace(record, model=plan.model), plan, claim)
            case ClaimOutcome.CLOSED:
                return await self._clear_up_after_others(record)
            case ClaimOutcome.ABSENT:
                return Outcome.NO_RECORD
            case ClaimOutcome.MOVED:
                return Outcome.NOT_MINE

    async def _plan(self, record: Record) -> Plan | None:
        """Return how to begin, by what stands in the log; None where only failing is left."""
        plan = plan_attempt(record, self._tools.settings, default_model=self._tools.model)
        if plan is None or plan.is_first or plan.reset:
            return plan
        said = Said.read(await self._tools.read_answer(self._lease.generation))
        rungs = find_rungs(self._tools.settings, plan.model)
        resume = choose_resume(rungs, said, record.surface, record.upstream)
        if resume is None:
            return None
        return replace(plan, resume=resume, reset=resume == "restart")

    async def _is_lease_young(self) -> bool:
        """Whether the lease can be relied on for the claim; an old one is renewed first.

        A worker that was frozen between the two would otherwise take the log from its new owner.
        """
        if self._lease.age < self._tools.settings.lease / 2:
            return True
        return await self._tools.queue.renew(self._lease, self._tools.settings.lease)

    async def _hold(self, record: Record, plan: Plan, claim: Claim) -> Outcome:
        """Write the log while it is ours, and no longer than until its deadline."""
        bound = log.bind(generation=self._lease.generation)
        bound.info("attempt_started", **plan.started)
        writer = self._tools.flusher.open_writer(self._lease.generation, claim.token, claim.last_id)
        writer.on_refused = self._interrupt
        attempts = Attempts(self._tools, record, plan, writer, claim)
        try:
            async with asyncio.timeout(claim.time_left.total_seconds()) as self._scope:
                if self._stopped is not None:
                    self.stop(self._stopped)
                pause = await attempts.make()
            self._scope = None
            if pause is not None:
                self.pause = pause
                bound.info("attempt_paused")
                return Outcome.PAUSE
            bound.info("attempt_ended")
            return await self._keep_watch(writer, attempts, None)
        except (TimeoutError, AppendRefused, RecordUnreadable) as end:
            self._scope = None
            refusal = writer.refusal if isinstance(end, TimeoutError) else end
            by = "message" if self._stopped else "deadline"
            bound.info("attempt_stopped", by=type(refusal).__name__ if refusal else by)
            return await self._let_go(writer, attempts, refusal)
        except asyncio.CancelledError:
            await attempts.hand_over()
            raise
        finally:
            self._scope = None
            attempts.abandon()
            writer.abandon()

    async def _let_go(
        self, writer: LogWriter, attempts: Attempts, refusal: Refusal | None
    ) -> Outcome:
        """Return what an ownership comes to that was ended from outside.

        By `refusal` of the log, else by a message, else by the deadline.
        """
        self._free_slot()
        if isinstance(refusal, Fenced | ClaimLost) or self._stopped is Outcome.NOT_MINE:
            writer.abandon()  # or a run could be ended first and noted then
            await attempts.end_stray()
            return Outcome.GIVE_BACK if isinstance(refusal, ClaimLost) else Outcome.NOT_MINE
        if isinstance(refusal, RecordUnreadable):
            writer.abandon()
            await attempts.clear_up(closed_by_another=False)
            raise refusal
        if isinstance(refusal, LogAbsent):
            # There is no end to keep; what comes under the same name is another generation.
            await attempts.clear_up(closed_by_another=False)
            return Outcome.FINISHED
        if isinstance(refusal, LogClosed):
            closed_as = State(refusal.state)
        elif self._stopped is not None:
            closed_as = State.CANCELLED
        else:
            closed_as = State.FAILED
            if not await insist(self._expire):
                return Outcome.GIVE_BACK
        if closed_as is State.DONE:
            await attempts.end_stray()
            return Outcome.NOT_MINE
        return await self._keep_watch(writer, attempts, closed_as)

    async def _expire(self) -> bool:
        """End the log at its deadline, by Redis' clock, which may run a little behind ours."""
        for _ in range(EXPIRE_TRIES):
            closed = await self._tools.store.expire(self._lease.generation)
            if closed.state.is_closed:
                return True
            await asyncio.sleep(EXPIRE_PAUSE_S)
        return False

    async def _keep_watch(
        self, writer: LogWriter, attempts: Attempts, closed_as: State | None
    ) -> Outcome:
        """Clear up, and after a while look whether Redis still has the end; else write it again.

        `closed_as`: how another closed the log; None if we did.
        """
        self._free_slot()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._tools.settings.watch.total_seconds()
        await attempts.clear_up(closed_by_another=closed_as is not None)
        left = await insist(lambda: self._tools.store.leftover(self._lease.generation))
        await asyncio.sleep(until - loop.time())
        try:
            if closed_as is None:
                writer.look()
                await writer.wait_written()
                return Outcome.FINISHED
            writer.reopen()
            await writer.wait_written()
        except ClaimLost:
            if closed_as is None:
                return Outcome.GIVE_BACK
        except Fenced:
            return Outcome.NOT_MINE
        except AppendRefused:
            return Outcome.FINISHED
        log.warning("end_was_lost", generation=self._lease.generation, state=closed_as)
        return await self._close_again(closed_as, is_erased=left is not None and left.is_erased)

    async def _close_again(self, closed_as: State, *, is_erased: bool) -> Outcome:
        """Write an end anew that Redis lost."""
        store, generation = self._tools.store, self._lease.generation
        if is_erased:
            with suppress(GenerationUnknown):
                await insist(lambda: store.erase(generation))
            return Outcome.FINISHED
        move = store.cancel if closed_as is State.CANCELLED else store.expire
        try:
            closed = await insist(lambda: move(generation))
        except GenerationUnknown:
            return Outcome.FINISHED
        return Outcome.FINISHED if closed.state.is_closed else Outcome.GIVE_BACK

    async def _clear_up_after_others(self, record: Record | None) -> Outcome:
        """Do what the owner of a closed log could not: end its run, settle what it cost.

        `record` is missing where it is hidden, or gone.
        """
        store, generation = self._tools.store, self._lease.generation
        left = await store.leftover(generation)
        if left is None:
            return Outcome.NO_RECORD
        if left.state is State.DONE or not left.token:
            return Outcome.FINISHED
        usage = await end_run(self._tools, left.upstream) if left.upstream else None
        if usage is not None:
            await store.settle(generation, left.token, usage, is_estimate=False)
        elif record is not None and not left.has_usage:
            said = Said.read(await self._tools.read_answer(generation))
            if said.size or left.state is State.CANCELLED:
                estimate = said.estimate_usage(record.request)
                await store.settle(generation, left.token, estimate, is_estimate=True)
        return Outcome.FINISHED
