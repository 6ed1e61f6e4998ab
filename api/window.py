"""The newest entries of one log, shared by all its followers in this process.

floor          the entries kept                      last_id
  │   ┌──────┬──────┬──────┬──────┬──────┬──────┐       │
  └──►│      │      │      │      │      │      │◄──────┘
      └──────┴──────┴──────┴──────┴──────┴──────┘
                ▲ a follower is a cursor into it; below the floor it reads Redis

Who is behind is told in blocks of neighbouring entries, joined and framed once for everybody.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from api.sse import Dialect, encode_run
from shared.events import CLOSING, Run
from shared.ids import EntryId, GenerationId

ENTRY_COST: Final = 120
"""Bytes an entry takes beside its data, which is kept a second time in the frame of its block."""

BLOCK: Final = 64
"""Entries of one epoch that are joined and framed together. A power of two."""

MAX_PIECE: Final = 64 * 1024
"""Bytes after which a follower is given the rest another time: what waits in its socket is
bounded.
"""


class Piece(NamedTuple):
    """Entries in a row, framed."""

    stands_on: EntryId
    last_id: EntryId
    ends: bool
    """Whether the last one closes the log."""
    frames: bytes


class Window:
    """Entries in order of id, bounded in bytes.

    Kept as runs, mostly one for each epoch: half a million kept entries made Python's cyclic
    collector pause for 150 ms.
    """

    __slots__ = (
        "_blocks",
        "_bytes",
        "_max_bytes",
        "_runs",
        "floor",
        "generation",
        "has_reached_back",
        "last_id",
    )

    def __init__(self, generation: GenerationId, floor: EntryId, max_bytes: int) -> None:
        self.generation = generation
        self.floor = floor
        self.last_id = floor
        """The newest entry that was seen; the floor if none was."""
        self.has_reached_back = False
        """Whether it was filled with what came before, as far as there was room."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._runs: list[Run] = []
        self._blocks: dict[str, dict[EntryId, bytes]] = {}
        """Frames of blocks, as far as they go, by dialect and by the id that a block begins at."""

    def add(self, runs: Sequence[Run]) -> None:
        """Add entries beyond `last_id`, and let the oldest go where they exceed the bound."""
        if not runs:
            return
        if self._blocks:
            # The last block goes on.
            for blocks in self._blocks.values():
                blocks.pop(_find_block(self.last_id), None)
        for run in runs:
            self._bytes += _cost(run.data)
            (epoch, seq), last_id = run.first, self.last_id
            if self._runs and epoch == last_id.epoch and seq == last_id.seq + 1:
                self._runs[-1].types.extend(run.types)
                self._runs[-1].data.extend(run.data)
            else:
                self._runs.append(Run(run.first, run.types[:], run.data[:]))
            self.last_id = run.last_id
        if self._bytes > self._max_bytes:
            self._shrink()

    def _shrink(self) -> None:
        """Let the oldest go; the newest one stays."""
        while self._bytes > self._max_bytes:
            (epoch, seq), types, data = self._runs[0]
            spare = len(data) - (len(self._runs) == 1)
            drop = 0
            while self._bytes > self._max_bytes and drop < spare:
                self._bytes -= _cost(data[drop : drop + 1])
                drop += 1
            if drop == 0:
                break
            self.floor = EntryId(epoch, seq + drop - 1)
            del types[:drop], data[:drop]
            self._runs[:1] = [Run(self.floor.successor, types, data)] if data else []
        for blocks in self._blocks.values():
            for start in [start for start in blocks if start <= self.floor]:
                del blocks[start]

    def add_before(self, runs: Sequence[Run]) -> bool:
        """Add what the floor stands on, the newest of it first; False if not all of it has room."""
        if not runs or runs[-1].last_id != self.floor:
            return False
        for run in reversed(runs):
            (epoch, seq), types, data = run
            start = len(data)
            while start:
                cost = _cost(data[start - 1 : start])
                if self._bytes + cost > self._max_bytes:
                    break
                self._bytes += cost
                start -= 1
            if start < len(data):
                self._put_before(Run(EntryId(epoch, seq + start), types[start:], data[start:]))
            if start:
                return False
        return True

    def _put_before(self, run: Run) -> None:
        self.floor = run.predecessor
        if self._runs and run.last_id.successor == self._runs[0].first:
            _, types, data = self._runs[0]
            self._runs[0] = Run(run.first, run.types + types, run.data + data)
        else:
            self._runs.insert(0, run)

    def rebase(self, floor: EntryId) -> None:
        """Forget everything: the log itself went back to `floor`."""
        self.floor = self.last_id = floor
        self.has_reached_back = False
        self._bytes = 0
        self._runs.clear()
        self._blocks.clear()

    def reaches(self, cursor: EntryId) -> bool:
        """Whether it holds everything beyond `cursor` that was seen."""
        return cursor >= self.floor

    def read(self, cursor: EntryId, dialect: Dialect) -> Piece | None:
        """Return what comes next beyond `cursor`, which it reaches; None if nothing does yet."""
        if cursor >= self.last_id:
            return None
        number = next(at for at, run in enumerate(self._runs) if run.last_id > cursor)
        (epoch, seq), _, _ = run = self._runs[number]
        skip = max(0, cursor.seq + 1 - seq) if cursor.epoch == epoch else 0
        stands_on = EntryId(epoch, seq + skip - 1) if skip else run.predecessor
        frames: list[bytes] = []
        size = end = 0
        for run, start, end in self._walk(number, skip):
            frames.append(self._frame(dialect, run, start, end))
            size += len(frames[-1])
            if size >= MAX_PIECE:
                break
        last_id = EntryId(run.first.epoch, run.first.seq + end - 1)
        return Piece(stands_on, last_id, run.types[end - 1] in CLOSING, b"".join(frames))

    def _walk(self, number: int, start: int) -> Iterator[tuple[Run, int, int]]:
        """Yield the pieces of blocks from there on: of which run, and from where to where."""
        for run in self._runs[number:]:
            while start < len(run.data):
                end = min(start + BLOCK - (run.first.seq + start) % BLOCK, len(run.data))
                yield run, start, end
                start = end
            start = 0

    def _frame(self, dialect: Dialect, run: Run, start: int, end: int) -> bytes:
        """Return the frames of entries of one block, kept for others if it begins with them."""
        first = EntryId(run.first.epoch, run.first.seq + start)
        if _find_block(first) != first:
            return self._encode(dialect, run, first, start, end)
        blocks = self._blocks.get(dialect.name)
        if blocks is None:
            blocks = self._blocks[dialect.name] = {}
        frames = blocks.get(first)
        if frames is None:
            frames = blocks[first] = self._encode(dialect, run, first, start, end)
        return frames

    def _encode(self, dialect: Dialect, run: Run, first: EntryId, start: int, end: int) -> bytes:
        part = Run(first, run.types[start:end], run.data[start:end])
        return encode_run(dialect, self.generation, part)


def _cost(data: Sequence[bytes]) -> int:
    return 2 * sum(map(len, data)) + ENTRY_COST * len(data)


def _find_block(entry_id: EntryId) -> EntryId:
    """Return where the block of an entry begins."""
    return EntryId(entry_id.epoch, entry_id.seq - entry_id.seq % BLOCK)
