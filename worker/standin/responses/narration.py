"""What a response says of itself: its events, numbered from 0 without a hole, and its object.

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_…", …}

created · (queued) · in_progress · items, one after the other · completed, incomplete or failed.
"""

import time
from typing import Any, Literal, NamedTuple

from worker.standin.chunk import to_json
from worker.standin.responses.item import Frame, Item, Status
from worker.standin.responses.request import ResponsesRequest
from worker.standin.script import Delta

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

_INCOMPLETE_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
# What OpenAI's object says of a parameter nobody gave.
_PARAMETERS: dict[str, Any] = {
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}


class Event(NamedTuple):
    """One server-sent event, encoded."""

    number: int
    data: bytes
    token: bool
    """Whether it carries output: one of the script's deltas."""
    last: bool


class Narration:
    """The events of one response, and the response as they tell it."""

    def __init__(
        self,
        response_id: str,
        asked: ResponsesRequest,
        *,
        created_at: float,
        prompt_tokens: int,
        with_usage: bool,
    ) -> None:
        self.status: ResponseStatus = "queued" if asked.background else "in_progress"
        self._response_id = response_id
        self._asked = asked
        self._created_at = int(created_at)
        self._prompt_tokens = prompt_tokens
        self._with_usage = with_usage
        self._number = 0
        self._items: list[Item] = []
        self._item_open = False
        self._tokens = self._reasoning_tokens = 0
        self._completed_at: int | None = None
        self._error: dict[str, Any] | None = None
        self._incomplete: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether the last event was told."""
        return self.status not in ("queued", "in_progress")

    @property
    def opening_events(self) -> int:
        """How many events come before anything is said."""
        return 3 if self._asked.background else 2

    def open(self) -> list[Event]:
        """The events before anything is said."""
        frames = ["response.created", "response.queued"]
        events = [self._lifecycle(name) for name in frames[: self.opening_events - 1]]
        self.status = "in_progress"
        return [*events, self._lifecycle("response.in_progress")]

    def tell(self, delta: Delta) -> list[Event]:
        """The events of one delta; one of them carries it."""
        self._tokens += 1
        self._reasoning_tokens += delta.field == "reasoning"
        events: list[Event] = []
        if not self._item_open or not self._items[-1].takes(delta):
            events += self._close_item("completed")
            self._items.append(Item(delta, len(self._items), self._suffix))
            self._item_open = True
            opening = self._items[-1].open()
            events += [self._event(frame) for frame in opening]
        if delta.field == "tool_name":
            return [*events[:-1], events[-1]._replace(token=True)]
        return [*events, self._event(self._items[-1].grow(delta.text), token=True)]

    def finish(self, reason: str) -> list[Event]:
        """The events behind the last delta, by Chat Completions' `finish_reason`."""
        if reason not in _INCOMPLETE_REASONS:
            self._completed_at = int(time.time())
            return self._end("completed", "completed")
        self._incomplete = {"reason": _INCOMPLETE_REASONS[reason]}
        return self._end("incomplete", "incomplete")

    def fail(self, code: str, message: str) -> list[Event]:
        """The events of an answer that goes no further."""
        self._error = {"code": code, "message": message}
        return self._end("failed", "incomplete")

    def cancel(self) -> list[Event]:
        """The events of an answer that nobody wants any more; there is no type of its own."""
        return self._end("cancelled", "incomplete")

    def as_json(self) -> dict[str, Any]:
        """The response as it stands now."""
        given = self._asked.parameters
        parameters = {
            n: given[n] if given.get(n) is not None else d for n, d in _PARAMETERS.items()
        }
        return {
            "id": self._response_id,
            "object": "response",
            "created_at": self._created_at,
            "status": self.status,
            "background": self._asked.background,
            "completed_at": self._completed_at,
            "error": self._error,
            "incomplete_details": self._incomplete,
            "instructions": self._asked.instructions,
            "model": self._asked.model,
            "output": [item.as_json for item in self._items],
            "usage": self._usage(),
            **parameters,
        }

    @property
    def _suffix(self) -> str:
        return self._response_id.removeprefix("resp_")

    def _end(self, status: ResponseStatus, item_status: Status) -> list[Event]:
        events = self._close_item(item_status)
        self.status = status
        name = "incomplete" if status == "cancelled" else status
        return [*events, self._lifecycle(f"response.{name}")._replace(last=True)]

    def _close_item(self, status: Status) -> list[Event]:
        if not self._item_open:
            return []
        self._item_open = False
        return [self._event(frame) for frame in self._items[-1].close(status)]

    def _lifecycle(self, name: str) -> Event:
        return self._event((name, {"response": self.as_json()}))

    def _event(self, frame: Frame, *, token: bool = False) -> Event:
        name, fields = frame
        number, self._number = self._number, self._number + 1
        data = to_json({"type": name, "sequence_number": number, **fields})
        return Event(number, b"event: %b\ndata: %b\n\n" % (name.encode(), data), token, False)

    def _usage(self) -> dict[str, Any] | None:
        if not self.ended or not self._with_usage:
            return None
        return {
            "input_tokens": self._prompt_tokens,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": self._tokens,
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": self._prompt_tokens + self._tokens,
        }
