"""Responses in the background: answers that go on without their connection.

A run has an id and numbers its events, so that whoever knows both can go on reading behind any of
them (`retrieve(stream=True, starting_after=n)`): byte for byte the same answer, paid for once.

Source: OpenAI's API reference; a closed connection does not stop a run, `cancel` does, and a run
can be streamed again for about five minutes (openai-python#2828).
"""

import re
from typing import Any, Final

from openai import AsyncStream

from shared.errors import ProviderRefused
from shared.events import Event, EventType
from worker.provider.answer import AnswerStream, require, truncated
from worker.settings import WorkerSettings

PATH: Final = "/responses"

_TEXT_DELTAS: Final = {
    "response.output_text.delta": EventType.TOKEN,
    "response.refusal.delta": EventType.REFUSAL,
    "response.reasoning_text.delta": EventType.REASONING,
    "response.reasoning_summary_text.delta": EventType.REASONING,
}

_FINISH_REASONS: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""Of a response that is incomplete, in the words of Chat Completions."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~=+-]{0,511}")
"""What goes into a path, and into a record."""

_TRANSIENT: Final = ("server_error", "rate_limit_exceeded")
"""Codes of a run's own failure after which asking anew may help."""


class RunStream(AnswerStream):
    """The events of one run, from its beginning or from behind one of them."""

    def __init__(
        self,
        chunks: AsyncStream[object],
        first_by: float,
        settings: WorkerSettings,
        tool_calls: int = 0,
    ) -> None:
        """`tool_calls`: how many of its calls were begun in what was read before."""
        super().__init__(chunks, first_by, settings)
        self._requires_reason = True
        self._calls: dict[int, int] = {}
        self._tool_calls = tool_calls
        self._id: str | None = None
        self.is_over = False
        """Whether the run itself has ended: there is nothing to come back to."""

    async def read_id(self) -> str:
        """Return the run's id, which its first event tells. Raises: ProviderError."""
        while self._id is None:
            if not await self._read_chunk():
                raise truncated("ended before it named itself")
        return self._id

    def _translate(self, chunk: dict[str, Any]) -> None:
        kind, number = chunk["type"], require(chunk["sequence_number"], int)
        if number < 0:
            raise ValueError("sequence_number is below 0")
        self._number = number
        if said := _TEXT_DELTAS.get(kind):
            self._say(said, chunk["delta"])
        elif kind == "response.function_call_arguments.delta":
            index = self._calls.get(chunk["output_index"], self._tool_calls - 1)
            if index < 0:
                raise LookupError("a call that never began")
            data = {"index": index, "arguments": require(chunk["delta"], str)}
            self._hand_out(Event(EventType.TOOL_CALL, data))
        elif kind == "response.output_item.added" and chunk["item"]["type"] == "function_call":
            self._begin_call(chunk["output_index"], chunk["item"])
        elif kind == "response.created":
            self._id = require(chunk["response"]["id"], str)
            if not _ID.fullmatch(self._id):
                raise ValueError("a response with an odd name")
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._end(chunk["response"])
        elif kind == "error":
            raise _failed(chunk.get("code"), chunk.get("message"))

    def _begin_call(self, output_index: int, item: dict[str, Any]) -> None:
        index = self._calls[output_index] = self._tool_calls
        self._tool_calls += 1
        data = {
            "index": index,
            "id": require(item["call_id"], str),
            "name": require(item["name"], str),
            "arguments": require(item.get("arguments") or "", str),
        }
        self._hand_out(Event(EventType.TOOL_CALL, data))

    def _end(self, response: dict[str, Any]) -> None:
        self.is_over = True
        status = response["status"]
        if status == "completed":
            self.finish.reason = "tool_calls" if self._tool_calls else "stop"
        elif status == "incomplete":
            reason = (response.get("incomplete_details") or {}).get("reason")
            self.finish.reason = _FINISH_REASONS.get(str(reason), "length")
        elif status == "cancelled":
            raise _cancelled()
        else:
            error = response.get("error") or {}
            raise _failed(error.get("code"), error.get("message") or status)
        self.finish.usage = translate_usage(response)


def translate_usage(response: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a response cost, in the words of Chat Completions; None where it does not say.

    An answer is not worth less because its bill cannot be read.
    """
    usage = response.get("usage")
    counts = ("input_tokens", "output_tokens", "total_tokens")
    if not isinstance(usage, dict) or any(type(usage.get(name)) is not int for name in counts):
        return None
    translated = {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }
    for ours, theirs in (
        ("prompt_tokens_details", "input_tokens_details"),
        ("completion_tokens_details", "output_tokens_details"),
    ):
        if isinstance(details := usage.get(theirs), dict) and details:
            translated[ours] = details
    return translated


def _cancelled() -> ProviderRefused:
    """Somebody ended it there, ourselves perhaps before Redis forgot why: it is gone, as by 410."""
    return ProviderRefused(
        "provider_failed",
        "The answer was cancelled at its provider.",
        False,
        "cancelled",
        status=410,
    )


def _failed(code: Any, message: Any) -> ProviderRefused:
    return ProviderRefused(
        "provider_failed",
        "The model server failed in the middle of its answer.",
        code in _TRANSIENT,
        f"{code}: {message}"[:2000],
    )
