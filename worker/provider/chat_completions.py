"""Chat Completions: what every model server speaks. Its answers end with their connection."""

from typing import Any, Final

from shared.events import Event, EventType
from worker.provider.answer import AnswerStream, require

PATH: Final = "/chat/completions"

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


def build_body(request: dict[str, Any], model: str) -> dict[str, Any]:
    """Return what is sent for `request`."""
    return {**request, **_OWNED, "model": model}


class ChatStream(AnswerStream):
    """One streamed chat completion."""

    def _translate(self, chunk: dict[str, Any]) -> None:
        if isinstance(usage := chunk.get("usage"), dict) and usage:
            self.finish.usage = usage
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            self._translate_delta(choice.get("delta") or {})
            self.finish.reason = choice.get("finish_reason") or self.finish.reason

    def _translate_delta(self, delta: dict[str, Any]) -> None:
        for field, kind in _TEXT_DELTAS:
            if text := delta.get(field):
                self._say(kind, text)
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            data: dict[str, Any] = {"index": require(call.get("index", 0), int)}
            if call.get("id") is not None:
                data["id"] = require(call["id"], str)
            if function.get("name") is not None:
                data["name"] = require(function["name"], str)
            data["arguments"] = require(function.get("arguments") or "", str)
            self._hand_out(Event(EventType.TOOL_CALL, data))
