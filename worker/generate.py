"""The job on one screen: claim the log, stream the model's answer into it, close it."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final

import structlog

from shared.errors import (
    ClaimLost,
    Fenced,
    GenerationUnknown,
    LogAbsent,
    LogClosed,
    ProviderError,
)
from shared.event_log import EventLog
from shared.events import Answer, Event, EventType, fold
from shared.generation import Record, Surface
from shared.generation_store import Claim, ClaimOutcome, Failure, GenerationStore
from shared.queue import Lease, Queue
from worker.flusher import Flusher, LogWriter
from worker.provider.chat_completions import ChatCompletions
from worker.recovery import (
    WORKER_LOST,
    Plan,
    Retry,
    choose_resume,
    find_rungs,
    plan_attempt,
    plan_retry,
)
from worker.said import Said
from worker.settings import WorkerSettings

OUTPUT_TOO_LARGE: Final = Failure(
    "output_too_large", "The answer grew beyond what one generation may hold.", False
)

EXPIRE_TRIES: Final = 40
EXPIRE_PAUSE_S: Final = 0.05
"""Two clocks differ by milliseconds a day, not by the two seconds these make."""

log = structlog.get_logger()


class Outcome(Enum):
    """What is to be done with the job."""

    FINISHED = auto()
    """The log is closed: the job can go."""
    NOT_MINE = auto()
    """Somebody else owns it: it is not touched."""
    GIVE_BACK = auto()
    """It must run again, here or elsewhere."""
    PAUSE = auto()
    """It must run again after a while: its provider asked for that."""
    NO_RECORD = auto()
    """Its record is missing: not written yet, or gone."""
    NO_RECORD_AGAIN = auto()
    """And was missing the last time."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt of this worker shares."""

    store: GenerationStore
    queue: Queue
    event_log: EventLog
    flusher: Flusher
    provider: ChatCompletions
    settings: WorkerSettings
    model: str
    """For requests that name none."""


