"""Which logs have to be read, and what becomes of what was read."""

from typing import Any, Final

from api.followed import BATCH, READ_COUNT, Batch, FollowedLog, FollowedLogs
from api.sse import NATIVE
from api.window import Window
from shared.events import Entry, EventType, encode_data, gather_runs
from shared.ids import EntryId, GenerationId
from tests.support.fold import fold
from tests.support.sse_reader import SseReader
from tests.support.stores import tokens
from tests.support.windows import read_all

GENERATION: Final = GenerationId("gen_" + "a" * 32)
KEY: Final = b"gen:{a}:log"
FLOOR: Final = EntryId(5, 3)


def window(floor: EntryId = FLOOR) -> Window:
    return Window(GENERATION, floor, 100_000)


def rows(entries: list[Entry]) -> list[Any]:
    """As Redis answers XREAD."""
    fields = [[b"t", entry.type.value.encode(), b"d", entry.data] for entry in entries]
    ids = [str(entry.id).encode() for entry in entries]
    return [[KEY, [list(pair) for pair in zip(ids, fields, strict=True)]]]


def texts(followed: FollowedLog) -> str:
    """What a follower that is at the floor has been told in the end."""
    return fold(read_all(followed.window, FLOOR) or []).text


def events(followed: FollowedLog, cursor: EntryId = FLOOR) -> list[tuple[str, str]]:
    """Types and ids of what a follower at `cursor` is told."""
    told = read_all(followed.window, cursor) or []
    return [(event.type, event.last_event_id) for event in told]


def take(followed: FollowedLog, entries: list[Entry]) -> None:
    followed.take(gather_runs(entries))


def taken(logs: FollowedLogs) -> list[bytes]:
    return [followed.key for followed in logs.take_dirty()]


def test_a_new_log_is_read_at_once_from_where_its_window_ends() -> None:
    """The first read also arms the tracking of its key."""
    logs = FollowedLogs()
    followed = logs.add(KEY, window())
    assert taken(logs) == [KEY]
    assert followed.read_command() == ("XREAD", "COUNT", READ_COUNT, "STREAMS", KEY, "5-3")


def test_what_was_taken_is_clean_until_it_is_marked_again() -> None:
    """Edge-triggered: one mark, one read."""
    logs = FollowedLogs()
    logs.add(KEY, window())
    logs.take_dirty()
    assert taken(logs) == []
    logs.mark_dirty(KEY)
    logs.mark_dirty(KEY)
    assert taken(logs) == [KEY]


def test_a_log_without_followers_is_never_read() -> None:
    """Neither a mark that came late nor one from before brings it back."""
    logs = FollowedLogs()
    left = logs.add(KEY, window())
    logs.remove(KEY)
    logs.mark_dirty(KEY)
    assert taken(logs) == []
    assert (logs.keys(), len(logs), logs.find(KEY)) == ([], 0, None)
    logs.deliver(left, rows(tokens(FLOOR, "late")))
    assert left.window.last_id == FLOOR


def test_a_reply_for_a_follower_that_left_is_not_given_to_the_next() -> None:
    """Left and followed anew while a read was under way: what it brings may lie beyond a gap."""
    logs = FollowedLogs()
    left = logs.add(KEY, window(EntryId(5, 4)))
    logs.remove(KEY)
    anew = logs.add(KEY, window())
    logs.deliver(left, rows(tokens(EntryId(5, 4), "beyond")))
    assert anew.window.last_id == FLOOR
    assert taken(logs) == [KEY]


def test_logs_are_read_in_the_order_in_which_they_changed() -> None:
    """A second change while it waits neither puts a log back nor lets it go first."""
    logs = FollowedLogs()
    keys = [b"log %d" % number for number in range(20)]
    for key in keys:
        logs.add(key, window())
    taken(logs)
    for key in (*keys[10:], *keys[5:15], *keys):
        logs.mark_dirty(key)
    assert taken(logs) == [*keys[10:], *keys[5:10], *keys[:5]]


def test_tokens_that_were_read_together_are_one_frame() -> None:
    """Who is live is told under load what one that is behind is told: fewer and longer frames."""
    entries = tokens(FLOOR, "a", "b", "c")
    done = Entry(entries[-1].id.successor, EventType.DONE, b"{}")
    told = Batch(FLOOR, gather_runs([*entries, done]), GENERATION).chunk(NATIVE)
    frames = told.partition(b"\r\n")[2].removesuffix(b"\r\n")
    assert [(event.type, event.data) for event in SseReader().feed(frames)] == [
        ("token", '{"text":"abc"}'),
        ("done", "{}"),
    ]


