"""The window: the newest entries, bounded in bytes, framed once for all."""

import tracemalloc
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from api.sse import CHAT, NATIVE
from api.window import BLOCK, ENTRY_COST, MAX_PIECE, Window
from shared.events import Entry, EventType, encode_data, gather_runs
from shared.ids import EntryId, GenerationId
from tests.support.fold import fold
from tests.support.fold_chat import fold_chat
from tests.support.windows import read_all

GENERATION: Final = GenerationId("gen_" + "a" * 32)
FLOOR: Final = EntryId(5, 0)

sizes = st.lists(st.lists(st.integers(0, 60), max_size=5), max_size=8)
bounds = st.integers(1, 5000)


def batches(sizes: list[list[int]]) -> list[list[Entry]]:
    """Entries of these lengths, each of other letters, with rising ids beyond the floor."""
    seq, made = 0, []
    for batch in sizes:
        entries = []
        for size in batch:
            seq += 1
            entries.append(entry(seq, chr(ord("a") + seq % 26) * size))
        made.append(entries)
    return made


def entry(seq: int, text: str) -> Entry:
    return Entry(EntryId(5, seq), EventType.TOKEN, encode_data({"text": text}))


def flat(made: list[list[Entry]]) -> list[Entry]:
    return [entry for batch in made for entry in batch]


def filled(entries: list[Entry], max_bytes: int = 10_000_000) -> Window:
    window = Window(GENERATION, FLOOR, max_bytes)
    window.add(gather_runs(entries))
    return window


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


def check_complete(window: Window, entries: list[Entry], cursor: EntryId) -> None:
    """A cursor below the floor is refused; any other is given everything beyond it, once."""
    for dialect in (NATIVE, CHAT, NATIVE):
        told = read_all(window, cursor, dialect)
        if cursor < window.floor:
            assert told is None
            continue
        assert told is not None
        expected = [entry for entry in entries if entry.id > cursor]
        said = fold_chat(told).text if dialect is CHAT else fold(told).text
        texts = [entry.data for entry in expected if entry.type is EventType.TOKEN]
        assert said == "".join(text.decode()[9:-2] for text in texts)
        last = told[-1].last_event_id.rpartition("/")[2] if told else str(cursor)
        assert last == str(expected[-1].id if expected else cursor)


@given(st.integers(1, 2 * BLOCK), st.integers(0, 2 * BLOCK), st.integers(0, 2 * BLOCK))
def test_a_block_ends_with_its_epoch(before: int, seen: int, beyond: int) -> None:
    """Framed before and after the next epoch has grown, wherever in a block it began."""
    first = flat(batches([[1] * before]))
    opens = Entry(EntryId(6, 0), EventType.STARTED, encode_data({"prev": str(first[-1].id)}))
    then = [
        Entry(EntryId(6, at + 1), *each[1:])
        for at, each in enumerate(flat(batches([[2] * (seen + beyond)])))
    ]
    entries = [*first, opens, *then]
    window = filled(entries[: before + 1 + seen])
    check_complete(window, entries[: before + 1 + seen], FLOOR)
    window.add(gather_runs(entries[before + 1 + seen :]))
    for cursor in (FLOOR, first[0].id, first[-1].id, opens.id):
        check_complete(window, entries, cursor)


def test_an_id_that_is_missing_stays_missing() -> None:
    """Where a log has a hole nobody goes on as if it had none, and no entry changes its id."""
    ids = [EntryId(5, 1), EntryId(5, 2), EntryId(5, 4), EntryId(7, 5)]
    window = filled([])
    for each in ids:
        window.add(gather_runs([Entry(each, EventType.TOKEN, encode_data({"text": str(each)}))]))
    told = []
    for cursor in (FLOOR, EntryId(5, 2), EntryId(5, 3), EntryId(5, 4), EntryId(6, 9)):
        piece = window.read(cursor, NATIVE)
        assert piece is not None
        told.append((piece.stands_on, piece.last_id, piece.frames.count(b"event:")))
    assert told == [
        (FLOOR, EntryId(7, 5), 3),
        (EntryId(5, 3), EntryId(7, 5), 2),
        (EntryId(5, 3), EntryId(7, 5), 2),
        (EntryId(7, 4), EntryId(7, 5), 1),
        (EntryId(7, 4), EntryId(7, 5), 1),
    ]
    assert window.last_id == EntryId(7, 5)


def test_a_window_keeps_its_own_of_what_it_is_given() -> None:
    """The same entries go to whoever is live."""
    runs = gather_runs([entry(1, "a")])
    window = Window(GENERATION, FLOOR, 1000)
    window.add(runs)
    window.add(gather_runs([entry(2, "b")]))
    assert runs == gather_runs([entry(1, "a")])


@given(sizes, bounds, st.integers(0, 40))
def test_what_lies_beyond_a_cursor_is_complete_or_refused(
    sizes: list[list[int]], max_bytes: int, cut: int
) -> None:
    """Never a silent hole, never anything twice, in every dialect."""
    window, made = Window(GENERATION, FLOOR, max_bytes), batches(sizes)
    for batch in made:
        window.add(gather_runs(batch))
    entries = flat(made)
    check_complete(window, entries, EntryId(5, min(cut, len(entries))))


