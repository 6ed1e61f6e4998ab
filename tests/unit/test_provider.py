"""What a model server says, translated: events, a finish, or an error with a name.

The SDK is the real one; only its transport is a script instead of a socket.
"""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ProviderGarbled, ProviderSilent, ProviderTruncated
from shared.events import Event, EventType
from tests.support.scripted_model import (
    BREAK,
    DONE,
    SILENCE,
    Piece,
    ScriptedModel,
    ask,
    chunk,
    connected,
    frame,
)
from tests.support.virtual_clock import run_virtual


def test_every_kind_of_delta_becomes_its_event() -> None:
    """Text, refusal and both spellings of reasoning; empty ones are left out."""
    said, finish = ask(
        ScriptedModel(
            [
                chunk(role="assistant", content=""),
                chunk(reasoning_content="Hm"),
                chunk(reasoning="."),
                chunk(content="Hel"),
                chunk(content="lo", refusal="No"),
                chunk("stop"),
                frame({"choices": [], "usage": {"completion_tokens": 2}}),
                DONE,
            ]
        )
    )
    assert said == [
        Event(EventType.REASONING, {"text": "Hm"}),
        Event(EventType.REASONING, {"text": "."}),
        Event(EventType.TOKEN, {"text": "Hel"}),
        Event(EventType.TOKEN, {"text": "lo"}),
        Event(EventType.REFUSAL, {"text": "No"}),
    ]
    assert (finish.reason, finish.usage) == ("stop", {"completion_tokens": 2})


def test_tool_calls_come_in_pieces() -> None:
    """Index and arguments always, id and name where the server says them."""
    first = {"index": 1, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    second = {"index": 1, "function": {"arguments": '{"x"'}}
    said, finish = ask(
        ScriptedModel([chunk(tool_calls=[first, second]), chunk("tool_calls"), DONE])
    )
    assert said == [
        Event(EventType.TOOL_CALL, {"index": 1, "id": "a", "name": "f", "arguments": ""}),
        Event(EventType.TOOL_CALL, {"index": 1, "arguments": '{"x"'}),
    ]
    assert finish.reason == "tool_calls"


def test_other_choices_are_not_mixed_in() -> None:
    """We ask for one answer; whatever else comes is not part of it."""
    other = frame({"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": "stop"}]})
    said, _ = ask(ScriptedModel([other, chunk(content="a"), other, chunk("stop"), DONE]))
    assert said == [Event(EventType.TOKEN, {"text": "a"})]


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5),
    st.lists(st.integers(1, 60), max_size=30),
)
def test_the_text_is_the_same_whatever_pieces_the_socket_gives(
    texts: list[str], sizes: list[int]
) -> None:
    """Frames cut in the middle, of a character too, and frames glued together."""
    stream = b"".join([*(chunk(content=text) for text in texts), chunk("stop"), DONE])
    pieces: list[Piece] = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    said, _ = ask(ScriptedModel([*pieces, stream]))
    assert [event.data["text"] for event in said] == texts


def test_what_we_own_is_said_whatever_the_client_asked_for() -> None:
    """The rest of the request goes out as it came, asked once."""
    server = ScriptedModel([chunk("stop"), DONE])
    ask(server, {"messages": [], "model": "other", "top_k": 3, "stream": False})
    assert server.asked == [
        {
            "messages": [],
            "model": "m",
            "top_k": 3,
            "stream": True,
            "stream_options": {"include_usage": True, "include_obfuscation": False},
        }
    ]


TRUNCATED: dict[str, list[Piece]] = {
    "no finish reason": [chunk(content="a"), DONE],
    "no end at all": [chunk(content="a")],
    "nothing said": [DONE],
    "connection broke": [chunk(content="a"), BREAK],
    "broke within a frame": [chunk(content="a"), b'data: {"cho', BREAK],
}


@pytest.mark.parametrize("pieces", TRUNCATED.values(), ids=TRUNCATED.keys())
def test_an_answer_that_was_cut_off_never_looks_complete(pieces: list[Piece]) -> None:
    """Without a finish reason it is truncated, however the stream ended."""
    server = ScriptedModel(pieces)
    with pytest.raises(ProviderTruncated) as refusal:
        ask(server)
    assert refusal.value.retryable
    assert server.body.is_closed


def test_an_answer_that_nobody_wants_any_more_is_let_go_of() -> None:
    """Whoever stops reading in the middle stops paying: the connection is closed at once."""

    async def main() -> None:
        server = ScriptedModel([chunk(content="a"), chunk(content="b"), SILENCE])
        async with connected(server) as provider:
            async with provider.open_answer({"messages": []}, "m") as answer:
                await anext(answer)
                assert not server.body.is_closed
            assert server.body.is_closed

    run_virtual(main())


def test_servers_that_never_give_a_reason_may_be_trusted_by_a_setting() -> None:
    """Then the end of the stream is the end of the answer."""
    said, finish = ask(ScriptedModel([chunk(content="a"), DONE]), require_finish_reason=False)
    assert (len(said), finish.reason) == (1, None)


@pytest.mark.parametrize("after", [[BREAK], [SILENCE], [b"data: {\n\n"]], ids=str)
def test_what_is_lost_after_the_finish_cuts_nothing_off(after: list[Piece]) -> None:
    """Usage is bookkeeping: the answer had been complete."""
    said, finish = ask(ScriptedModel([chunk(content="a"), chunk("length"), *after]))
    assert (len(said), finish.reason, finish.usage) == (1, "length", None)


@pytest.mark.parametrize(
    "nonsense",
    [
        frame(["x"]),
        frame({"choices": [{"delta": {"content": 5}}]}),
        frame({"choices": ["x"]}),
        frame({"choices": 7}),
        frame({"choices": [{"delta": {"tool_calls": [{"index": "one"}]}}]}),
        b"data: {nonsense}\n\n",
    ],
)
def test_nonsense_is_named_as_such(nonsense: bytes) -> None:
    """A server that does not speak the protocol neither crashes us nor is believed."""
    with pytest.raises(ProviderGarbled):
        ask(ScriptedModel([chunk(content="a"), nonsense, chunk("stop"), DONE]))


def test_a_server_that_stays_silent_is_left_after_the_first_token_timeout() -> None:
    """Headers, comments and empty deltas are not a first token."""
    begun: list[Piece] = [chunk(role="assistant"), b": ping\n\n", SILENCE]
    for pieces in ([SILENCE], begun):
        server = ScriptedModel(pieces)
        with pytest.raises(ProviderSilent) as refusal:
            ask(server, first_token_timeout=timedelta(seconds=7))
        assert refusal.value.phase == "first_token"
        assert refusal.value.code == "provider_first_token_timeout"


def test_a_server_that_stops_in_the_middle_is_left_after_the_stall_timeout() -> None:
    """From then on it is the pause that counts, not the whole."""
    server = ScriptedModel([chunk(content="a"), SILENCE])
    with pytest.raises(ProviderSilent) as refusal:
        ask(server, stall_timeout=timedelta(seconds=7))
    assert (refusal.value.phase, refusal.value.code) == ("stall", "provider_stalled")
    assert server.body.is_closed