def test_many_dirty_logs_are_read_in_bounded_batches_and_none_is_forgotten() -> None:
    """One pipeline never grows without limit."""
    logs = FollowedLogs()
    keys = [b"log %d" % number for number in range(2 * BATCH + 1)]
    for key in keys:
        logs.add(key, window())
    batches = [taken(logs) for _ in range(4)]
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 1, 0]
    assert sorted(key for batch in batches for key in batch) == sorted(keys)


def test_all_logs_are_read_again_after_a_lost_connection() -> None:
    """Nobody knows what changed meanwhile."""
    logs = FollowedLogs()
    for key in (b"a", b"b"):
        logs.add(key, window())
    logs.take_dirty()
    logs.mark_all_dirty()
    assert sorted(taken(logs)) == [b"a", b"b"]


def test_a_full_read_leaves_the_log_dirty() -> None:
    """There may be more behind it, and no push would tell."""
    logs = FollowedLogs()
    followed = logs.add(KEY, window())
    logs.take_dirty()
    logs.deliver(followed, rows(tokens(FLOOR, *("x" for _ in range(READ_COUNT - 1)))))
    assert taken(logs) == []
    logs.deliver(
        followed,
        rows(tokens(followed.window.last_id, *("x" for _ in range(READ_COUNT)))),
    )
    assert taken(logs) == [KEY]


def test_an_empty_read_changes_nothing() -> None:
    """A key that was pushed without a new entry wakes nobody."""
    logs = FollowedLogs()
    followed = logs.add(KEY, window())
    changed = followed.changed
    logs.deliver(followed, None)
    logs.deliver(followed, {})
    logs.deliver(followed, [])
    assert not changed.is_set()


def test_a_reply_of_resp3_is_read_like_one_of_resp2() -> None:
    """The tracked connection answers with a map, the poller with a list."""
    logs = FollowedLogs()
    followed = logs.add(KEY, window())
    first, second = tokens(FLOOR, "a", "b")
    logs.deliver(followed, rows([first]))
    logs.deliver(followed, {KEY: rows([second])[0][1]})
    assert texts(followed) == "ab"


def test_entries_read_twice_are_added_once() -> None:
    """Two reads that overlap leave no duplicate, and the second wakes nobody."""
    followed = FollowedLog(KEY, window())
    entries = tokens(FLOOR, "a", "b")
    take(followed, entries)
    changed = followed.changed
    take(followed, entries)
    assert texts(followed) == "ab"
    assert not changed.is_set()
    more = tokens(entries[-1].id, "c")
    take(followed, [*entries, *more])
    assert texts(followed) == "abc"


def test_a_change_wakes_whoever_took_the_event_before_it_looked() -> None:
    """Taken before the look, awaited after: no entry falls between."""
    followed = FollowedLog(KEY, window())
    before = followed.changed
    take(followed, tokens(FLOOR, "a"))
    assert before.is_set()
    assert not followed.changed.is_set()


def test_entries_that_do_not_stand_on_the_window_are_not_joined_to_it() -> None:
    """After a roll-back that went on differently, whoever is elsewhere must read the log itself."""
    followed = FollowedLog(KEY, window())
    take(followed, tokens(FLOOR, "a", "lost"))
    started = Entry(EntryId(9, 0), EventType.STARTED, encode_data({"prev": "5-4"}))
    take(followed, [started])
    assert events(followed, EntryId(5, 4)) == [("started", "9-0")]
    assert read_all(followed.window, FLOOR) is None
    assert followed.window.last_id == started.id


def test_an_epoch_that_stands_on_the_window_is_joined_to_it() -> None:
    """An ordinary take-over sends nobody back to Redis."""
    followed = FollowedLog(KEY, window())
    entries = tokens(FLOOR, "a")
    started = Entry(EntryId(9, 0), EventType.STARTED, encode_data({"prev": "5-4"}))
    take(followed, [*entries, started])
    assert events(followed) == [("token", "5-4"), ("started", "9-0")]


def test_a_log_that_lost_its_end_takes_the_window_back() -> None:
    """Followers are woken; what lies beyond the end is forgotten."""
    followed = FollowedLog(KEY, window())
    entries = tokens(FLOOR, "a", "b")
    take(followed, entries)
    changed = followed.changed
    followed.rebase(entries[0].id)
    assert changed.is_set()
    assert followed.window.last_id == entries[0].id
    take(followed, entries)
    assert events(followed, entries[0].id) == [("token", "5-5")]


def test_a_log_that_is_longer_than_the_window_is_no_reason_to_forget() -> None:
    """Only a loss takes anything back."""
    followed = FollowedLog(KEY, window())
    entries = tokens(FLOOR, "a")
    take(followed, entries)
    followed.rebase(EntryId(5, 9))
    assert texts(followed) == "a"
