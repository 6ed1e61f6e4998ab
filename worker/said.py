"""What a generation has said so far, as a later attempt must know it."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from shared.events import JOINABLE, Answer, Event, EventType

BYTES_PER_TOKEN: Final = 4
"""Source: OpenAI's rule of thumb for English text."""


@dataclass(slots=True)
class Said:
    """The text that stands in the log, and whether there is more than text."""

    texts: list[str] = field(default_factory=list)
    has_more: bool = False
    """Reasoning, a refusal or tool calls, which no prefix can carry."""
    tool_calls: int = 0
    """How many calls were begun."""
    size: int = 0
    """Bytes of UTF-8 in all."""

    @classmethod
    def read(cls, answer: Answer) -> "Said":
        """Return what an earlier owner left in the log."""
        text = answer.text
        calls = answer.tool_calls
        more = bool(answer.reasoning or answer.refusal or calls)
        rest = (
            answer.reasoning + answer.refusal + "".join(call.arguments for call in calls.values())
        )
        size = len(text.encode(errors="surrogatepass")) + len(rest.encode(errors="surrogatepass"))
        return cls([text] if text else [], more, len(calls), size)

    def add(self, event: Event) -> None:
        """Take note of one event before it is written."""
        text: str = event.data.get("text") or event.data.get("arguments", "")
        self.size += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        if event.type is EventType.TOKEN:
            self.texts.append(text)
        elif event.type is EventType.TOOL_CALL:
            self.has_more = True
            self.tool_calls = max(self.tool_calls, event.data["index"] + 1)
        elif event.type in JOINABLE:
            self.has_more = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that a client would have to forget."""
        return not self.texts and not self.has_more

    @property
    def is_only_text(self) -> bool:
        """Whether a prefix can carry all of it."""
        return bool(self.texts) and not self.has_more

    def estimate_usage(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return about what this much of an answer to `request` costs, marked as an estimate."""
        asked = len(json.dumps(request.get("messages"), ensure_ascii=False))
        prompt, completion = (-(-size // BYTES_PER_TOKEN) for size in (asked, self.size))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "estimated": True,
        }

    def extend(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return `request` with the text so far as the assistant's prefix."""
        if not self.texts:
            return request
        prefix = {"role": "assistant", "content": "".join(self.texts)}
        return {**request, "messages": [*request["messages"], prefix]}
