"""What a generation has said so far: the same to who said it and to who reads it in the log."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.events import JOINABLE, Entry, Event, EventType, encode_data, fold
from shared.ids import EntryId
from worker.said import BYTES_PER_TOKEN, Said

REQUEST: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "model": "m"}

texts = st.builds(
    Event,
    st.sampled_from(sorted(JOINABLE)),
    st.fixed_dictionaries({"text": st.text(min_size=1, max_size=4)}),
)
calls = st.builds(
    Event,
    st.just(EventType.TOOL_CALL),
    st.fixed_dictionaries({"index": st.integers(0, 3), "arguments": st.text(max_size=4)}),
)


def token(text: str) -> Event:
    return Event(EventType.TOKEN, {"text": text})


def added(events: Sequence[Event]) -> Said:
    """As their own worker took note of them."""
    said = Said()
    for event in events:
        said.add(event)
    return said


def read(events: Sequence[Event]) -> Said:
    """As the next worker reads them in the log."""
    return Said.read(
        fold(
            Entry(EntryId(1, number), event.type, encode_data(event.data))
            for number, event in enumerate(events)
        )
    )


def dense(events: Sequence[Event]) -> list[Event]:
    """With the calls in order: none begins before the one in front of it."""
    begun, ordered = 0, []
    for event in events:
        if event.type is EventType.TOOL_CALL:
            index = min(event.data["index"], begun)
            begun = max(begun, index + 1)
            event = Event(event.type, {**event.data, "index": index})
        ordered.append(event)
    return ordered


@given(st.lists(texts | calls, max_size=12))
@example([Event(EventType.TOOL_CALL, {"index": 0, "arguments": "\ud83d"})])
@example([token("\ud83d"), token("\ude00")])
def test_whoever_said_it_and_whoever_reads_it_know_the_same(events: list[Event]) -> None:
    """A later attempt decides as the first one would have, halves of characters included."""
    events = dense(events)
    own, later = added(events), read(events)
    assert own.extend(REQUEST) == later.extend(REQUEST)
    assert (own.is_empty, own.is_only_text) == (later.is_empty, later.is_only_text)
    assert (own.has_more, own.tool_calls, own.size) == (
        later.has_more,
        later.tool_calls,
        later.size,
    )
    assert own.estimate_usage(REQUEST) == later.estimate_usage(REQUEST)


@pytest.mark.parametrize(
    ("events", "is_empty", "is_only_text", "tool_calls"),
    [
        ([], True, False, 0),
        ([token("a"), token("b")], False, True, 0),
        ([token("a"), Event(EventType.REASONING, {"text": "Hm"})], False, False, 0),
        ([Event(EventType.REFUSAL, {"text": "No"})], False, False, 0),
        ([Event(EventType.TOOL_CALL, {"index": 0, "arguments": ""})], False, False, 1),
        ([Event(EventType.TOOL_CALL, {"index": 2, "arguments": ""})], False, False, 3),
        ([Event(EventType.RETRYING, {"attempt": 2}), Event(EventType.STARTED, {})], True, False, 0),
    ],
)
def test_only_text_can_be_a_prefix(
    events: list[Event], is_empty: bool, is_only_text: bool, tool_calls: int
) -> None:
    """What tells of attempts is not said to anybody; a call counts from its beginning."""
    said = added(events)
    assert (said.is_empty, said.is_only_text, said.tool_calls) == (
        is_empty,
        is_only_text,
        tool_calls,
    )


def test_what_was_taken_back_was_never_said() -> None:
    """After a reset a reader of the log begins anew."""
    reset = Event(EventType.RESET, {})
    call = Event(EventType.TOOL_CALL, {"index": 0, "arguments": "{"})
    assert read([token("a"), call, reset]).is_empty
    assert read([token("a"), call, reset, token("b")]).extend(REQUEST)["messages"][-1] == {
        "role": "assistant",
        "content": "b",
    }


def test_the_request_itself_is_left_as_it_is() -> None:
    """Each attempt extends what was asked, not what the one before it asked."""
    said = added([token("Half "), token("an ans")])
    extended = said.extend(REQUEST)
    assert extended == {
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Half an ans"},
        ],
        "model": "m",
    }
    assert REQUEST["messages"] == [{"role": "user", "content": "Hello"}]
    assert Said().extend(REQUEST) is REQUEST


def test_an_estimate_counts_what_was_asked_and_what_was_said() -> None:
    """Rounded up, in the words of a bill, and marked as what it is."""
    said = added([token("é" * 3)])
    usage = said.estimate_usage(REQUEST)
    assert usage["completion_tokens"] == -(-6 // BYTES_PER_TOKEN)
    assert usage["prompt_tokens"] >= len("Hello") // BYTES_PER_TOKEN
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["estimated"] is True
    longer = {"messages": [*REQUEST["messages"], *REQUEST["messages"]]}
    assert said.estimate_usage(longer)["prompt_tokens"] > usage["prompt_tokens"]


@pytest.mark.parametrize("request_", [{}, {"messages": None}, {"messages": ["\ud83d"]}], ids=str)
def test_an_odd_request_can_be_estimated_too(request_: dict[str, Any]) -> None:
    """Whoever settles must not fail at it."""
    assert Said().estimate_usage(request_)["completion_tokens"] == 0
