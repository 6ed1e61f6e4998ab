"""What a follower is given from a window."""

from api.sse import NATIVE, Dialect
from api.window import Window
from shared.ids import EntryId
from tests.support.sse_reader import Event, SseReader


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
