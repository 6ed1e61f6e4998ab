"""What a generation has said so far, as a later attempt must know it."""

from dataclasses import dataclass, field
from typing import Any

from shared.events import JOINABLE, Answer, Event, EventType
from worker.newlines import LineFeeds


@dataclass(slots=True)
class Said:
    """The text that stands in the log, and whether there is more than text."""

    texts: list[str] = field(default_factory=list)
    has_more: bool = False
    """Reasoning, a refusal or tool calls, which no prefix can carry."""
    size: int = 0
    """Bytes of UTF-8 in all."""
    line_feeds: LineFeeds = field(default_factory=LineFeeds)

    @classmethod
    def read(cls, answer: Answer) -> "Said":
        """Return what an earlier owner left in the log."""
        text = answer.text
        more = bool(answer.reasoning or answer.refusal or answer.tool_calls)
        return cls([text] if text else [], more, len(text.encode()))

    def add(self, event: Event) -> None:
        """Take note of one event before it is written."""
        text: str = event.data.get("text") or event.data.get("arguments", "")
        self.size += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        if event.type is EventType.TOKEN:
            self.texts.append(text)
        elif event.type in JOINABLE or event.type is EventType.TOOL_CALL:
            self.has_more = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that a client would have to forget."""
        return not self.texts and not self.has_more

    @property
    def is_only_text(self) -> bool:
        """Whether a prefix can carry all of it."""
        return bool(self.texts) and not self.has_more

    def extend(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return `request` with the text so far as the assistant's prefix."""
        if not self.texts:
            return request
        prefix = {"role": "assistant", "content": "".join(self.texts)}
        return {**request, "messages": [*request["messages"], prefix]}
