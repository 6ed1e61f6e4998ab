"""The job on one screen: claim the log, stream the model's answer into it, close it."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
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
from worker.newlines import LineFeeds
from worker.provider.chat_completions import ChatCompletions
from worker.recovery import WORKER_LOST, Plan, plan_attempt
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


class Attempt:
    """One run of one job; `stop` ends it from outside, at once, wherever it waits."""

    def __init__(self, tools: Tools, lease: Lease) -> None:
        self._tools = tools
        self._lease = lease
        self._stopped: Outcome | None = None
        self._scope: asyncio.Timeout | None = None

    def stop(self, outcome: Outcome = Outcome.FINISHED) -> None:
        """End the attempt because its log is closed or held by another: write nothing more."""
        self._stopped = outcome
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> Outcome:
        """Return what is to be done with the job. Raises: StoreUnavailable."""
        generation, store = self._lease.generation, self._tools.store
        try:
            record = await store.record(generation)
        except GenerationUnknown:
            return Outcome.NO_RECORD
        if record.state.is_closed:
            return Outcome.FINISHED
        if record.is_overdue(datetime.now(UTC)):
            closed = await store.expire(generation)
            if closed.state.is_closed:
                return Outcome.FINISHED
        plan = plan_attempt(
            record,
            default_model=self._tools.model,
            max_deaths=self._tools.settings.max_deaths,
        )
        if plan is None:
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
                return await self._hold(record, plan, claim)
            case ClaimOutcome.CLOSED:
                return Outcome.FINISHED
            case ClaimOutcome.ABSENT:
                return Outcome.NO_RECORD
            case ClaimOutcome.MOVED:
                return Outcome.NOT_MINE

    async def _hold(self, record: Record, plan: Plan, claim: Claim) -> Outcome:
        """Write the log while it is ours, and no longer than until its deadline."""
        bound = log.bind(generation=self._lease.generation, attempt=plan.attempt)
        bound.info("attempt_started", model=plan.model, resume=plan.resume)
        writer = self._tools.flusher.open_writer(self._lease.generation, claim.token, claim.last_id)
        try:
            async with asyncio.timeout(claim.time_left.total_seconds()) as self._scope:
                if self._stopped is not None:
                    self.stop(self._stopped)
                if plan.needs_empty_log and await self._has_content():
                    await writer.close(EventType.FAILED, WORKER_LOST.data, None)
                else:
                    await self._stream(record, plan, writer)
        except TimeoutError:
            bound.info("attempt_stopped", by="another" if self._stopped else "deadline")
            if self._stopped is not None:
                return self._stopped
            return await self._expire()
        except (LogClosed, LogAbsent) as refusal:
            bound.info("attempt_refused", refusal=type(refusal).__name__)
        except Fenced:
            bound.info("attempt_fenced")
            return Outcome.NOT_MINE
        except ClaimLost:
            bound.warning("attempt_lost_claim")
            return Outcome.GIVE_BACK
        else:
            bound.info("attempt_ended")
        finally:
            self._scope = None
            writer.abandon()
        return Outcome.FINISHED

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

    async def _stream(self, record: Record, plan: Plan, writer: LogWriter) -> None:
        """Append what the model says, then how it ended. Raises: AppendRefused."""
        line_feeds = LineFeeds() if record.surface is Surface.CHAT else None
        room = int(self._tools.settings.max_output)
        usage = None
        try:
            async with self._tools.provider.open_answer(record.request, plan.model) as answer:
                async for said in answer:
                    event = line_feeds.convert(said) if line_feeds else said
                    if event is None:
                        continue
                    room -= _size(event)
                    if room < 0:
                        break
                    await writer.put(event)
                usage = answer.finish.usage
                reason = answer.finish.reason
        except ProviderError as error:
            log.warning(
                "provider_failed",
                generation=self._lease.generation,
                code=error.code,
                detail=error.detail,
            )
            failure = Failure(error.code, error.message, error.retryable)
            await writer.close(EventType.FAILED, failure.data, None)
            return
        if room < 0:
            await writer.close(EventType.FAILED, OUTPUT_TOO_LARGE.data, usage)
        else:
            data = {"finish_reason": reason, "usage": usage}
            await writer.close(EventType.DONE, data, usage)

    async def _has_content(self) -> bool:
        """Whether an earlier attempt left something that a client would have to forget.

        Read after the claim: nothing can be added behind our back any more.
        """
        answer = Answer()
        while page := await self._tools.event_log.read(self._lease.generation, answer.last_id):
            fold(page, answer)
        return not answer.is_empty


def _size(event: Event) -> int:
    """Bytes of UTF-8 that `event` adds to the answer."""
    text: str = event.data.get("text") or event.data.get("arguments", "")
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
