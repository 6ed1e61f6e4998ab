"""Read one streamed answer of the Chat Completions API.

Source: `client.post(cast_to=object)` skips the SDK's typed models, which cost more than all the
rest of the way of a token; the SDK still does connection, headers, errors and SSE decoding.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from shared.errors import (
    ProviderError,
    ProviderGarbled,
    ProviderSilent,
    ProviderTruncated,
    ProviderUnreachable,
)
from shared.events import Event, EventType
from worker.provider.refusals import name_refusal
from worker.settings import ProviderSettings, WorkerSettings

_OWNED: Final[dict[str, Any]] = {
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
}
"""What every request says, whatever the client asked for."""

_TEXT_DELTAS: Final = (
    ("content", EventType.TOKEN),
    ("reasoning_content", EventType.REASONING),
    ("reasoning", EventType.REASONING),
    ("refusal", EventType.REFUSAL),
)
"""Fields of a delta that hold text. Source: OpenAI has `content` and `refusal`; DeepSeek, vLLM
and llama.cpp add `reasoning_content`, OpenRouter and Ollama `reasoning`."""


USAGE_GRACE_S: Final = 2.0
"""How long a server may take, after the finish reason, to send the usage and end its stream."""


@dataclass(slots=True)
class Finish:
    """How the model ended. `usage` is None where the server sent none."""

    reason: str | None = None
    usage: dict[str, Any] | None = None


class AnswerStream:
    """The events of one answer, as the model says them; `finish` is complete when they end.

    Iterating raises: ProviderSilent, ProviderTruncated, ProviderGarbled, ProviderRefused.
    """

    def __init__(self, chunks: AsyncStream[object], first_by: float, settings: WorkerSettings):
        self.finish = Finish()
        self._chunks = chunks
        self._first_by = first_by
        self._has_begun = False
        self._stall = settings.stall_timeout.total_seconds()
        self._require_reason = settings.require_finish_reason
        self._pending: list[Event] = []
        self._half: dict[EventType, str] = {}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._pending:
            chunk = await self._read_chunk()
            if chunk is None:
                if self._require_reason and self.finish.reason is None:
                    raise _truncated("ended without finish_reason")
                self._pending = [Event(kind, {"text": "\ufffd"}) for kind in self._half]
                self._half.clear()
                if not self._pending:
                    raise StopAsyncIteration
                break
            self._translate(chunk)
            self._has_begun = self._has_begun or bool(self._pending)
        return self._pending.pop(0)

    async def _read_chunk(self) -> dict[str, Any] | None:
        loop = asyncio.get_running_loop()
        try:
            when = self._first_by if not self._has_begun else loop.time() + self._stall
            if self.finish.reason is not None:
                when = loop.time() + USAGE_GRACE_S
            async with asyncio.timeout_at(when):
                chunk = await anext(self._chunks, None)
        except TimeoutError:
            if self.finish.reason is not None:
                return None
            raise _silent(self._has_begun) from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            # What comes after the finish reason is bookkeeping: its loss cuts no answer off.
            if self.finish.reason is not None:
                return None
            if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
                raise _truncated(str(error)) from error
            raise name_refusal(error) from error
        if chunk is not None and not isinstance(chunk, dict):
            raise _garbled("a chunk is not an object")
        return chunk

    def _translate(self, chunk: dict[str, Any]) -> None:
        try:
            if usage := chunk.get("usage"):
                self.finish.usage = dict(usage)
            for choice in chunk.get("choices") or ():
                if choice.get("index", 0) != 0:
                    continue
                self._translate_delta(choice.get("delta") or {})
                self.finish.reason = choice.get("finish_reason") or self.finish.reason
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise _garbled(repr(error)) from error

    def _whole_characters(self, event_type: EventType, text: str) -> str:
        """Return `text` in whole characters; half of a surrogate pair waits for its other half.

        JSON can spell the halves apart, in two deltas; UTF-8 has no halves.
        """
        text = self._half.pop(event_type, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._half[event_type], text = text[-1], text[:-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def _translate_delta(self, delta: dict[str, Any]) -> None:
        for field, event_type in _TEXT_DELTAS:
            if text := delta.get(field):
                if not isinstance(text, str):
                    raise TypeError(f"{field} is not text")
                if text := self._whole_characters(event_type, text):
                    self._pending.append(Event(event_type, {"text": text}))
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            data = {
                "index": int(call.get("index", 0)),
                "id": call.get("id"),
                "name": function.get("name"),
                "arguments": function.get("arguments") or "",
            }
            data = {name: value for name, value in data.items() if value is not None}
            self._pending.append(Event(EventType.TOOL_CALL, data))


class ChatCompletions:
    """One model server, by its Chat Completions API."""

    def __init__(self, client: AsyncOpenAI, settings: WorkerSettings) -> None:
        self._client = client
        self._settings = settings

    @asynccontextmanager
    async def open_answer(self, request: dict[str, Any], model: str) -> AsyncIterator[AnswerStream]:
        """Ask once, never again by itself, and close the connection on every way out.

        Raises: ProviderRefused, ProviderUnreachable, ProviderSilent.
        """
        body = {**request, **_OWNED, "model": model}
        first_by = asyncio.get_running_loop().time() + (
            self._settings.first_token_timeout / timedelta(seconds=1)
        )
        try:
            async with asyncio.timeout_at(first_by):
                chunks = await self._client.post(
                    "/chat/completions",
                    cast_to=object,
                    body=body,
                    stream=True,
                    stream_cls=AsyncStream[object],
                )
        except TimeoutError:
            raise _silent(has_begun=False) from None
        except (openai.OpenAIError, ValueError) as error:
            raise name_refusal(error) from error
        except httpx2.HTTPError as error:
            raise ProviderUnreachable(
                "provider_unreachable", "The model server cannot be reached.", True, str(error)
            ) from error
        async with chunks:
            yield AnswerStream(chunks, first_by, self._settings)


@asynccontextmanager
async def open_provider(
    provider: ProviderSettings, settings: WorkerSettings
) -> AsyncIterator[ChatCompletions]:
    """Open the one client of this process. Its own time-outs and retries are off: ours bound it."""
    async with AsyncOpenAI(
        api_key=provider.api_key.get_secret_value() or "unset",
        base_url=provider.base_url,
        max_retries=0,
        timeout=None,
        http_client=DefaultAioHttpClient(
            timeout=None,
            limits=httpx2.Limits(
                max_connections=settings.max_generations,
                max_keepalive_connections=settings.max_generations,
            ),
        ),
    ) as client:
        yield ChatCompletions(client, settings)


def _silent(has_begun: bool) -> ProviderError:
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


def _truncated(detail: str) -> ProviderError:
    return ProviderTruncated("provider_truncated", "The model's answer was cut off.", True, detail)


def _garbled(detail: str) -> ProviderError:
    return ProviderGarbled(
        "provider_garbled", "The model server sent something unreadable.", True, detail
    )
