"""The attempts of one ownership: ask, write what the model says, and go down the ladder."""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import structlog

from shared.errors import AppendRefused, GenerationUnknown, ProviderError, ProviderRefused
from shared.events import Event, EventType
from shared.failures import OUTPUT_TOO_LARGE, WORKER_LOST, Failure
from shared.generation import Record, Surface, Upstream
from shared.generation_store import Claim
from worker.log_writer import LogWriter
from worker.newlines import LineFeeds
from worker.provider.answer import AnswerStream
from worker.provider.responses import RunStream
from worker.provider.responses_request import build_run_body
from worker.recovery import (
    Plan,
    Resume,
    Retry,
    choose_resume,
    find_rungs,
    plan_retry,
)
from worker.said import Said
from worker.tools import Tools, insist

HAND_OVER_S: Final = 1.0
"""A worker that is told to end has no more time than this for what it leaves to others."""

_GONE: Final = (400, 404, 410)
"""Unknown, no longer streamed, or ended: statuses that say so of a run."""

END_RUN_TRIES: Final = 3
END_RUN_PAUSE_S: Final = 0.5
"""A run that nobody wants costs money: one refusal is not taken for an answer."""

log = structlog.get_logger()


class Attempts:
    """Asks until the log is closed. `record.model` is what is asked."""

    def __init__(self, tools: Tools, record: Record, plan: Plan, writer: LogWriter, claim: Claim):
        self._tools = tools
        self._record = record
        self._plan = plan
        self._writer = writer
        self._token = claim.token
        self._rungs = find_rungs(tools.settings, plan.model)
        self._said = Said()
        self._run = claim.upstream  # not the record's: that was read before the claim
        self._opening: asyncio.Task[tuple[RunStream, AsyncExitStack]] | None = None
        self._noted = claim.upstream.id if claim.upstream else ""
        self._written_to: int | None = None
        self._feeds = LineFeeds() if record.surface is Surface.CHAT else None
        self._usage: dict[str, Any] | None = None

    async def make(self) -> timedelta | None:
        """Ask until the log is closed; a pause is returned if somebody should ask after it.

        Raises: AppendRefused.
        """
        plan, settings = self._plan, self._tools.settings
        if not plan.is_first and not plan.reset:
            log_read = await insist(lambda: self._tools.read_answer(self._writer.generation))
            self._said = Said.read(log_read)
        if self._run is not None and self._run.at is not None and self._said.is_empty:
            # What was said of it was taken back since: behind its position would be a hole.
            await self._drop_run()
        resume = self._choose()
        if resume is None:
            await self._fail(WORKER_LOST)
            return None
        if resume == "restart":
            await self._forget()
        attempt, failures = plan, self._record.failures
        while True:
            try:
                await self._ask(resume)
            except ProviderError as error:
                log.warning(
                    "attempt_failed",
                    generation=self._writer.generation,
                    attempt=attempt.attempt,
                    code=error.code,
                    resume=resume,
                    detail=error.detail,
                )
                if resume == "reattach" and _is_gone(error):
                    # Nothing was asked and nothing paid: the next rung belongs to this attempt.
                    await self._drop_run()
                    resume = self._choose()
                    if resume is None:
                        await self._fail(WORKER_LOST)
                        return None
                else:
                    failures += 1
                    retry = plan_retry(
                        error, self._record, self._said, self._run, settings, attempts=failures
                    )
                    if retry is None:
                        await self._fail(Failure(error.code, error.message, error.retryable))
                        return None
                    resume = retry.resume
                    attempt = replace(attempt, attempt=attempt.attempt + 1)
                    await self._announce(retry, attempt, error)
                    if retry.gives_slot_back:
                        await self._writer.wait_written()
                        return retry.pause
                    await asyncio.sleep(retry.pause.total_seconds())
            else:
                return None
            if resume == "restart":
                await self._forget()
            attempt = replace(attempt, resume=resume)
            await self._writer.put(Event(EventType.STARTED, attempt.started))
            # Who was fenced while it waited or was frozen learns that here, before it pays again.
            await self._writer.wait_written()

    async def clear_up(self, *, closed_by_another: bool) -> None:
        """End what the provider still does for a closed log, and settle what it cost."""
        await self._wait_named()
        run_cost = await end_run(self._tools, self._run) if self._run is not None else None
        if closed_by_another or run_cost is not None:
            usage = run_cost or self._usage
            cost = usage or self._said.estimate_usage(self._record.request)
            settle, is_estimate = self._tools.store.settle, usage is None
            name = self._writer.generation
            await insist(lambda: settle(name, self._token, cost, is_estimate=is_estimate))

    async def hand_over(self) -> None:
        """Leave a run to whoever comes next: by its name, with everything that was read of it."""
        with suppress(AppendRefused, TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await self._wait_named()
                if self._run is None or self._run.id == self._noted:
                    # The writer knows where the log stands in it.
                    await self._writer.wait_written()
                else:
                    await self._writer.note_upstream(self._run)

    async def end_stray(self) -> None:
        """End a run that the record does not name: whoever owns the log now cannot go on with it.

        So it is after Redis lost the claim, or the note of the run, or when it was replaced.
        """
        await self._wait_named()
        if self._run is None:
            return
        try:
            record = await insist(lambda: self._tools.store.record(self._writer.generation))
        except GenerationUnknown:
            record = None
        named = record.upstream if record else None
        if named is None or named.id != self._run.id:
            await end_run(self._tools, self._run)

    async def _wait_named(self) -> None:
        """Wait for the name of a run that we asked for before we were told to stop."""
        if self._opening is None:
            return
        try:
            run, connection = await self._opening
        except ProviderError:
            pass  # it never began
        else:
            await connection.aclose()
            self._run = Upstream(await run.read_id(), None)
        self._opening = None

    def abandon(self) -> None:
        """Let go of what is being opened: nobody will read it."""
        if self._opening is not None:
            self._opening.cancel()

    def _choose(self) -> Resume | None:
        return choose_resume(self._rungs, self._said, self._record.surface, self._run)

    async def _forget(self) -> None:
        """Take everything back that was said, and begin anew."""
        await self._writer.put(Event(EventType.RESET, {}))
        self._said = Said()

    async def _fail(self, failure: Failure) -> None:
        await self._writer.close(EventType.FAILED, failure.data, None)

    async def _announce(self, retry: Retry, attempt: Plan, error: ProviderError) -> None:
        """Say that there will be another attempt, and count the failed one."""
        data = {
            "attempt": attempt.attempt,
            "reason": error.code,
            "delay_ms": round(retry.pause / timedelta(milliseconds=1)),
        }
        await self._writer.put(Event(EventType.RETRYING, data))
        note = self._tools.store.note_failure
        await insist(lambda: note(self._writer.generation, self._token))

    async def _ask(self, resume: Resume) -> None:
        """Append what the model says, then how it ended. Raises: ProviderError, AppendRefused."""
        provider = self._tools.provider
        self._written_to = None  # of the run that is opened now, not of one before
        if self._feeds is not None:
            self._feeds = self._feeds.resume() if resume == "reattach" else LineFeeds()
        if resume == "reattach" and self._run is not None:
            self._writer.resume_upstream(self._run)
            async with provider.rejoin_run(self._run, self._said.tool_calls) as rejoined:
                await self._write_run(rejoined)
            return
        if self._run is not None:
            await self._drop_run()
        request = self._said.extend(self._record.request)
        body = build_run_body(request, self._plan.model) if "reattach" in self._rungs else None
        if body is None:
            async with provider.open_answer(request, self._plan.model) as answer:
                await self._write(answer)
            return
        # Told to stop meanwhile we still need its name: only by that it can be ended.
        self._opening = asyncio.create_task(self._open_run(body))
        try:
            run, connection = await asyncio.shield(self._opening)
        except ProviderError:
            self._opening = None
            raise
        self._opening = None
        async with connection:
            self._run = Upstream(await run.read_id(), None)
            await self._writer.note_upstream(self._run)
            self._noted = self._run.id
            await self._write_run(run)

    async def _open_run(self, body: dict[str, Any]) -> tuple[RunStream, AsyncExitStack]:
        """Ask for a run and wait until it is named."""
        async with AsyncExitStack() as exits:
            run = await exits.enter_async_context(self._tools.provider.open_run(body))
            await run.read_id()
            return run, exits.pop_all()

    async def _write_run(self, run: RunStream) -> None:
        try:
            await self._write(run)
        except ProviderError:
            if self._run is not None and self._written_to is not None:
                self._run = Upstream(self._run.id, self._written_to)
            if run.is_over:
                self._run = None
                await self._writer.note_upstream(None)
            raise

    async def _write(self, answer: AnswerStream) -> None:
        """Append an answer and close the log. Raises: ProviderError, AppendRefused."""
        said, writer = self._said, self._writer
        feeds = self._feeds
        largest = int(self._tools.settings.max_output)
        async for spoken in answer:
            for event, number in feeds.convert(*spoken) if feeds else (spoken,):
                said.add(event)
                if said.size > largest:
                    usage = said.estimate_usage(self._record.request)
                    await writer.close(EventType.FAILED, OUTPUT_TOO_LARGE.data, usage)
                    return
                await writer.put(event, number)
                self._written_to = number
        for event, number in feeds.flush() if feeds else ():
            said.add(event)
            await writer.put(event, number)
        self._run = None
        finish = answer.finish
        self._usage = finish.usage
        data = {"finish_reason": finish.reason, "usage": finish.usage}
        await writer.close(EventType.DONE, data, finish.usage)

    async def _drop_run(self) -> None:
        """End a run that is not gone on with: what is asked now would be paid for twice."""
        if self._run is not None:
            await end_run(self._tools, self._run)
        self._run = None
        await self._writer.note_upstream(None)


async def end_run(tools: Tools, run: Upstream) -> dict[str, Any] | None:
    """Have the provider end a run; returns what it cost, if it says so."""
    for tries in range(END_RUN_TRIES):
        if tries:
            await asyncio.sleep(END_RUN_PAUSE_S)
        try:
            return await tools.provider.cancel_run(run.id)
        except ProviderError as error:
            log.warning("run_not_ended", run=run.id, code=error.code, detail=error.detail)
    return None


def _is_gone(error: ProviderError) -> bool:
    """Whether the provider has the run no more, or gives it to nobody a second time."""
    return isinstance(error, ProviderRefused) and error.status in _GONE
