"""The newest entries of one log, shared by all its followers in this process.

floor          the entries kept                      last_id
  │   ┌──────┬──────┬──────┬──────┬──────┬──────┐       │
  └──►│      │      │      │      │      │      │◄──────┘
      └──────┴──────┴──────┴──────┴──────┴──────┘
                ▲ a follower is a cursor into it; below the floor it reads Redis
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from api.sse import Dialect
from shared.events import Entry
from shared.ids import EntryId, GenerationId

ENTRY_COST: Final = 400
"""Bytes an entry takes beside its data: its objects here and one frame, on CPython 3.11."""

MAX_PIECE: Final = 256
"""Entries a follower is given at once: what waits in its socket is bounded."""


class Window:
    """Entries in order of id, bounded in bytes, each framed at most once per dialect."""

    __slots__ = ("_bytes", "_entries", "_frames", "_ids", "_max_bytes", "floor", "generation")

    def __init__(self, generation: GenerationId, floor: EntryId, max_bytes: int) -> None:
        self.generation = generation
        self.floor = floor
        self._max_bytes = max_bytes
        self._bytes = 0
        self._ids: list[EntryId] = []
        self._entries: list[Entry] = []
        self._frames: dict[str, dict[EntryId, bytes]] = {}

    @property
    def last_id(self) -> EntryId:
        """The newest entry that was seen; the floor if none was."""
        return self._ids[-1] if self._ids else self.floor

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries beyond `last_id`, and let the oldest go where they exceed the bound."""
        for entry in entries:
            self._ids.append(entry.id)
            self._entries.append(entry)
            self._bytes += len(entry.data) + ENTRY_COST
        drop = 0
        while self._bytes > self._max_bytes and drop < len(self._entries) - 1:
            self._bytes -= len(self._entries[drop].data) + ENTRY_COST
            drop += 1
        if drop:
            self.floor = self._ids[drop - 1]
            for frames in self._frames.values():
                for entry_id in self._ids[:drop]:
                    frames.pop(entry_id, None)
            del self._ids[:drop], self._entries[:drop]

    def rebase(self, floor: EntryId) -> None:
        """Forget everything: the log itself went back to `floor`."""
        self.floor = floor
        self._bytes = 0
        self._ids.clear()
        self._entries.clear()
        self._frames.clear()

    def after(self, cursor: EntryId) -> list[Entry] | None:
        """Return the next entries beyond `cursor`; None if the window does not reach back to it."""
        if cursor < self.floor:
            return None
        start = bisect_right(self._ids, cursor)
        return self._entries[start : start + MAX_PIECE]

    def frames(self, dialect: Dialect, entries: Sequence[Entry]) -> bytes:
        """Return `entries`, which this window holds, framed for `dialect`."""
        known = self._frames.setdefault(dialect.name, {})
        pieces = []
        for entry in entries:
            frame = known.get(entry.id)
            if frame is None:
                frame = known[entry.id] = dialect.encode(self.generation, entry)
            pieces.append(frame)
        return b"".join(pieces)
