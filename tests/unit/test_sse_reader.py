"""The reader of text/event-stream agrees with the standard, at any chunk boundary."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.sse_reader import Event, SseReader


def read(stream: bytes) -> list[Event]:
    return SseReader().feed(stream)


def test_examples_of_the_standard_with_several_data_lines() -> None:
    """Adjacent data lines are joined with one LF (the standard's stock quote)."""
    stream = b"data: YHOO\ndata: +2\ndata: 10\n\n"
    assert read(stream) == [Event("message", "YHOO\n+2\n10", "")]


def test_example_of_the_standard_with_comment_ids_and_missing_last_blank_line() -> None:
    """Four blocks: a comment, an id, an id without value that resets it, one left unfinished."""
    stream = b":test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third"
    reader = SseReader()
    assert reader.feed(stream) == [
        Event("message", "first event", "1"),
        Event("message", "second event", ""),
    ]
    assert reader.feed(b" event\n\n") == [Event("message", " third event", "")]


def test_example_of_the_standard_with_empty_data() -> None:
    """`data` without a value fires an event with empty data; two of them make one LF."""
    stream = b"data\n\ndata\ndata\n\ndata:"
    assert read(stream) == [Event("message", "", ""), Event("message", "\n", "")]


def test_example_of_the_standard_with_optional_space() -> None:
    """The one space after the colon is not part of the value."""
    assert read(b"data:test\n\ndata: test\n\n") == [Event("message", "test", "")] * 2


def test_example_of_the_standard_with_event_types() -> None:
    """`event` names the type of the one event it stands in."""
    stream = b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\ndata: 113411\n\n"
    assert read(stream) == [
        Event("add", "73857293", ""),
        Event("remove", "2153", ""),
        Event("message", "113411", ""),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_every_line_end_ends_a_line(end: bytes) -> None:
    """LF, CR and CRLF are one line end each."""
    stream = end.join([b"id: 7", b"data: a", b"data: b", b"", b"data: c", b"", b""])
    assert read(stream) == [Event("message", "a\nb", "7"), Event("message", "c", "7")]


def test_event_is_dispatched_before_the_second_half_of_crlf_has_come() -> None:
    """A blank line ended by CR fires at once; the LF that follows in the next chunk is its own."""
    reader = SseReader()
    assert reader.feed(b"data: a\r\n\r") == [Event("message", "a", "")]
    assert reader.feed(b"\ndata: b\n\n") == [Event("message", "b", "")]


def test_one_byte_order_mark_is_dropped_at_the_start_only() -> None:
    """The first U+FEFF is no part of the stream, every other is."""
    mark = "\ufeff".encode()
    assert read(mark + b"data: a\n\n") == [Event("message", "a", "")]
    assert read(mark + mark + b"data: a\n\n") == []
    assert read(b"data: " + mark + b"\n\n") == [Event("message", "\ufeff", "")]


def test_invalid_utf8_becomes_replacement_characters() -> None:
    """A byte that is no UTF-8 damages its own character and nothing else."""
    assert read(b"data: a\xffb\n\n") == [Event("message", "a\ufffdb", "")]


def test_id_with_nul_is_ignored() -> None:
    """An id that holds NUL leaves the cursor as it was."""
    assert read(b"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n")[1] == Event("message", "b", "1")


def test_frame_of_only_an_id_moves_the_cursor_without_firing() -> None:
    """`id:` and a blank line set the cursor; nobody is told."""
    reader = SseReader()
    assert reader.feed(b"id: 4-0\n\n") == []
    assert reader.last_event_id == "4-0"


def test_torn_last_frame_moves_nothing() -> None:
    """Neither the data nor the id of a frame without its blank line count."""
    reader = SseReader()
    assert reader.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n") == [Event("message", "a", "1")]
    assert reader.last_event_id == "1"


def test_type_without_data_fires_nothing_and_does_not_linger() -> None:
    """A frame without data is no event, and its type is forgotten with it."""
    assert read(b"event: token\n\ndata: a\n\n") == [Event("message", "a", "")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("250", 250), ("0", 0), ("1e3", None), ("-1", None), ("", None), ("\u0661", None)],
)
def test_retry_takes_ascii_digits_only(value: str, expected: int | None) -> None:
    """Anything but ASCII digits leaves the reconnection time alone."""
    reader = SseReader()
    assert reader.feed(f"retry: {value}\n\n".encode()) == []
    assert reader.retry_ms == expected


def test_unknown_and_misspelt_fields_are_ignored() -> None:
    """Field names are exact: neither case nor surrounding space is forgiven."""
    assert read(b"DATA: a\n data: b\ndata : c\nfoo: d\nfoo\n\n") == []


def test_cursor_of_an_earlier_connection_is_carried_over() -> None:
    """A reader that resumes keeps its cursor until a frame brings another, as browsers do."""
    reader = SseReader("1-4")
    assert reader.feed(b"data: a\n\n") == [Event("message", "a", "1-4")]


@dataclass(frozen=True)
class Frame:
    """One frame as a server may write it."""

    id: str | None
    type: str | None
    data: str


_words = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8)
_frames = st.builds(
    Frame,
    st.none() | _words,
    st.none() | _words,
    st.lists(_words, min_size=1, max_size=3).map("\n".join),
)
_line_ends = st.sampled_from(["\n", "\r", "\r\n"])


def written(frame: Frame, end: str) -> str:
    lines = [] if frame.id is None else [f"id: {frame.id}"]
    lines += [] if frame.type is None else [f"event: {frame.type}"]
    lines += [f"data: {line}" for line in frame.data.split("\n")]
    return end.join([": noise", *lines, "", ""])


@given(st.lists(st.tuples(_frames, _line_ends)))
def test_what_was_written_is_read(frames: list[tuple[Frame, str]]) -> None:
    """Any frames, each with any line end, are read back as they were meant."""
    expected, cursor = [], ""
    for frame, _ in frames:
        cursor = cursor if frame.id is None else frame.id
        expected.append(Event(frame.type or "message", frame.data, cursor))
    # A frame that ends in CR before one that begins with a comment: no LF can follow by chance.
    assert read("".join(written(*pair) for pair in frames).encode()) == expected


_fragments = st.sampled_from(
    [
        *(b"data", b"id", b"event", b"retry", b":", b" ", b"7", b"\0"),
        *(b"\r", b"\n", b"\r\n", b"\n\n"),
        *("\ufeff".encode(), "\U0001f642".encode(), b"\xe2\x82", b"\xff"),
    ]
)


@given(st.lists(_fragments | st.binary(max_size=3), max_size=60).map(b"".join), st.data())
@example(b"\xef\xbb\xbfdata: \xe2\x82\xac\r\n\r\n", None)
def test_any_chunk_boundaries_give_the_same_events(
    stream: bytes, data: st.DataObject | None
) -> None:
    """However the bytes are split, events, cursor and retry time are the same."""
    whole, parts = SseReader(), SseReader()
    if data is None:
        cuts = list(range(len(stream)))
    else:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    bounds = [0, *cuts, len(stream)]
    events = [event for start, stop in pairwise(bounds) for event in parts.feed(stream[start:stop])]
    assert events == whole.feed(stream)
    assert (parts.last_event_id, parts.retry_ms) == (whole.last_event_id, whole.retry_ms)
