"""Runs that go wrong: whatever a server sends, its trouble has a name of ours."""

import json
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import (
    ProviderError,
    ProviderGarbled,
    ProviderSilent,
)
from shared.events import Event, EventType
from shared.generation import Upstream
from tests.support.scripted_model import (
    BREAK,
    DONE,
    RUN,
    SILENCE,
    Heard,
    Piece,
    ScriptedModel,
    Told,
    ask_run,
    call,
    created,
    ended,
    frame,
    frames,
    of,
    piece,
    rejoin,
    text,
)

# --- garbage ------------------------------------------------------------------------------------


def numbered(told: Told) -> Told:
    return {**told, "sequence_number": 1}


def begun(**changes: object) -> Told:
    """A tool call, odd in one place."""
    told = call(0, "f")
    return {**told, "item": {**told["item"], **changes}}


NO_NUMBERS: list[object] = [None, -1, 1.5, True, "1", [1], {}]

GARBAGE: dict[str, object] = {
    **{
        f"a number that is {number!r}": {**text("x"), "sequence_number": number}
        for number in NO_NUMBERS
    },
    "not an object": ["x"],
    "a word": "x",
    "no type": {"sequence_number": 1},
    "a type that is none": {"type": ["x"], "sequence_number": 1},
    "no number": text("x"),
    "no delta": {"type": "response.output_text.delta", "sequence_number": 1},
    "a delta that is no text": {**text(5), "sequence_number": 1},
    "a delta that is null": {**text(None), "sequence_number": 1},
    "no item": {"type": "response.output_item.added", "output_index": 0, "sequence_number": 1},
    "an item that is none": {**of("response.output_item.added", item=5), "sequence_number": 1},
    "an item without a type": {**of("response.output_item.added", item={}), "sequence_number": 1},
    "a call without an id": {
        **of("response.output_item.added", output_index=0),
        "item": {"type": "function_call", "name": "f"},
        "sequence_number": 1,
    },
    "a call with a number for an id": numbered(begun(call_id=5)),
    "a call whose name is an object": numbered(begun(name={})),
    "a call whose arguments are an object": numbered(begun(arguments={"a": 1})),
    "a call whose arguments are a number": numbered(begun(arguments=5)),
    "a piece that is no text": numbered(piece(0, {"a": 1})),
    "a piece of a call that never began": numbered(piece(0, "x")),
    "an index that is none": {**piece(0, "x"), "output_index": [1], "sequence_number": 1},
    "no response": {"type": "response.completed", "sequence_number": 1},
    "a response that is none": {**of("response.completed", response=5), "sequence_number": 1},
    "no status": {**of("response.completed", response={}), "sequence_number": 1},
    "details that are none": {
        **ended("incomplete", incomplete_details=["x"]),
        "sequence_number": 1,
    },
    "an error that is none": {**ended("failed", error=["x"]), "sequence_number": 1},
}


@pytest.mark.parametrize("nonsense", GARBAGE.values(), ids=GARBAGE.keys())
def test_nonsense_is_named_as_such(nonsense: object) -> None:
    """A server that does not speak the protocol neither crashes us nor is believed."""
    behind = frames(text("b"), ended("completed"), first=2)
    heard = ask_run(ScriptedModel([*frames(created()), frame(nonsense), *behind, DONE]))
    assert isinstance(heard.error, ProviderGarbled)
    assert heard.said == []
    assert heard.finish.reason is None


@pytest.mark.parametrize("odd", [None, "", 5, {}, "a/b", "..", "a?b", "a b", "a" * 600, "\ud83d"])
def test_a_run_without_a_usable_name_is_none(odd: object) -> None:
    """Its name goes into a path, and into a record."""
    heard = ask_run(ScriptedModel([*frames(created(odd), text("a"), ended("completed")), DONE]))
    assert isinstance(heard.error, ProviderGarbled)
    assert heard.said == []


@pytest.mark.parametrize("nonsense", [b"{nonsense}", b"[" * 100_000], ids=["words", "nested"])
def test_what_is_not_even_json_is_nonsense(nonsense: bytes) -> None:
    """The SDK reads it, we name it."""
    frames_of = [*frames(created(), text("a")), b"data: " + nonsense + b"\n\n", DONE]
    heard = ask_run(ScriptedModel(frames_of))
    assert isinstance(heard.error, ProviderGarbled)
    assert [event.data["text"] for event in heard.said] == ["a"]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["function_call", "completed", "incomplete", "failed", "", "\ud83d"])
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "type",
                    "status",
                    "usage",
                    "error",
                    "code",
                    "reason",
                    "call_id",
                    "name",
                    "arguments",
                    "incomplete_details",
                    "input_tokens",
                    "output_tokens",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
chunks = st.builds(
    lambda kind, fields: {**fields, **({"type": kind} if kind else {})},
    st.sampled_from(
        [
            "",
            "error",
            "response.completed",
            "response.created",
            "response.failed",
            "response.function_call_arguments.delta",
            "response.incomplete",
            "response.new",
            "response.output_item.added",
            "response.output_text.delta",
            "response.reasoning_text.delta",
        ]
    ),
    st.dictionaries(
        st.sampled_from(
            ["code", "delta", "error", "item", "message", "output_index", "response", "type"]
        ),
        anything,
    ).flatmap(
        lambda fields: st.sampled_from([fields, {**fields, "sequence_number": 1}]),
    ),
)