@given(st.integers(1, 3 * BLOCK), st.integers(1, 3 * BLOCK), st.data())
def test_blocks_are_whole_wherever_a_window_begins_and_ends(
    before: int, beyond: int, draw: st.DataObject
) -> None:
    """Read, grown at both ends, shrunk, and read again from everywhere."""
    entries = flat(batches([[1] * (before + beyond)]))
    room = draw.draw(st.integers(1, before + beyond))
    window = Window(
        GENERATION, entries[before - 1].id, room * (ENTRY_COST + 2 * len(entries[0].data))
    )
    window.add(gather_runs(entries[before : before + beyond // 2]))
    for cursor in draw.draw(st.lists(st.integers(0, before + beyond // 2), max_size=4)):
        check_complete(window, entries[: before + beyond // 2], EntryId(5, cursor))
    window.add_before(gather_runs(entries[:before]))
    for cursor in draw.draw(st.lists(st.integers(0, before + beyond // 2), max_size=4)):
        check_complete(window, entries[: before + beyond // 2], EntryId(5, cursor))
    window.add(gather_runs(entries[before + beyond // 2 :]))
    for cursor in draw.draw(st.lists(st.integers(0, before + beyond), max_size=4)):
        check_complete(window, entries, EntryId(5, cursor))


@given(sizes, bounds)
def test_a_window_keeps_no_more_bytes_than_it_may(sizes: list[list[int]], max_bytes: int) -> None:
    """Only the newest entry is kept whatever its size, and no smaller window would do."""
    window, made = Window(GENERATION, FLOOR, max_bytes), batches(sizes)
    for batch in made:
        window.add(gather_runs(batch))
    kept = [entry for entry in flat(made) if entry.id > window.floor]
    total = sum(2 * len(entry.data) + ENTRY_COST for entry in kept)
    assert total <= max_bytes or len(kept) == 1
    assert kept or not flat(made)
    check_complete(window, flat(made), window.floor)


@given(sizes, bounds)
def test_the_last_id_is_the_newest_seen(sizes: list[list[int]], max_bytes: int) -> None:
    """Where nothing was added, it is the floor."""
    window, made = Window(GENERATION, FLOOR, max_bytes), batches(sizes)
    for batch in made:
        window.add(gather_runs(batch))
    assert window.last_id == EntryId(5, len(flat(made)))


def test_a_whole_block_is_joined_and_encoded_once() -> None:
    """However many come back, the work is done for the first of them."""
    dialect, window = Counting(), filled(flat(batches([[1] * (2 * BLOCK)])))
    for cursor in (FLOOR, FLOOR, EntryId(5, 1)):
        read_all(window, cursor, dialect)
    # Of each: the rest of the first block. Once: the second, and the one entry of the third.
    assert dialect.calls == 3 + 2
    window.add(gather_runs([entry(2 * BLOCK + 1, "b")]))
    read_all(window, EntryId(5, 2 * BLOCK - 1), dialect)
    assert dialect.calls == 3 + 2 + 1


def test_blocks_go_with_their_entries() -> None:
    """What left the window takes no memory any more."""
    size, room = 1000, 300_000
    tracemalloc.start()
    window = filled([], room)
    for start in range(1, 50 * BLOCK, BLOCK):
        window.add(gather_runs([entry(seq, "x" * size) for seq in range(start, start + BLOCK)]))
        read_all(window, window.floor)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.3 * room


def test_a_piece_is_bounded() -> None:
    """What waits in a socket is no more than a piece and a block."""
    window = filled([entry(at, "x" * 4096) for at in range(1, 4 * BLOCK)])
    piece = window.read(FLOOR, NATIVE)
    assert piece is not None
    assert MAX_PIECE <= len(piece.frames) < MAX_PIECE + BLOCK * 5000
    assert piece.last_id < window.last_id


def test_what_came_before_is_added_newest_first() -> None:
    """As much of it as there is room for; the window tells whether it had room for all."""
    old, new = flat(batches([[1] * 4])), [entry(5, "e")]
    cost = ENTRY_COST + 2 * len(old[0].data)
    window = Window(GENERATION, old[-1].id, 3 * cost)  # for three of one letter each
    window.add(gather_runs(new))
    assert not window.add_before(gather_runs(old))
    assert window.floor == EntryId(5, 2)
    check_complete(window, [*old, *new], EntryId(5, 2))
    roomy = Window(GENERATION, old[-1].id, 10 * cost)
    assert roomy.add_before(gather_runs(old[1:]))
    assert roomy.add_before(gather_runs(old[:1]))
    assert roomy.floor == FLOOR
    check_complete(roomy, old, FLOOR)


def test_what_the_window_does_not_stand_on_is_not_added_before_it() -> None:
    """Read before the log was rolled back, or of another log altogether."""
    window = Window(GENERATION, EntryId(5, 9), 10_000)
    assert not window.add_before(gather_runs([entry(8, "x")]))
    assert not window.add_before(gather_runs([]))
    assert window.floor == EntryId(5, 9)


def test_a_rebased_window_has_forgotten_what_redis_lost() -> None:
    """Entries, blocks and bytes are gone; the same ids may say something else now."""
    old = flat(batches([[3] * (3 * BLOCK)]))
    window = filled(old)
    read_all(window, FLOOR)
    window.rebase(old[0].id)
    assert (window.floor, window.last_id) == (old[0].id, old[0].id)
    assert read_all(window, old[0].id) == []
    assert read_all(window, FLOOR) is None
    new = [entry(at, "n") for at in range(2, 3 * BLOCK)]
    window.add(gather_runs(new))
    check_complete(window, new, old[0].id)


def test_a_rebased_window_has_its_whole_room_again() -> None:
    """Bytes of forgotten entries do not count."""
    window = Window(GENERATION, FLOOR, 2 * ENTRY_COST + 100)
    (old,) = batches([[30]])
    window.add(gather_runs(old))
    window.rebase(FLOOR)
    (entries,) = batches([[10, 10]])
    window.add(gather_runs(entries))
    check_complete(window, entries, FLOOR)
