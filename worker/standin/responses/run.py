"""One response while it is made: what it has said so far, for whoever follows it."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from worker.standin.admission import Admitted
from worker.standin.bell import Bell
from worker.standin.entry import Outcome
from worker.standin.exchange import FAULT_TEXT, keep_silent
from worker.standin.pace import Pace
from worker.standin.responses.narration import Event, Narration
from worker.standin.responses.request import ResponsesRequest

_ID_BYTES = 24
_FAILED_CODE = "server_error"
_OUTCOMES = {
    "completed": Outcome.COMPLETED,
    "incomplete": Outcome.COMPLETED,
    "failed": Outcome.ERRORED,
    "cancelled": Outcome.CANCELLED,
}


class Run:
    """In the background `start` drives it, otherwise whoever iterates `generate`."""

    def __init__(self, admitted: Admitted[ResponsesRequest]) -> None:
        self.id = f"resp_{secrets.token_hex(_ID_BYTES)}"
        self.asked = admitted.asked
        self.entry = admitted.entry
        self.spoken = admitted.directive  # for every attempt
        self.forgotten = False
        self.narration = Narration(
            self.id,
            self.asked,
            created_at=self.entry.received_at,
            prompt_tokens=admitted.script.prompt_tokens,
            with_usage=self.spoken.usage != "none",
        )
        self._script = admitted.script
        self._directive = self.spoken.for_attempt(self.entry.attempt)
        self._pace = Pace(admitted.tokens_per_second)
        self._events: list[Event] = []
        self._bell = Bell()
        self._followers = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether no event will come any more."""
        return self.narration.ended or self.entry.ended_at is not None

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Somebody is there; a forgotten run ends without."""
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1
            self._end_unless_wanted()

    def start(self) -> asyncio.Task[None]:
        """Go on in the background, whoever follows."""
        self._task = asyncio.create_task(self._drive())
        return self._task

    async def generate(self) -> AsyncGenerator[Event, None]:
        """Make the events, each when it is due."""
        for event in self._record(self.narration.open()):
            yield event
        self._forget_from(0)
        await keep_silent(self._directive.first_token)
        fault = self._directive.fault
        error_after = fault.after if fault is not None and fault.name == "error" else None
        for told, delta in enumerate(self._script.deltas):
            if self.ended or told == error_after:
                break
            await self._pace.wait_due()
            self.entry.token_generated()
            for event in self._record(self.narration.tell(delta)):
                yield event
            self._forget_from(told + 1)
        if self.ended:
            return
        if error_after is not None:
            code = self._directive.code or _FAILED_CODE
            closing = self.narration.fail(code, FAULT_TEXT)
        else:
            closing = self.narration.finish(self._script.finish_reason)
        for event in self._record(closing):
            yield event

    async def follow(self, number: int) -> AsyncGenerator[Event, None]:
        """The events from that number on, first those of the past."""
        while True:
            while number < len(self._events):
                yield self._events[number]
                number += 1
            if self.ended:
                return
            await self._bell.wait()

    def cancel(self) -> None:
        """End it in the background, at its client's wish."""
        if not self.ended:
            self._record(self.narration.cancel())
            self._halt(Outcome.CANCELLED)

    def forget(self) -> None:
        """Be unknown from now on."""
        self.forgotten = True
        self._end_unless_wanted()

    def stop(self) -> None:
        """End it because the stand-in ends."""
        self._halt(Outcome.STOPPED)

    async def _drive(self) -> None:
        async with aclosing(self.generate()) as events:
            async for _ in events:
                pass

    def _record(self, events: list[Event]) -> list[Event]:
        self._events += events
        if self.narration.ended:
            outcome = _OUTCOMES[self.narration.status]
            if self.asked.background:
                self.entry.end(outcome)
            elif outcome is not Outcome.COMPLETED:
                self.entry.judge(outcome)
        self._bell.ring()
        return events

    def _forget_from(self, tokens: int) -> None:
        if tokens == self._directive.forget_after:
            self.forget()

    def _end_unless_wanted(self) -> None:
        if self.forgotten and not self._followers and self.asked.background:
            self._halt(Outcome.FORGOTTEN)

    def _halt(self, outcome: Outcome) -> None:
        if self.asked.background:
            self.entry.end(outcome)
        if self._task is not None:
            self._task.cancel()
        self._bell.ring()
