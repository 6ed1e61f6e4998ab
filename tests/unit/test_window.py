"""The window: the newest entries, bounded in bytes, framed once for all."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from api.sse import CHAT, NATIVE
from api.window import ENTRY_COST, Window
from shared.events import Entry, EventType, encode_data
from shared.ids import EntryId, GenerationId

GENERATION: Final = GenerationId("gen_" + "a" * 32)
FLOOR: Final = EntryId(5, 0)

sizes = st.lists(st.lists(st.integers(0, 60), max_size=5), max_size=8)


def batches(sizes: list[list[int]]) -> list[list[Entry]]:
    """Entries of these lengths, with rising ids beyond the floor."""
    seq, made = 0, []
    for batch in sizes:
        entries = []
        for size in batch:
            seq += 1
            data = encode_data({"text": "x" * size})
            entries.append(Entry(EntryId(5, seq), EventType.TOKEN, data))
        made.append(entries)
    return made


def flat(made: list[list[Entry]]) -> list[Entry]:
    return [entry for batch in made for entry in batch]


class Counting:
    """A dialect that counts its work."""

    name = "counting"
    calls = 0

    def encode(self, generation: GenerationId, entry: Entry) -> bytes:
        self.calls += 1
        return NATIVE.encode(generation, entry)

    def encode_opening(self, generation: GenerationId, cursor: EntryId) -> bytes:
        return NATIVE.encode_opening(generation, cursor)

    def encode_loss(self, generation: GenerationId) -> tuple[bytes, bool]:
        return NATIVE.encode_loss(generation)


@given(sizes, st.integers(1, 5000), st.integers(0, 40))
def test_what_lies_beyond_a_cursor_is_complete_or_refused(
    sizes: list[list[int]], max_bytes: int, cut: int
) -> None:
    """Never a silent hole: a cursor below the floor gets None, any other everything it lacks."""
    window, made = Window(GENERATION, FLOOR, max_bytes), batches(sizes)
    for batch in made:
        window.add(batch)
    cursor = EntryId(5, cut)
    expected = [entry for entry in flat(made) if entry.id > cursor]
    assert window.after(cursor) == (None if cursor < window.floor else expected)


@given(sizes, st.integers(1, 5000))
def test_a_window_keeps_no_more_bytes_than_it_may(sizes: list[list[int]], max_bytes: int) -> None:
    """Only the newest entry is kept whatever its size, and no smaller window would do."""
    window, made = Window(GENERATION, FLOOR, max_bytes), batches(sizes)
    for batch in made:
        window.add(batch)
    kept = window.after(window.floor)
    assert kept is not None
    total = sum(len(entry.data) + ENTRY_COST for entry in kept)
    assert total <= max_bytes or len(kept) == 1
    gone = [entry for entry in flat(made) if entry.id <= window.floor]
    assert [*gone, *kept] == flat(made)


@given(sizes, st.integers(1, 5000))
def test_the_last_id_is_the_newest_seen(sizes: list[list[int]], max_bytes: int) -> None:
    """Where nothing was added, it is the floor."""
    window, made = Window(GENERATION, FLOOR, max_bytes), batches(sizes)
    for batch in made:
        window.add(batch)
    assert window.last_id == EntryId(5, len(flat(made)))


@given(sizes, st.integers(1, 5000))
def test_frames_are_those_of_the_dialect_and_shared(sizes: list[list[int]], max_bytes: int) -> None:
    """Two followers get the same bytes; followers of another dialect get their own."""
    window = Window(GENERATION, FLOOR, max_bytes)
    for batch in batches(sizes):
        window.add(batch)
        kept = window.after(window.floor)
        assert kept is not None
        for dialect in (NATIVE, CHAT, NATIVE):
            expected = b"".join(dialect.encode(GENERATION, entry) for entry in kept)
            assert window.frames(dialect, kept) == expected


def test_a_frame_is_encoded_once() -> None:
    """However many follow, the work is done for the first of them."""

    window, dialect, (entries,) = (
        Window(GENERATION, FLOOR, 10_000),
        Counting(),
        batches([[1, 2, 3]]),
    )
    window.add(entries)
    for start in (0, 0, 1):
        window.frames(dialect, entries[start:])
    assert dialect.calls == 3


def test_frames_go_with_their_entries() -> None:
    """What left the window takes no memory any more: its frame would have to be made anew."""
    dialect, (old, new) = Counting(), batches([[10], [10]])
    window = Window(GENERATION, FLOOR, ENTRY_COST + len(old[0].data))
    window.add(old)
    window.frames(dialect, old)
    window.add(new)
    window.frames(dialect, old)
    assert dialect.calls == 2


def test_a_rebased_window_has_forgotten_what_redis_lost() -> None:
    """Entries, frames and bytes are gone; the same ids may say something else now."""
    window = Window(GENERATION, FLOOR, 10_000)
    (old,) = batches([[3, 3, 3]])
    window.add(old)
    window.frames(NATIVE, old)
    window.rebase(old[0].id)
    assert (window.floor, window.last_id) == (old[0].id, old[0].id)
    assert window.after(old[0].id) == []
    assert window.after(FLOOR) is None
    new = [Entry(old[1].id, EventType.TOKEN, encode_data({"text": "new"}))]
    window.add(new)
    assert window.after(old[0].id) == new
    assert window.frames(NATIVE, new) == NATIVE.encode(GENERATION, new[0])


def test_a_rebased_window_has_its_whole_room_again() -> None:
    """Bytes of forgotten entries do not count."""
    window = Window(GENERATION, FLOOR, 2 * ENTRY_COST + 60)
    (old,) = batches([[30]])
    window.add(old)
    window.rebase(FLOOR)
    (entries,) = batches([[10, 10]])
    window.add(entries)
    assert window.after(FLOOR) == entries
