"""One generation before and after Redis lost its last writes, and what its readers saw."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.api_client import Reply
from tests.support.fold import (
    CLOSING_TYPES,
    RESET_ID,
    Entry,
    Folded,
    Position,
    fold,
    fold_log,
    position,
)
from tests.support.reader import Reader


@dataclass(slots=True)
class Story:
    """One generation through the loss."""

    prompt: str
    generation: str
    stayed: Reader
    """Follows all the time."""
    came_back: Reader
    """Was away while Redis was, with all that Redis lost; came back once it answered."""
    late: Reader | None = None
    """Came for the first time when all was over."""
    cursor: str = ""
    """The newest id that `came_back` took with it."""
    before: list[Entry] = field(default_factory=list)
    """The log when Redis died: every entry was acknowledged."""
    kept: list[Entry] = field(default_factory=list)
    """The log when Redis was back and nobody had reached it."""
    after: list[Entry] = field(default_factory=list)
    """The log in the end."""
    shown: dict[str, Any] = field(default_factory=dict)
    """The snapshot in the end."""
    recovered_s: float = float("inf")
    """From the moment Redis answered until the log was repaired, or had a new owner."""
    asked: int = 0
    """How often the model was asked."""

    @property
    def readers(self) -> list[Reader]:
        """All who followed."""
        return [self.stayed, self.came_back] + ([self.late] if self.late else [])

    @property
    def folded(self) -> Folded:
        """What every reader must hold in the end. Raises: AssertionError, a broken invariant."""
        return fold_log(self.after)

    @property
    def is_closed(self) -> bool:
        """Whether the log ends, as far as it was last read."""
        return bool(self.after) and self.after[-1][1][b"t"].decode() in CLOSING_TYPES

    @property
    def outcome(self) -> tuple[str | None, str]:
        """How it ended and what it says: for the log, whose record and snapshot say the same."""
        folded = self.folded
        shown = (self.shown["status"], self.shown["text"], self.shown["last_event_id"])
        assert shown == (folded.closing_type, folded.text, folded.last_event_id)
        return folded.closing_type, folded.text

    def check_something_was_lost(self) -> None:
        """Raises AssertionError unless entries vanished that were acknowledged, and read."""
        assert self.before[: len(self.kept)] == self.kept, "kept is not how the log began"
        assert len(self.kept) < len(self.before), "nothing was lost"
        assert self.cursor in (entry_id.decode() for entry_id, _ in self.before)
        if self.kept:
            assert position(self.cursor) > position(self.kept[-1][0].decode())


@dataclass(slots=True)
class Seen:
    """What one loss showed."""

    stories: dict[str, Story]
    again: Reply
    """The answer to the repeated request for what was `created`."""
    left: list[str]
    """Jobs, owners and provider calls that are there for no reason in the end."""


def positions(log: list[Entry]) -> list[Position]:
    """The ids of a log."""
    return [position(entry_id.decode()) for entry_id, _ in log]


def kinds(log: list[Entry]) -> list[str]:
    """The types of a log's entries."""
    return [fields[b"t"].decode() for _, fields in log]


def held(reader: Reader) -> Folded:
    """What a reader holds: everything since it was last told that its cursor leads nowhere."""
    events = reader.events
    lost = [at for at, event in enumerate(events) if event.last_event_id == RESET_ID]
    return fold(events[lost[-1] :] if lost else events)


def _is_repaired(story: Story, log: list[Entry]) -> bool:
    return log[: len(story.before)] == story.before


def _is_cancelled_again(_: Story, log: list[Entry]) -> bool:
    return kinds(log)[-1:] == ["cancelled"]


def _is_taken_over(story: Story, log: list[Entry]) -> bool:
    fresh = log[len(story.kept) :]
    return "started" in kinds([entry for entry in fresh if entry not in story.before])


def _is_told(story: Story, _: list[Entry]) -> bool:
    return story.stayed.has_ended and story.came_back.has_ended


RECOVERED: Final[dict[str, Callable[[Story, list[Entry]], bool]]] = {
    "speaking": _is_repaired,
    "silent": _is_repaired,
    "ending": _is_repaired,
    "cancelled": _is_cancelled_again,
    "deleted": _is_cancelled_again,
    "claimed": _is_taken_over,
    "claimed_silent": _is_taken_over,
    "created": _is_told,
    "orphaned": _is_taken_over,
}
"""When a log is as it should be again, given what is in it now."""
