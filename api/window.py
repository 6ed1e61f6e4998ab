"""The newest entries of one log, shared by all its followers in this process.

floor          the entries kept                      last_id
  │   ┌──────┬──────┬──────┬──────┬──────┬──────┐       │
  └──►│      │      │      │      │      │      │◄──────┘
      └──────┴──────┴──────┴──────┴──────┴──────┘
                ▲ a follower is a cursor into it; below the floor it reads Redis

Who is behind is told in blocks of neighbouring entries, joined and framed once for everybody.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from api.sse import MAX_JOINED, Dialect, encode_history, join_data
from shared.events import CLOSING, Entry, EventType, predecessor
from shared.ids import EntryId, GenerationId

ENTRY_COST: Final = 120
"""Bytes an entry takes beside its data, which is kept a second time in the frame of its block."""

BLOCK: Final = 64
"""Entries of one epoch that are joined and framed together. A power of two."""

MAX_PIECE: Final = 64 * 1024
"""Bytes after which a follower is given the rest another time: what waits in its socket is
bounded.
"""

_SEQ_BITS: Final = 64
_SEQ_MASK: Final = 2**_SEQ_BITS - 1
"""Both halves of an id in one number, which compares as the id does."""


class Piece(NamedTuple):
    """Entries in a row, framed."""

    stands_on: EntryId
    last_id: EntryId
    ends: bool
    """Whether the last one closes the log."""
    frames: bytes


class Window:
    """Entries in order of id, bounded in bytes.

    Kept as numbers and bytes, which Python's cyclic collector does not look at: half a million
    kept tuples made it pause for 150 ms.
    """

    __slots__ = (
        "_blocks",
        "_bytes",
        "_data",
        "_max_bytes",
        "_places",
        "_types",
        "floor",
        "generation",
        "has_reached_back",
    )

    def __init__(self, generation: GenerationId, floor: EntryId, max_bytes: int) -> None:
        self.generation = generation
        self.floor = floor
        self.has_reached_back = False
        """Whether it was filled with what came before, as far as there was room."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._places: list[int] = []
        self._types: list[EventType] = []
        self._data: list[bytes] = []
        self._blocks: dict[str, dict[int, bytes]] = {}
        """Frames of blocks, as far as they go, by dialect and by the place of their first entry."""

    @property
    def last_id(self) -> EntryId:
        """The newest entry that was seen; the floor if none was."""
        return _id(self._places[-1]) if self._places else self.floor

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries beyond `last_id`, and let the oldest go where they exceed the bound."""
        if self._places and entries:
            # The last block goes on.
            for blocks in self._blocks.values():
                blocks.pop(self._places[-1] & -BLOCK, None)
        for (epoch, seq), kind, data in entries:
            self._places.append(epoch << _SEQ_BITS | seq)
            self._types.append(kind)
            self._data.append(data)
            self._bytes += _cost(data)
        drop = 0
        while self._bytes > self._max_bytes and drop < len(self._data) - 1:
            self._bytes -= _cost(self._data[drop])
            drop += 1
        if drop:
            self.floor = _id(self._places[drop - 1])
            del self._places[:drop], self._types[:drop], self._data[:drop]
            for blocks in self._blocks.values():
                for place in [place for place in blocks if place < self._places[0]]:
                    del blocks[place]

    def add_before(self, entries: Sequence[Entry]) -> bool:
        """Add what the floor stands on, the newest of it first; False if not all of it has room."""
        if not entries or entries[-1].id != self.floor:
            return False
        start = len(entries)
        while start:
            cost = _cost(entries[start - 1].data)
            if self._bytes + cost > self._max_bytes:
                break
            self._bytes += cost
            start -= 1
        fresh = entries[start:]
        if fresh:
            self.floor = predecessor(fresh[0])
            self._places[:0] = [_place(entry.id) for entry in fresh]
            self._types[:0] = [entry.type for entry in fresh]
            self._data[:0] = [entry.data for entry in fresh]
        return start == 0

    def rebase(self, floor: EntryId) -> None:
        """Forget everything: the log itself went back to `floor`."""
        self.floor = floor
        self.has_reached_back = False
        self._bytes = 0
        self._places.clear()
        self._types.clear()
        self._data.clear()
        self._blocks.clear()

    def reaches(self, cursor: EntryId) -> bool:
        """Whether it holds everything beyond `cursor` that was seen."""
        return cursor >= self.floor

    def read(self, cursor: EntryId, dialect: Dialect) -> Piece | None:
        """Return what comes next beyond `cursor`, which it reaches; None if nothing does yet."""
        places = self._places
        start = bisect_right(places, _place(cursor))
        if start == len(places):
            return None
        stands_on = predecessor(self._entry(start))
        frames: list[bytes] = []
        size, at = 0, start
        while at < len(places) and size < MAX_PIECE:
            end = self._end_of_block(at)
            frames.append(self._frame(dialect, at, end))
            size += len(frames[-1])
            at = end
        return Piece(
            stands_on, _id(places[at - 1]), self._types[at - 1] in CLOSING, b"".join(frames)
        )

    def _end_of_block(self, at: int) -> int:
        """Return the index behind the block that the entry at `at` belongs to."""
        places = self._places
        last = places[at] | (BLOCK - 1)
        end = at + last - places[at] + 1
        # Nearly always: ids without a hole.
        if end <= len(places) and places[end - 1] == last:
            return end
        return bisect_right(places, last, at)

    def _frame(self, dialect: Dialect, start: int, end: int) -> bytes:
        """Return the frames of entries of one block, kept for others if it begins with them."""
        place = self._places[start]
        if place & (BLOCK - 1):
            return self._encode(dialect, start, end)
        blocks = self._blocks.get(dialect.name)
        if blocks is None:
            blocks = self._blocks[dialect.name] = {}
        frames = blocks.get(place)
        if frames is None:
            frames = blocks[place] = self._encode(dialect, start, end)
        return frames

    def _encode(self, dialect: Dialect, start: int, end: int) -> bytes:
        texts = self._data[start:end]
        # Nearly always: a tenth of the time that entries take which are made to be joined.
        if self._types[start:end].count(EventType.TOKEN) == len(texts) and (
            sum(map(len, texts)) <= MAX_JOINED
        ):
            joined = Entry(_id(self._places[end - 1]), EventType.TOKEN, join_data(texts))
            return dialect.encode(self.generation, joined)
        entries = [self._entry(at) for at in range(start, end)]
        return encode_history(dialect, self.generation, entries)

    def _entry(self, at: int) -> Entry:
        return Entry(_id(self._places[at]), self._types[at], self._data[at])


def _cost(data: bytes) -> int:
    return 2 * len(data) + ENTRY_COST


def _place(entry_id: EntryId) -> int:
    return entry_id.epoch << _SEQ_BITS | entry_id.seq


def _id(place: int) -> EntryId:
    return EntryId(place >> _SEQ_BITS, place & _SEQ_MASK)
