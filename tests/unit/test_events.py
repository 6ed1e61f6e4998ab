"""Events: one line of JSON each, and what a list of them says to a client."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.events import (
    CLOSING,
    JOINABLE,
    Answer,
    Entry,
    EventType,
    ToolCall,
    decode_data,
    decode_entries,
    encode_data,
    fold,
    predecessor,
)
from shared.ids import BEGINNING, EntryId
from tests.support import fold as oracle
from tests.support.sse_reader import Event as SseEvent

# Half surrogates included: JSON can spell them, and models have sent them.
any_text = st.text(alphabet=st.characters())
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(any_text, json_values, max_size=4))
def test_data_is_read_back_from_its_one_line(data: dict[str, Any]) -> None:
    """Whatever it holds, it becomes one line of UTF-8 and is the same afterwards."""
    encoded = encode_data(data)
    assert decode_data(encoded) == data
    assert not set(b"\r\n") & set(encoded)
    encoded.decode()


def test_data_is_written_as_short_as_it_can_be() -> None:
    """No spaces, no escapes that UTF-8 does not need: each byte is paid for by every reader."""
    assert encode_data({"text": "é👋", "n": 1}) == '{"text":"é👋","n":1}'.encode()


@pytest.mark.parametrize("kind", list(EventType))
def test_an_entry_is_read_as_redis_returns_it(kind: EventType) -> None:
    """RESP2 gives the fields as a list, other clients as a dict."""
    expected = Entry(EntryId(12, 3), kind, b'{"text":"x"}')
    as_list = [b"t", kind.value.encode(), b"d", b'{"text":"x"}']
    as_dict = dict(zip(as_list[::2], as_list[1::2], strict=True))
    assert decode_entries([(b"12-3", as_list)]) == [expected]
    assert decode_entries([(b"12-3", as_dict)]) == [expected]


runs = st.builds(
    lambda epoch, start, length: [EntryId(epoch, start + at) for at in range(length)],
    *(st.integers(1, 2), st.integers(0, 8), st.integers(0, 12)),
)


@given(st.lists(runs, max_size=2).map(lambda runs: sorted({each for run in runs for each in run})))
@example([EntryId(1, seq) for seq in (0, 1, 2, 4, 5, 6)])
@example([*(EntryId(1, seq) for seq in range(4)), *(EntryId(2, seq) for seq in (4, 5))])
def test_each_entry_is_read_under_its_own_id(ids: list[EntryId]) -> None:
    """Whether or not ids between the first and the last are missing, or epochs change."""
    rows = [
        (str(each).encode(), [b"t", b"token", b"d", b'{"n":%d}' % at])
        for at, each in enumerate(ids)
    ]
    read = decode_entries(rows)
    assert [(entry.id, entry.data) for entry in read] == [
        (each, b'{"n":%d}' % at) for at, each in enumerate(ids)
    ]
    assert all(type(entry) is Entry and type(entry.id) is EntryId for entry in read)


def entry(seq: int, kind: EventType, **data: Any) -> Entry:
    return Entry(EntryId(5, seq), kind, encode_data(data))


def test_a_fold_appends_texts_by_their_kind() -> None:
    """Text, reasoning and refusal are three texts, each in the order of the log."""
    answer = fold(
        [
            entry(0, EventType.STARTED, attempt=1),
            entry(1, EventType.REASONING, text="Hm"),
            entry(2, EventType.TOKEN, text="Hel"),
            entry(3, EventType.REASONING, text="."),
            entry(4, EventType.TOKEN, text="lo"),
            entry(5, EventType.REFUSAL, text="No"),
        ]
    )
    assert (answer.text, answer.reasoning, answer.refusal) == ("Hello", "Hm.", "No")
    assert answer.last_id == EntryId(5, 5)
    assert answer.closing is None


def test_a_reset_forgets_everything_said_before() -> None:
    """Text, reasoning, refusal and tool calls of the attempt that did not count are gone."""
    said = [
        entry(1, EventType.TOKEN, text="a"),
        entry(2, EventType.REASONING, text="b"),
        entry(3, EventType.REFUSAL, text="c"),
        entry(4, EventType.TOOL_CALL, index=0, name="f", arguments="{"),
    ]
    answer = fold([*said, entry(5, EventType.RESET)])
    assert answer == Answer(last_id=EntryId(5, 5))
    assert answer.is_empty
    assert fold([entry(6, EventType.TOKEN, text="d")], answer).text == "d"


@pytest.mark.parametrize(
    "said",
    [
        entry(1, EventType.TOKEN, text="a"),
        entry(1, EventType.REASONING, text="a"),
        entry(1, EventType.REFUSAL, text="a"),
        entry(1, EventType.TOOL_CALL, index=0, arguments=""),
    ],
    ids=lambda said: said.type,
)
def test_whoever_was_told_anything_has_something_to_forget(said: Entry) -> None:
    """Every kind of content counts."""
    assert not fold([said]).is_empty


def test_tool_calls_are_put_together_by_their_index() -> None:
    """Id and name come once, arguments in pieces; calls may be told in turns."""
    answer = fold(
        [
            entry(1, EventType.TOOL_CALL, index=0, id="a", name="f", arguments=""),
            entry(2, EventType.TOOL_CALL, index=1, id="b", name="g", arguments='{"x"'),
            entry(3, EventType.TOOL_CALL, index=0, arguments="{}"),
            entry(4, EventType.TOOL_CALL, index=1, arguments=":1}"),
        ]
    )
    assert answer.tool_calls == {
        0: ToolCall(0, "a", "f", "{}"),
        1: ToolCall(1, "b", "g", '{"x":1}'),
    }


@pytest.mark.parametrize("kind", sorted(CLOSING))
def test_a_closing_event_leaves_the_partial_text(kind: EventType) -> None:
    """Cancelled and failed answers keep what had been said."""
    answer = fold([entry(1, EventType.TOKEN, text="half"), entry(2, kind, code="x")])
    assert (answer.text, answer.closing) == ("half", kind)
    assert answer.closing_data == {"code": "x"}


contents: st.SearchStrategy[tuple[EventType, dict[str, Any]]] = st.one_of(
    st.tuples(st.sampled_from(sorted(JOINABLE)), st.fixed_dictionaries({"text": st.text()})),
    st.tuples(st.just(EventType.RESET), st.just({})),
    st.tuples(
        st.just(EventType.TOOL_CALL),
        st.fixed_dictionaries(
            {"index": st.integers(0, 2), "arguments": st.text(max_size=3)},
            optional={"id": st.text(min_size=1, max_size=3), "name": st.text("fg", min_size=1)},
        ),
    ),
)


@given(st.lists(contents), st.integers(0, 20))
def test_a_fold_is_what_the_oracle_says_wherever_it_is_cut(
    said: list[tuple[EventType, dict[str, Any]]], cut: int
) -> None:
    """Pages fold onto each other; the result is that of a client written from the wire format."""
    entries = [entry(seq, kind, **data) for seq, (kind, data) in enumerate(said)]
    answer = fold(entries[cut:], fold(entries[:cut]))
    expected = oracle.fold(
        SseEvent(kind.value, json.dumps(data), f"5-{seq}") for seq, (kind, data) in enumerate(said)
    )
    assert (answer.text, answer.reasoning, answer.refusal) == (
        expected.text,
        expected.reasoning,
        expected.refusal,
    )
    assert {i: (c.id, c.name, c.arguments) for i, c in answer.tool_calls.items()} == {
        i: (c.id, c.name, c.arguments) for i, c in expected.tool_calls.items()
    }


@pytest.mark.parametrize(
    ("kind", "entry_id", "data", "cursor", "expected"),
    [
        (EventType.QUEUED, EntryId(5, 0), {}, BEGINNING, True),
        (EventType.QUEUED, EntryId(5, 0), {}, EntryId(4, 9), False),
        (EventType.TOKEN, EntryId(5, 3), {"text": "x"}, EntryId(5, 2), True),
        (EventType.TOKEN, EntryId(5, 3), {"text": "x"}, EntryId(5, 1), False),
        (EventType.TOKEN, EntryId(5, 3), {"text": "x"}, EntryId(5, 3), False),
        (EventType.TOKEN, EntryId(5, 3), {"text": "x", "prev": "4-2"}, EntryId(4, 2), False),
        (EventType.STARTED, EntryId(5, 0), {"prev": "4-2"}, EntryId(4, 2), True),
        (EventType.STARTED, EntryId(5, 0), {"prev": "4-2"}, EntryId(4, 3), False),
        (EventType.STARTED, EntryId(5, 0), {"prev": "4-2"}, BEGINNING, False),
        (EventType.CANCELLED, EntryId(5, 0), {"prev": "4-2"}, EntryId(4, 2), True),
        (EventType.CANCELLED, EntryId(5, 0), {}, EntryId(4, 2), False),
    ],
)
def test_an_entry_stands_on_a_cursor_only_if_nothing_lies_between(
    kind: EventType, entry_id: EntryId, data: dict[str, Any], cursor: EntryId, expected: bool
) -> None:
    """Within an epoch ids are dense; the first entry of one names what it stands on."""
    assert (predecessor(Entry(entry_id, kind, encode_data(data))) == cursor) is expected
