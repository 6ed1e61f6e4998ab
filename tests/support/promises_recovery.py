"""What a client saw of one worker's end: how long there was silence, and whether it was told right.

All times are Unix seconds of one host, Redis' TIME included.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.support.fold import Folded, fold
from tests.support.follower import Follower
from tests.support.sse_reader import Event
from tests.support.stack import expected_text


@dataclass(slots=True)
class Recovery:
    """What happened from the blow on."""

    prompt: str
    lease_s: float
    """The length of a lease."""
    struck_at: float
    held: str
    """What the client held of the struck worker's attempt, all that was under way included."""
    folded: Folded
    """What it held in the end."""
    calls: Sequence[Mapping[str, Any]]
    """Of the stand-in's ledger: how the model was asked for it."""
    lapsed_at: float
    marked_at: float
    taken_at: float
    text_at: float
    """When the client had the first text of the next attempt."""
    beyond_at: float
    """When it had the first text beyond what it held."""

    @property
    def took(self) -> timedelta:
        """From the blow to the next attempt's first text."""
        return timedelta(seconds=self.text_at - self.struck_at)

    @property
    def asked_at(self) -> float:
        """When the model had the last of the requests for it, be it to follow what runs there."""
        times = [call["received_at"] for call in self.calls]
        times += [each["received_at"] for call in self.calls for each in call["retrieves"]]
        return float(max(times))

    @property
    def phase(self) -> float:
        """Seconds between the last renewal of the lease and the blow."""
        return self.struck_at - (self.lapsed_at - self.lease_s)

    @property
    def share(self) -> float:
        """The part of the text that was said by then."""
        return len(self.held) / len(expected_text(self.prompt))

    def check(self, resume: str, continues: Sequence[int | None]) -> None:
        """Whether the answer is byte-right, by that rung, and asked for as it should be."""
        assert self.folded.closing_type == "done", self.folded.closing_data
        assert self.folded.text == expected_text(self.prompt)
        assert [attempt["resume"] for attempt in self.folded.attempts] == ["fresh", resume]
        assert [call["continues"] for call in self.calls] == list(continues)


@dataclass(slots=True)
class Watched:
    """What a client has seen, and when."""

    seen: list[tuple[float, Event]] = field(default_factory=list)
    length: int = 0

    async def read(self, follower: Follower) -> None:
        """Read to the end of the response."""
        async for event in follower:
            self.seen.append((time.time(), event))
            self.length += len(_text(event))

    @property
    def events(self) -> list[Event]:
        return [event for _, event in self.seen]

    def time_of(self, kind: str, since: float = 0.0) -> float | None:
        """When the first of that type came."""
        return next((at for at, event in self.seen if event.type == kind and at > since), None)

    def tell(self) -> tuple[str, float, float]:
        """What the first attempt had said, when the second's text came, and when there was more."""
        starts = [n for n, (_, event) in enumerate(self.seen) if event.type == "started"]
        assert len(starts) == 2, f"{len(starts)} attempts: {self.events[-3:]}"
        held, text, text_at = fold(self.events[: starts[1]]).text, "", 0.0
        is_kept = all(event.type != "reset" for event in self.events)
        for at, event in self.seen[starts[1] :]:
            text += _text(event)
            text_at = text_at or (at if text else 0.0)
            if len(text) > (0 if is_kept else len(held)):
                return held, text_at, at
        raise AssertionError("nothing came beyond what the client held")


def _text(event: Event) -> str:
    return str(json.loads(event.data)["text"]) if event.type == "token" else ""
