"""One streamed answer, whatever API it comes by: events, then how it ended.

Source: `client.post(cast_to=object)` skips the SDK's typed models, which cost more than all the
rest of the way of a token; the SDK still does connection, headers, errors and SSE decoding.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self, TypeVar

import httpx2
import openai
from openai import AsyncStream

from shared.errors import ProviderError, ProviderGarbled, ProviderSilent, ProviderTruncated
from shared.events import Event, EventType
from worker.provider.refusals import name_refusal
from worker.settings import WorkerSettings

USAGE_GRACE_S: Final = 2.0
"""How long a server may take, after the finish reason, to send the usage and end its stream."""


@dataclass(slots=True)
class Finish:
    """How the model ended. `usage` is None where the server sent none."""

    reason: str | None = None
    usage: dict[str, Any] | None = None


class Spoken(NamedTuple):
    """One event, and its number in the upstream answer where the server counts them."""

    event: Event
    number: int | None


class AnswerStream(ABC):
    """The events of one answer, as the model says them; `finish` is complete when they end.

    Iterating raises: ProviderSilent, ProviderTruncated, ProviderGarbled, ProviderRefused.
    """

    def __init__(self, chunks: AsyncStream[object], first_by: float, settings: WorkerSettings):
        """`first_by`: when something must have been said, by the event loop's clock."""
        self.finish = Finish()
        self._chunks = chunks
        self._first_by = first_by
        self._has_begun = False
        self._stall = settings.stall_timeout.total_seconds()
        self._requires_reason = settings.require_finish_reason
        self._pending: list[Spoken] = []
        self._held: Spoken | None = None  # ends in half of a surrogate pair
        self._number: int | None = None

    @abstractmethod
    def _translate(self, chunk: dict[str, Any]) -> None:
        """Take what a chunk says: events to `_pending`, the end to `finish`."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Spoken:
        while not self._pending:
            if not await self._read_chunk():
                if self._requires_reason and self.finish.reason is None:
                    raise truncated("ended without finish_reason")
                self._release()
                if not self._pending:
                    raise StopAsyncIteration
                break
            self._has_begun = self._has_begun or bool(self._pending)
        return self._pending.pop(0)

    async def _read_chunk(self) -> bool:
        """Read and translate one chunk. Returns False at the end."""
        loop = asyncio.get_running_loop()
        try:
            when = self._first_by if not self._has_begun else loop.time() + self._stall
            if self.finish.reason is not None:
                when = loop.time() + USAGE_GRACE_S
            async with asyncio.timeout_at(when):
                chunk = await anext(self._chunks, None)
        except TimeoutError:
            if self.finish.reason is not None:
                return False
            raise silent(self._has_begun) from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError, RecursionError) as error:
            # RecursionError: JSON that is nested deeper than anybody means it.
            # What comes after the finish reason is bookkeeping: its loss cuts no answer off.
            if self.finish.reason is not None:
                return False
            if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
                raise truncated(str(error)) from error
            if isinstance(error, RecursionError):
                raise garbled("nested too deep") from error
            raise name_refusal(error) from error
        if chunk is None:
            return False
        try:
            self._translate(require(chunk, dict))
        except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
            if self.finish.reason is not None:
                return False
            raise garbled(repr(error)) from error
        except ProviderError:
            if self.finish.reason is not None:
                return False
            raise
        return True

    def _say(self, kind: EventType, text: object) -> None:
        """Hand out some text."""
        self._hand_out(Event(kind, {"text": require(text, str)}))

    def _hand_out(self, event: Event) -> None:
        """Hand out an event, its text in whole characters: one that ends in half of a pair waits.

        JSON can spell the halves of a surrogate pair apart, in two deltas; UTF-8 has no halves.
        """
        field = "arguments" if event.type is EventType.TOOL_CALL else "text"
        text = event.data[field]
        if self._held is None and text and text.isascii():
            self._pending.append(Spoken(event, self._number))
            return
        if self._held is not None:
            held = self._held.event
            if held.type is event.type and held.data.get("index") == event.data.get("index"):
                text = held.data[field] + text
                event = Event(event.type, {**held.data, **event.data})
                self._held = None
            else:
                self._release()
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held = Spoken(Event(event.type, {**event.data, field: text}), self._number)
        elif text or event.type is EventType.TOOL_CALL:
            whole = _mend(text)
            if whole != event.data[field]:
                event = Event(event.type, {**event.data, field: whole})
            self._pending.append(Spoken(event, self._number))

    def _release(self) -> None:
        """Hand out what waits: its other half will not come."""
        if self._held is not None:
            (kind, data), number = self._held
            field = "arguments" if kind is EventType.TOOL_CALL else "text"
            self._pending.append(Spoken(Event(kind, {**data, field: _mend(data[field])}), number))
            self._held = None


T = TypeVar("T")


def require(value: object, kind: type[T]) -> T:
    """Return `value` if it is of that kind. Raises: TypeError."""
    if type(value) is not kind:
        raise TypeError(f"{value!r:.100} is not {kind.__name__}")
    return value


def _mend(text: str) -> str:
    """Join the halves of pairs; a half without its other one becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def silent(has_begun: bool) -> ProviderError:
    """Return the error of a model that says nothing."""
    if has_begun:
        return ProviderSilent(
            "provider_stalled", "The model stopped in the middle of its answer.", True
        )
    return ProviderSilent(
        "provider_first_token_timeout",
        "The model said nothing in time.",
        True,
        phase="first_token",
    )


def truncated(detail: str) -> ProviderError:
    """Return the error of an answer that ended before it said so."""
    return ProviderTruncated("provider_truncated", "The model's answer was cut off.", True, detail)


def garbled(detail: str) -> ProviderError:
    """Return the error of an answer that breaks its own protocol."""
    return ProviderGarbled(
        "provider_garbled", "The model server sent something unreadable.", True, detail
    )