def check_events(heard: Heard) -> None:
    """They are such as every client understands."""
    for event, position in zip(heard.said, heard.positions, strict=True):
        assert type(position) is int
        if event.type is EventType.TOOL_CALL:
            assert event.data["index"] >= 0
        said = {name: value for name, value in event.data.items() if name != "index"}
        assert all(isinstance(value, str) for value in said.values())


@given(chunks)
@example({"type": "response.completed", "response": {"status": "completed", "usage": [1]}})
def test_no_object_at_all_ends_in_anything_but_an_error_of_ours(nonsense: Told) -> None:
    """Whatever a chunk holds: it is understood, passed over, or a ProviderError."""
    behind = frames(ended("completed"), first=2)
    server = ScriptedModel([*frames(created()), frame(nonsense), *behind, DONE])
    heard = ask_run(server)
    assert isinstance(heard.error, ProviderError) or heard.finish.reason is not None
    check_events(heard)
    heard = rejoin(server, Upstream(RUN, 0), 1)
    assert isinstance(heard.error, ProviderError) or heard.finish.reason is not None
    check_events(heard)
    assert server.body.is_closed


# --- halves, pieces, silence --------------------------------------------------------------------


def test_a_character_in_two_halves_is_handed_out_whole() -> None:
    """JSON can spell the halves of a pair in two deltas; the number is that of the second."""
    halves = [text("a\ud83d"), text(""), text("\ude00b"), text("\ud83d"), ended("completed")]
    heard = ask_run(ScriptedModel([*frames(created(), *halves), DONE]))
    assert [event.data["text"] for event in heard.said] == ["a😀b", "\ufffd"]
    assert heard.positions[0] == 3


def test_halves_of_different_kinds_do_not_meet() -> None:
    """What waits gives way to another kind of text, and keeps its place and its number."""
    refusal = of("response.refusal.delta", delta="\ude00")
    told = [text("a\ud83d"), refusal, text("\ude00b"), text("c\ud83d"), ended("completed")]
    heard = ask_run(ScriptedModel([*frames(created(), *told), DONE]))
    assert list(zip(heard.positions, heard.said, strict=True)) == [
        (1, Event(EventType.TOKEN, {"text": "a\ufffd"})),
        (2, Event(EventType.REFUSAL, {"text": "\ufffd"})),
        (3, Event(EventType.TOKEN, {"text": "\ufffdb"})),
        (4, Event(EventType.TOKEN, {"text": "c\ufffd"})),
    ]


def test_halves_in_the_arguments_of_a_call_are_handed_out_whole() -> None:
    """They are text too, each call's its own."""
    told = [call(1, "f", "\ud83d"), piece(1, "\ude00"), piece(1, "\ud83d"), call(2, "g", "\ude00")]
    heard = ask_run(ScriptedModel([*frames(created(), *told, ended("completed")), DONE]))
    assert list(zip(heard.positions, (event.data for event in heard.said), strict=True)) == [
        (2, {"index": 0, "id": "call_1", "name": "f", "arguments": "😀"}),
        (3, {"index": 0, "arguments": "\ufffd"}),
        (4, {"index": 1, "id": "call_2", "name": "g", "arguments": "\ufffd"}),
    ]


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5),
    st.lists(st.integers(1, 60), max_size=30),
)
def test_the_answer_is_the_same_whatever_pieces_the_socket_gives(
    texts: list[str], sizes: list[int]
) -> None:
    """Frames cut in the middle, of a character too, and frames glued together."""
    told = [created(), *(text(delta) for delta in texts), call(1, "f"), ended("completed")]
    raw = [
        b"event: %b\ndata: %b\n\n"
        % (event["type"].encode(), json.dumps({**event, "sequence_number": n}).encode())
        for n, event in enumerate(told)
    ]
    stream, pieces = b"".join(raw), list[Piece]()
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    heard = ask_run(ScriptedModel([*pieces, stream]))
    assert [event.data["text"] for event in heard.said[:-1]] == texts
    assert heard.positions == list(range(1, len(texts) + 2))
    assert (heard.error, heard.finish.reason) == (None, "tool_calls")


@pytest.mark.parametrize("pieces", [[SILENCE], [*frames(created()), b": ping\n\n", SILENCE]])
def test_a_run_that_says_nothing_is_left_after_the_first_token_timeout(
    pieces: list[Piece],
) -> None:
    """Its name is not a token. It goes on at its provider, and can be rejoined."""
    heard = ask_run(ScriptedModel(pieces), first_token_timeout=timedelta(seconds=7))
    assert isinstance(heard.error, ProviderSilent)
    assert (heard.error.phase, heard.error.retryable) == ("first_token", True)
    assert not heard.is_over


def test_a_run_that_stops_in_the_middle_is_left_after_the_stall_timeout() -> None:
    """From then on it is the pause that counts."""
    server = ScriptedModel([*frames(created(), text("a")), SILENCE])
    heard = ask_run(server, stall_timeout=timedelta(seconds=7))
    assert isinstance(heard.error, ProviderSilent)
    assert (heard.error.phase, heard.is_over) == ("stall", False)
    assert server.body.is_closed


@pytest.mark.parametrize("after", [[BREAK], [SILENCE], [b"data: {\n\n"], [frame(["x"])]], ids=str)
def test_what_is_lost_after_the_end_cuts_nothing_off(after: list[Piece]) -> None:
    """The answer had been complete."""
    heard = ask_run(ScriptedModel([*frames(created(), text("a"), ended("completed")), *after]))
    assert (heard.error, heard.finish.reason, len(heard.said)) == (None, "stop", 1)
