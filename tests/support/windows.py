"""A log that is followed, and what a follower is given from its window."""

from collections.abc import Iterator
from contextlib import contextmanager

from api.followed import FollowedLog
from api.hub import Hub
from api.sse import NATIVE, Dialect
from api.window import Window
from shared.ids import EntryId, GenerationId
from tests.support.sse_reader import Event, SseReader


@contextmanager
def following(hub: Hub, generation: GenerationId, last_id: EntryId) -> Iterator[FollowedLog]:
    """Follow one log, of which `last_id` is known to exist."""
    followed = hub.join(generation, last_id)
    try:
        yield followed
    finally:
        hub.leave(followed)


def read_all(window: Window, cursor: EntryId, dialect: Dialect = NATIVE) -> list[Event] | None:
    """All that lies beyond `cursor`, piece by piece; None where the window does not reach it."""
    if not window.reaches(cursor):
        return None
    reader, events = SseReader(), list[Event]()
    while (piece := window.read(cursor, dialect)) is not None:
        assert piece.frames
        assert piece.stands_on == cursor
        events += reader.feed(piece.frames)
        cursor = piece.last_id
    return events
