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
from shared.events import Entry, EventType
from shared.ids import EntryId, GenerationId

ENTRY_COST: Final = 250
"""Bytes an entry takes beside its data: its numbers here and one frame, on CPython 3.11."""

MAX_PIECE: Final = 256
"""Entries a follower is given at once: what waits in its socket is bounded."""

_SEQ_BITS: Final = 64
_SEQ_MASK: Final = 2**_SEQ_BITS - 1
"""Both halves of an id in one number, which compares as the id does."""


class Window:
    """Entries in order of id, bounded in bytes, each framed at most once per dialect.

    Kept as numbers and bytes, which Python's cyclic collector does not look at: half a million
    kept tuples made it pause for 150 ms.
    """

    __slots__ = (
        "_bytes",
        "_data",
        "_frames",
        "_max_bytes",
        "_places",
        "_types",
        "floor",
        "generation",
    )

    def __init__(self, generation: GenerationId, floor: EntryId, max_bytes: int) -> None:
        self.generation = generation
        self.floor = floor
        self._max_bytes = max_bytes
        self._bytes = 0
        self._places: list[int] = []
        self._types: list[EventType] = []
        self._data: list[bytes] = []
        self._frames: dict[str, list[bytes]] = {}

    @property
    def last_id(self) -> EntryId:
        """The newest entry that was seen; the floor if none was."""
        return _id(self._places[-1]) if self._places else self.floor

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries beyond `last_id`, and let the oldest go where they exceed the bound."""
        for (epoch, seq), kind, data in entries:
            self._places.append(epoch << _SEQ_BITS | seq)
            self._types.append(kind)
            self._data.append(data)
            self._bytes += len(data) + ENTRY_COST
        for frames in self._frames.values():
            frames.extend([b""] * len(entries))
        drop = 0
        while self._bytes > self._max_bytes and drop < len(self._data) - 1:
            self._bytes -= len(self._data[drop]) + ENTRY_COST
            drop += 1
        if drop:
            self.floor = _id(self._places[drop - 1])
            del self._places[:drop], self._types[:drop], self._data[:drop]
            for frames in self._frames.values():
                del frames[:drop]

    def rebase(self, floor: EntryId) -> None:
        """Forget everything: the log itself went back to `floor`."""
        self.floor = floor
        self._bytes = 0
        self._places.clear()
        self._types.clear()
        self._data.clear()
        self._frames.clear()

    def after(self, cursor: EntryId) -> list[Entry] | None:
        """Return the next entries beyond `cursor`; None if the window does not reach back to it."""
        if cursor < self.floor:
            return None
        start = self._find(cursor)
        end = min(start + MAX_PIECE, len(self._places))
        return [
            Entry(_id(self._places[i]), self._types[i], self._data[i]) for i in range(start, end)
        ]

    def frames(self, dialect: Dialect, entries: Sequence[Entry]) -> bytes:
        """Return `entries`, which this window holds in a row, framed for `dialect`."""
        known = self._frames.get(dialect.name)
        if known is None:
            known = self._frames[dialect.name] = [b""] * len(self._data)
        if not entries:
            return b""
        start = self._find(entries[0].id) - 1
        for i, entry in enumerate(entries, start):
            if not known[i]:
                known[i] = dialect.encode(self.generation, entry)
        return b"".join(known[start : start + len(entries)])

    def _find(self, cursor: EntryId) -> int:
        """Return the index of the first entry beyond `cursor`."""
        return bisect_right(self._places, cursor.epoch << _SEQ_BITS | cursor.seq)


def _id(place: int) -> EntryId:
    return EntryId(place >> _SEQ_BITS, place & _SEQ_MASK)
