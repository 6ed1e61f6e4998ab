"""What our frames say is what any reader of text/event-stream makes of them."""

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.sse import (
    CHAT,
    HEARTBEAT,
    MAX_JOINED,
    NATIVE,
    Dialect,
    encode_history,
    encode_reconnect,
    encode_retry,
    encode_run,
    join_texts,
)
from shared.events import JOINABLE, Entry, EventType, encode_data, fold, gather_runs
from shared.ids import BEGINNING, EntryId, GenerationId
from tests.support.sse_reader import Event, SseReader

GENERATION = GenerationId("gen_" + "a" * 32)

BOTH = pytest.mark.parametrize("dialect", [NATIVE, CHAT], ids=lambda dialect: dialect.name)

# What readers trip over: line ends, spaces at the edges, text that looks like a field.
awkward = st.sampled_from(
    [
        *("\n", "\r", "\r\n", " ", "  x", "\n\n", ":", "data: ", "data:", "id: 9-9"),
        *("event: done\n", "\x00", "\u2028", "\ufeff", "\x85", "é", "👋", "\ud83d"),
    ]
)
texts = st.lists(st.one_of(st.text(max_size=4), awkward), max_size=5).map("".join)


def entry(seq: int, kind: EventType, data: dict[str, Any], epoch: int = 5) -> Entry:
    return Entry(EntryId(epoch, seq), kind, encode_data(data))


def _data(kind: EventType, text: str) -> dict[str, Any]:
    if kind in JOINABLE:
        return {"text": text}
    if kind is EventType.TOOL_CALL:
        return {"index": 0, "arguments": text}
    return {"message": text} if kind is EventType.FAILED else {}


kinds = st.one_of(st.just(EventType.TOKEN), st.sampled_from(list(EventType)))
logs = st.lists(st.tuples(kinds, texts, st.integers(0, 9)), max_size=12).map(
    lambda said: [
        # Now and then a new epoch, as after a take-over.
        entry(seq, kind, _data(kind, text), epoch=5 + sum(cut == 0 for _, _, cut in said[:seq]))
        for seq, (kind, text, _) in enumerate(said)
    ]
)
chunkings = st.lists(st.integers(1, 40), max_size=60)


def read(stream: bytes, sizes: list[int]) -> list[Event]:
    """Read it in pieces of these sizes, the rest at once."""
    reader, events = SseReader(), []
    for size in sizes:
        events += reader.feed(stream[:size])
        stream = stream[size:]
    return events + reader.feed(stream)


@given(logs, chunkings)
def test_native_frames_are_read_back_as_the_entries_they_are(
    log: list[Entry], sizes: list[int]
) -> None:
    """Each entry is one event with its own id, type and data, at any chunk boundary."""
    stream = b"".join(NATIVE.encode(GENERATION, one) for one in log)
    assert read(stream, sizes) == [
        Event(one.type.value, one.data.decode(), str(one.id)) for one in log
    ]


def said_in_chat(one: Entry) -> str:
    """What a reader of `/chat/stream` gets as the data of one entry."""
    if one.type is EventType.TOKEN:
        text: str = json.loads(one.data)["text"]
        text = text.encode("utf-8", "replace").decode()
        return text.replace("\r\n", "\n").replace("\r", "\n")
    return "" if one.type is EventType.DONE else one.data.decode()


@given(logs, chunkings)
@example([entry(0, EventType.TOKEN, {"text": ""})], [])
@example([entry(0, EventType.TOKEN, {"text": " a"})], [])
@example([entry(0, EventType.TOKEN, {"text": "a\n"})], [])
@example([entry(0, EventType.TOKEN, {"text": "\n\ndata: x\n\n"})], [])
def test_chat_frames_are_read_back_as_the_text_itself(log: list[Entry], sizes: list[int]) -> None:
    """The text comes out as it went in, whatever it looks like; ids name the generation too."""
    stream = b"".join(CHAT.encode(GENERATION, one) for one in log)
    assert read(stream, sizes) == [
        Event(one.type.value, said_in_chat(one), f"{GENERATION}/{one.id}") for one in log
    ]


@given(logs)
def test_a_naive_line_reader_of_the_chat_sees_the_text_and_nothing_else(log: list[Entry]) -> None:
    """Joining what follows `data: ` line by line is the answer, where it has no line ends."""
    plain = [one for one in log if not set(said_in_chat(one)) & set("\r\n")]
    stream = b"".join(CHAT.encode(GENERATION, one) for one in plain).decode()
    lines = (line for line in stream.split("\n") if line.startswith("data: "))
    naive = "".join(line.removeprefix("data: ") for line in lines)
    assert naive == "".join(said_in_chat(one) for one in plain if one.type is EventType.TOKEN)


@BOTH
@given(log=logs)
def test_no_frame_holds_a_carriage_return_or_ends_early(dialect: Dialect, log: list[Entry]) -> None:
    """LF line ends; one blank line, at the end: nothing an entry says can begin another frame."""
    for one in log:
        frame = dialect.encode(GENERATION, one)
        assert b"\r" not in frame
        assert frame.endswith(b"\n\n")
        assert frame.count(b"\n\n") == 1


@BOTH
@given(log=logs)
def test_a_frame_is_a_pure_function_of_its_entry(dialect: Dialect, log: list[Entry]) -> None:
    """All followers may share it, whatever was framed before."""
    first = [dialect.encode(GENERATION, one) for one in log]
    assert [dialect.encode(GENERATION, one) for one in reversed(log)] == first[::-1]


# --- joined texts -------------------------------------------------------------------------------


