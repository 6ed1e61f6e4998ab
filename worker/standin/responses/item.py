"""One output item of a response, from the event that opens it to the one that closes it."""

from typing import Any, Literal

from worker.standin.script import Delta

Frame = tuple[str, dict[str, Any]]
"""An event's type and its fields, but for the sequence number."""

Status = Literal["in_progress", "completed", "incomplete"]

_ID_PREFIXES = {"reasoning": "rs", "content": "msg", "refusal": "msg", "tool": "fc"}


class Item:
    """A reasoning, a message of text or of refusal, or a call of a function.

    `kind` is the field of the deltas it takes; both of a tool call's go into one item.
    """

    def __init__(self, first: Delta, index: int, suffix: str) -> None:
        self.kind = kind_of(first)
        self._index = index
        self._call = first.call
        self._id = f"{_ID_PREFIXES[self.kind]}_{suffix}_{index}"
        self._call_id = f"call_{suffix}_{index}"
        self._name = first.text if first.field == "tool_name" else ""
        self._pieces: list[str] = []
        self._status: Status = "in_progress"

    @property
    def as_json(self) -> dict[str, Any]:
        """The item as it stands now."""
        text = "".join(self._pieces)
        match self.kind:
            case "reasoning":
                summary = [self._part] if text else []
                return {"id": self._id, "type": "reasoning", "summary": summary}
            case "tool":
                return {
                    "id": self._id,
                    "type": "function_call",
                    "call_id": self._call_id,
                    "name": self._name,
                    "arguments": text,
                    "status": self._status,
                }
            case _:
                return {
                    "id": self._id,
                    "type": "message",
                    "role": "assistant",
                    "status": self._status,
                    "content": [self._part] if text else [],
                }

    def takes(self, delta: Delta) -> bool:
        """Whether the delta belongs into this item."""
        return self.kind == kind_of(delta) and self._call == delta.call

    def open(self) -> list[Frame]:
        """What is said before its first delta."""
        frames: list[Frame] = [("response.output_item.added", self._with_index(item=self.as_json))]
        match self.kind:
            case "reasoning":
                added = self._in_summary(part=self._part)
                frames.append(("response.reasoning_summary_part.added", added))
            case "content" | "refusal":
                frames.append(("response.content_part.added", self._in_content(part=self._part)))
        return frames

    def grow(self, text: str) -> Frame:
        """What is said of one delta."""
        self._pieces.append(text)
        match self.kind:
            case "reasoning":
                return "response.reasoning_summary_text.delta", self._in_summary(delta=text)
            case "content":
                return "response.output_text.delta", self._in_content(delta=text, logprobs=[])
            case "refusal":
                return "response.refusal.delta", self._in_content(delta=text)
            case _:
                return "response.function_call_arguments.delta", self._in_item(delta=text)

    def close(self, status: Status) -> list[Frame]:
        """What is said behind its last delta."""
        self._status = status
        text = "".join(self._pieces)
        frames: list[Frame] = []
        match self.kind:
            case "reasoning":
                done = self._in_summary(part=self._part)
                frames = [
                    ("response.reasoning_summary_text.done", self._in_summary(text=text)),
                    ("response.reasoning_summary_part.done", done),
                ]
            case "content":
                done = self._in_content(text=text, logprobs=[])
                frames = [("response.output_text.done", done), self._part_done]
            case "refusal":
                done = self._in_content(refusal=text)
                frames = [("response.refusal.done", done), self._part_done]
            case _:
                done = self._in_item(name=self._name, arguments=text)
                frames = [("response.function_call_arguments.done", done)]
        frames.append(("response.output_item.done", self._with_index(item=self.as_json)))
        return frames

    @property
    def _part(self) -> dict[str, Any]:
        text = "".join(self._pieces)
        match self.kind:
            case "reasoning":
                return {"type": "summary_text", "text": text}
            case "refusal":
                return {"type": "refusal", "refusal": text}
            case _:
                return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    @property
    def _part_done(self) -> Frame:
        return "response.content_part.done", self._in_content(part=self._part)

    def _with_index(self, **fields: Any) -> dict[str, Any]:
        return {"output_index": self._index, **fields}

    def _in_item(self, **fields: Any) -> dict[str, Any]:
        return {"item_id": self._id, "output_index": self._index, **fields}

    def _in_content(self, **fields: Any) -> dict[str, Any]:
        return self._in_item(content_index=0, **fields)

    def _in_summary(self, **fields: Any) -> dict[str, Any]:
        return self._in_item(summary_index=0, **fields)


def kind_of(delta: Delta) -> Literal["reasoning", "content", "refusal", "tool"]:
    """What sort of item a delta belongs into."""
    match delta.field:
        case "tool_name" | "tool_arguments":
            return "tool"
        case field:
            return field