class Ownership:
    """One run of one job: take the log over, and write it until it is closed.

    `stop` ends it from outside, at once, wherever it waits.
    """

    def __init__(self, tools: Tools, lease: Lease) -> None:
        self._tools = tools
        self._lease = lease
        self._stopped: Outcome | None = None
        self._scope: asyncio.Timeout | None = None
        self.pause = timedelta(0)
        """How long the job should wait before it runs again, where the outcome is PAUSE."""

    def stop(self, outcome: Outcome = Outcome.FINISHED) -> None:
        """End it because the log is closed or held by another: write nothing more."""
        self._stopped = outcome
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> Outcome:
        """Return what is to be done with the job. Raises: StoreUnavailable."""
        try:
            return await self._run()
        except GenerationUnknown:
            return Outcome.NO_RECORD

    async def _run(self) -> Outcome:
        generation, store = self._lease.generation, self._tools.store
        record = await store.record(generation)
        if record.state.is_closed:
            return Outcome.FINISHED
        if record.is_overdue(datetime.now(UTC)):
            closed = await store.expire(generation)
            if closed.state.is_closed:
                return Outcome.FINISHED
        plan = plan_attempt(record, self._tools.settings, default_model=self._tools.model)
        if plan is None:
            await store.fail(generation, WORKER_LOST)
            return Outcome.FINISHED
        if not plan.is_first and not plan.reset and not await self._can_go_on(record, plan):
            await store.fail(generation, WORKER_LOST)
            return Outcome.FINISHED
        if self._stopped is not None:
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
                return Outcome.FINISHED
            case ClaimOutcome.ABSENT:
                return Outcome.NO_RECORD
            case ClaimOutcome.MOVED:
                return Outcome.NOT_MINE

    async def _can_go_on(self, record: Record, plan: Plan) -> bool:
        """Whether a rung applies to what stands in the log, before an attempt is announced."""
        said = Said.read(await self._read_log())
        rungs = find_rungs(self._tools.settings, plan.model)
        return choose_resume(rungs, said, record.surface) is not None

    async def _hold(self, record: Record, plan: Plan, claim: Claim) -> Outcome:
        """Write the log while it is ours, and no longer than until its deadline."""
        bound = log.bind(generation=self._lease.generation)
        bound.info("attempt_started", **plan.started)
        writer = self._tools.flusher.open_writer(self._lease.generation, claim.token, claim.last_id)
        try:
            async with asyncio.timeout(claim.time_left.total_seconds()) as self._scope:
                if self._stopped is not None:
                    self.stop(self._stopped)
                outcome = await self._write(record, plan, writer)
        except TimeoutError:
            bound.info("attempt_stopped", by="another" if self._stopped else "deadline")
            if self._stopped is not None:
                return self._stopped
            return await self._expire()
        except (LogClosed, LogAbsent) as refusal:
            bound.info("attempt_refused", refusal=type(refusal).__name__)
            return Outcome.FINISHED
        except Fenced:
            bound.info("attempt_fenced")
            return Outcome.NOT_MINE
        except ClaimLost:
            bound.warning("attempt_lost_claim")
            return Outcome.GIVE_BACK
        finally:
            self._scope = None
            writer.abandon()
        bound.info("attempt_ended")
        return outcome

    async def _write(self, record: Record, plan: Plan, writer: LogWriter) -> Outcome:
        """Ask until the model has answered or the ladder ends. Raises: AppendRefused."""
        settings = self._tools.settings
        said = Said() if plan.is_first or plan.reset else Said.read(await self._read_log())
        resume = choose_resume(find_rungs(settings, plan.model), said, record.surface)
        if resume is None:
            await writer.close(EventType.FAILED, WORKER_LOST.data, None)
            return Outcome.FINISHED
        if resume == "restart":
            said = await _forget(writer)
        attempt, failures = plan, record.failures
        while True:
            try:
                await self._ask(record, attempt.model, said, writer)
            except ProviderError as error:
                failures += 1
                log.warning(
                    "attempt_failed",
                    generation=self._lease.generation,
                    attempt=attempt.attempt,
                    code=error.code,
                    detail=error.detail,
                )
                retry = plan_retry(error, record, said, settings, attempts=failures)
                if retry is None:
                    failure = Failure(error.code, error.message, error.retryable)
                    await writer.close(EventType.FAILED, failure.data, None)
                    return Outcome.FINISHED
                attempt = replace(attempt, attempt=attempt.attempt + 1, resume=retry.resume)
                await self._announce(retry, attempt, error, writer)
            else:
                return Outcome.FINISHED
            if retry.gives_slot_back:
                await writer.wait_written()
                self.pause = retry.pause
                return Outcome.PAUSE
            await asyncio.sleep(retry.pause.total_seconds())
            if retry.resume == "restart":
                said = await _forget(writer)
            await writer.put(Event(EventType.STARTED, attempt.started))

    async def _announce(
        self, retry: Retry, attempt: Plan, error: ProviderError, writer: LogWriter
    ) -> None:
        """Say that there will be another attempt, and count the failed one."""
        data = {
            "attempt": attempt.attempt,
            "reason": error.code,
            "delay_ms": round(retry.pause / timedelta(milliseconds=1)),
        }
        await writer.put(Event(EventType.RETRYING, data))
        await self._tools.store.note_failure(self._lease.generation, self._lease.token)

    async def _ask(self, record: Record, model: str, said: Said, writer: LogWriter) -> None:
        """Append what the model says, then how it ended. Raises: ProviderError, AppendRefused."""
        convert = said.line_feeds.convert if record.surface is Surface.CHAT else None
        largest = int(self._tools.settings.max_output)
        async with self._tools.provider.open_answer(said.extend(record.request), model) as answer:
            async for spoken in answer:
                event = convert(spoken) if convert else spoken
                if event is None:
                    continue
                said.add(event)
                if said.size > largest:
                    break
                await writer.put(event)
            finish = answer.finish
        if said.size > largest:
            await writer.close(EventType.FAILED, OUTPUT_TOO_LARGE.data, finish.usage)
        else:
            data = {"finish_reason": finish.reason, "usage": finish.usage}
            await writer.close(EventType.DONE, data, finish.usage)

    async def _read_log(self) -> Answer:
        """Return what earlier owners left. Read after the claim: nothing comes to it any more."""
        answer = Answer()
        while page := await self._tools.event_log.read(self._lease.generation, answer.last_id):
            fold(page, answer)
        return answer

    async def _is_lease_young(self) -> bool:
        """Whether the lease can be relied on for the claim; an old one is renewed first.

        A worker that was frozen between the two would otherwise take the log from its new owner.
        """
        if self._lease.age < self._tools.settings.lease / 2:
            return True
        return await self._tools.queue.renew(self._lease, self._tools.settings.lease)

    async def _expire(self) -> Outcome:
        """End the log at its deadline, by Redis' clock, which may run a little behind ours."""
        for _ in range(EXPIRE_TRIES):
            closed = await self._tools.store.expire(self._lease.generation)
            if closed.state.is_closed:
                return Outcome.FINISHED
            await asyncio.sleep(EXPIRE_PAUSE_S)
        return Outcome.GIVE_BACK


async def _forget(writer: LogWriter) -> Said:
    """Take everything back that was said, and begin anew."""
    await writer.put(Event(EventType.RESET, {}))
    return Said()