@given(logs)
def test_joined_texts_fold_to_the_same(log: list[Entry]) -> None:
    """A reader that gets history spliced holds what a reader of each single entry holds."""
    assert fold(join_texts(log)) == fold(log)


@given(logs)
def test_joining_keeps_every_id_it_names_and_the_last(log: list[Entry]) -> None:
    """Each joined entry has the id of an entry that says the same from there on; order stays."""
    joined = join_texts(log)
    ids = [one.id for one in joined]
    assert ids == sorted(set(ids))
    assert set(ids) <= {one.id for one in log}
    assert ids[-1:] == [one.id for one in log[-1:]]
    for one in joined:
        told = [other for other in joined if other.id <= one.id]
        assert fold(told) == fold([other for other in log if other.id <= one.id])


@given(logs)
def test_joining_leaves_nothing_to_join(log: list[Entry]) -> None:
    """No two neighbours of one kind and one epoch are left; everything else is untouched."""
    joined = join_texts(log)
    for one, other in pairwise(joined):
        alike = one.type is other.type and one.id.epoch == other.id.epoch
        assert not (alike and one.type in JOINABLE)
    others = [one for one in log if one.type not in JOINABLE]
    assert [one for one in joined if one.type not in JOINABLE] == others


@BOTH
@given(log=logs)
def test_history_is_the_joined_entries_framed(dialect: Dialect, log: list[Entry]) -> None:
    """The same frames that the joined log would have live."""
    frames = b"".join(dialect.encode(GENERATION, one) for one in join_texts(log))
    assert encode_history(dialect, GENERATION, log) == frames


# --- frames without an entry --------------------------------------------------------------------


def fed(frame: bytes) -> tuple[SseReader, list[Event]]:
    reader = SseReader("5-1")
    return reader, reader.feed(frame)


def test_a_heartbeat_reaches_javascript_and_leaves_the_cursor_alone() -> None:
    """It is an event, not a comment, with empty data and without an id."""
    reader, events = fed(HEARTBEAT)
    assert events == [Event("heartbeat", "", "5-1")]
    assert reader.last_event_id == "5-1"


def test_a_farewell_says_when_to_come_back() -> None:
    """An event without an id, and the pause in milliseconds."""
    reader, events = fed(encode_reconnect(timedelta(seconds=1.5)))
    assert events == [Event("reconnect", "{}", "5-1")]
    assert reader.retry_ms == 1500


def test_a_pause_alone_is_no_event() -> None:
    """`retry:` sets the pause and tells nobody."""
    reader, events = fed(encode_retry(timedelta(seconds=2)))
    assert (events, reader.retry_ms, reader.last_event_id) == ([], 2000, "5-1")


@pytest.mark.parametrize(
    ("dialect", "cursor", "expected"),
    [
        (NATIVE, BEGINNING, ""),
        (NATIVE, EntryId(5, 7), "5-7"),
        (CHAT, BEGINNING, f"{GENERATION}/0-0"),
        (CHAT, EntryId(5, 7), f"{GENERATION}/5-7"),
    ],
)
def test_the_opening_sets_cursor_and_pause_before_anything_is_said(
    dialect: Dialect, cursor: EntryId, expected: str
) -> None:
    """A socket cut before the first entry loses neither the cursor nor the generation."""
    reader = SseReader()
    assert reader.feed(dialect.encode_opening(GENERATION, cursor)) == []
    assert reader.last_event_id == expected
    assert reader.retry_ms == 1000


def test_the_chats_first_frame_is_the_id_alone() -> None:
    """A client that keeps only the first frame can still resume."""
    (first, _) = CHAT.encode_opening(GENERATION, BEGINNING).split(b"\n\n", 1)
    assert first == f"id: {GENERATION}/0-0".encode()


def _loss_of(dialect: Dialect) -> tuple[list[Event], bool]:
    frame, history_follows = dialect.encode_loss(GENERATION)
    return SseReader("5-1").feed(frame), history_follows


def test_a_lost_cursor_resets_a_native_reader_and_history_follows() -> None:
    """`reset` with the id 0-0, and then everything anew."""
    assert _loss_of(NATIVE) == ([Event("reset", "{}", "0-0")], True)


def test_a_lost_cursor_fails_a_chat_and_nothing_follows() -> None:
    """This surface cannot say forget: it says that it failed, and keeps the cursor it had."""
    ((event,), history_follows) = _loss_of(CHAT)
    assert (event.type, event.last_event_id, history_follows) == ("failed", "5-1", False)
    assert json.loads(event.data)["code"] == "cursor_lost"


@pytest.mark.parametrize("encode", [NATIVE.encode, CHAT.encode])
def test_the_closing_event_is_dispatched_even_with_empty_data(
    encode: Callable[[GenerationId, Entry], bytes],
) -> None:
    """`done` fires in a browser although the chat sends no data with it."""
    (event,) = SseReader().feed(encode(GENERATION, entry(1, EventType.DONE, {})))
    assert event.type == "done"


def test_a_run_is_told_in_frames_of_bounded_size() -> None:
    """A reader that is cut within a frame begins it anew: long texts are not all one frame."""
    texts = ["x" * 1000 for _ in range(40)]
    entries = [
        Entry(EntryId(5, at), EventType.TOKEN, encode_data({"text": text}))
        for at, text in enumerate(texts, 1)
    ]
    (run,) = gather_runs(entries)
    events = SseReader().feed(encode_run(NATIVE, GENERATION, run))
    assert "".join(json.loads(event.data)["text"] for event in events) == "".join(texts)
    assert all(len(event.data) < MAX_JOINED + 2000 for event in events)
    assert events[-1].last_event_id == "5-40"
