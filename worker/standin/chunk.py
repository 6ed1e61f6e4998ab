"""The server-sent events of one Chat Completions answer, as bytes.

    data: {"id":…,"object":"chat.completion.chunk","created":…,"model":…,
           "choices":[{"index":0,"delta":{…},"logprobs":null,"finish_reason":null}]}

Everything around the delta is encoded once per answer. Characters beyond ASCII travel as UTF-8,
U+2028 included: as from real servers, and harder on whoever splits lines.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from worker.standin.script import Delta

DONE = b"data: [DONE]\n\n"


class ChunkEncoder:
    """Encodes the chunks of one answer."""

    def __init__(self, *, answer_id: str, created: int, model: str, include_usage: bool) -> None:
        head = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._answer_id = answer_id
        self._head = b"data: " + to_json(head)[:-1]
        self._prefix = self._head + b',"choices":[{"index":0,"delta":'
        # Source: with include_usage every chunk has the member, null in all but the last.
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._suffix = b',"logprobs":null,"finish_reason":null}]' + self._end

    def role(self) -> bytes:
        """The first chunk."""
        return self._prefix + b'{"role":"assistant","content":""}' + self._suffix

    def delta(self, delta: Delta) -> bytes:
        """A chunk that carries one piece."""
        if delta.field == "tool_name":
            return self._prefix + _tool_head(self._answer_id, delta) + self._suffix
        return self._prefix + _delta_json(delta) + self._suffix

    def finish(self, reason: str) -> bytes:
        """The chunk that says why the answer ended."""
        choice = b'{},"logprobs":null,"finish_reason":' + to_json(reason) + b"}]"
        return self._prefix + choice + self._end

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """The last chunk, which has no choice."""
        return self._head + b',"choices":[],"usage":' + to_json(usage) + b"}\n\n"


def to_json(value: Any) -> bytes:
    """Compact UTF-8; a lone surrogate, which has no UTF-8, becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace")


def tool_call_id(answer_id: str, index: int) -> str:
    """The id of an answer's index-th tool call."""
    return f"call_{answer_id.removeprefix('chatcmpl-')}_{index}"


def _tool_head(answer_id: str, delta: Delta) -> bytes:
    call = {
        "index": delta.call,
        "id": tool_call_id(answer_id, delta.call),
        "type": "function",
        "function": {"name": delta.text, "arguments": ""},
    }
    return to_json({"tool_calls": [call]})


@lru_cache(maxsize=16_384)
def _delta_json(delta: Delta) -> bytes:
    match delta.field:
        case "reasoning":
            return to_json({"reasoning_content": delta.text})
        case "tool_arguments":
            call = {"index": delta.call, "function": {"arguments": delta.text}}
            return to_json({"tool_calls": [call]})
        case field:
            return to_json({field: delta.text})
