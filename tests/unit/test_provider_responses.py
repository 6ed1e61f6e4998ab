"""What a run of the Responses API says, translated: events with their numbers, and how it ended.

The SDK is the real one; only its transport is a script instead of a socket.
"""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

from shared.errors import (
    ProviderRefused,
    ProviderTruncated,
)
from shared.events import Event, EventType
from shared.generation import Upstream
from tests.support.scripted_model import (
    BREAK,
    DONE,
    RUN,
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


def hear(*told: Told, **settings: Any) -> Heard:
    """A run from its beginning to its end."""
    return ask_run(ScriptedModel([*frames(created(), *told), DONE]), **settings)


EVERYTHING = [
    created(),
    of("response.queued", response={"id": RUN}),
    of("response.in_progress", response={"id": RUN}),
    of("response.output_item.added", output_index=0, item={"type": "reasoning", "id": "rs_1"}),
    of(
        "response.reasoning_summary_text.delta",
        delta="Hm",
        item_id="rs_1",
        output_index=0,
        summary_index=0,
    ),
    of("response.reasoning_text.delta", delta=".", item_id="rs_1", output_index=0, content_index=0),
    text("Hel"),
    text(""),
    text("lo"),
    of("response.refusal.delta", delta="No", item_id="msg_1", output_index=1, content_index=1),
    call(2, "f", "{"),
    piece(2, '"x"'),
    call(3, "g"),
    piece(3, "}"),
    of(
        "response.function_call_arguments.done",
        arguments="}",
        item_id="fc_3",
        output_index=3,
    ),
    ended("completed"),
]


def test_every_kind_of_delta_becomes_its_event_with_its_number() -> None:
    """What is informative only, and what is empty, is left out; tool calls are counted from 0."""
    heard = ask_run(ScriptedModel([*frames(*EVERYTHING), DONE]))
    assert heard.error is None
    assert list(zip(heard.positions, heard.said, strict=True)) == [
        (4, Event(EventType.REASONING, {"text": "Hm"})),
        (5, Event(EventType.REASONING, {"text": "."})),
        (6, Event(EventType.TOKEN, {"text": "Hel"})),
        (8, Event(EventType.TOKEN, {"text": "lo"})),
        (9, Event(EventType.REFUSAL, {"text": "No"})),
        (
            10,
            Event(EventType.TOOL_CALL, {"index": 0, "id": "call_2", "name": "f", "arguments": "{"}),
        ),
        (11, Event(EventType.TOOL_CALL, {"index": 0, "arguments": '"x"'})),
        (
            12,
            Event(EventType.TOOL_CALL, {"index": 1, "id": "call_3", "name": "g", "arguments": ""}),
        ),
        (13, Event(EventType.TOOL_CALL, {"index": 1, "arguments": "}"})),
    ]
    assert (heard.id, heard.finish.reason, heard.is_over) == (RUN, "tool_calls", True)


@pytest.mark.parametrize("told", EVERYTHING, ids=[told["type"] for told in EVERYTHING])
def test_the_script_says_what_the_sdk_knows(told: Told) -> None:
    """The fields of this file's events are those of OpenAI's own types: none more, none missing."""
    kinds = {
        get_args(kind.model_fields["type"].annotation)[0]: kind
        for kind in get_args(get_args(ResponseStreamEvent)[0])
    }
    fields = kinds[told["type"]].model_fields
    assert {name for name, field in fields.items() if field.is_required()} <= {
        *told,
        "sequence_number",
    }
    assert set(told) <= set(fields)
    assert set(told.get("response", ())) <= set(Response.model_fields)


def test_a_run_is_asked_for_and_rejoined_at_the_addresses_of_the_api() -> None:
    """A run that the log has nothing of is read from its beginning."""
    pieces = [*frames(created(), ended("completed")), DONE]
    server = ScriptedModel(pieces)
    ask_run(server)
    rejoin(server, Upstream(RUN, None))
    rejoin(server, Upstream(RUN, 0))
    rejoin(server, Upstream(RUN, 41))
    assert server.requests == [
        "POST /v1/responses",
        f"GET /v1/responses/{RUN}?stream=true",
        f"GET /v1/responses/{RUN}?stream=true&starting_after=0",
        f"GET /v1/responses/{RUN}?stream=true&starting_after=41",
    ]
    assert len(server.asked) == 1


# --- rejoined -----------------------------------------------------------------------------------


def read_on(*told: Told, tool_calls: int) -> list[Event]:
    server = ScriptedModel([*frames(*told, ended("completed"), first=9), DONE])
    heard = rejoin(server, Upstream(RUN, 8), tool_calls)
    assert (heard.error, heard.finish.reason) == (None, "tool_calls")
    assert heard.positions == [9 + n for n in range(len(told))]
    return heard.said


def test_a_call_goes_on_in_the_middle_of_its_arguments() -> None:
    """A piece of a call that was begun before belongs to the last one; the next is another."""
    assert read_on(piece(4, "1"), piece(4, "}"), call(5, "h"), piece(5, "{"), tool_calls=2) == [
        Event(EventType.TOOL_CALL, {"index": 1, "arguments": "1"}),
        Event(EventType.TOOL_CALL, {"index": 1, "arguments": "}"}),
        Event(EventType.TOOL_CALL, {"index": 2, "id": "call_5", "name": "h", "arguments": ""}),
        Event(EventType.TOOL_CALL, {"index": 2, "arguments": "{"}),
    ]


def test_a_call_that_begins_behind_the_others_gets_the_next_index() -> None:
    """Between two calls nothing is gone on with."""
    assert read_on(call(3, "g"), piece(3, "{}"), tool_calls=1) == [
        Event(EventType.TOOL_CALL, {"index": 1, "id": "call_3", "name": "g", "arguments": ""}),
        Event(EventType.TOOL_CALL, {"index": 1, "arguments": "{}"}),
    ]


def test_calls_of_before_count_for_how_it_ended() -> None:
    """Nothing but the end was missing: it still ends in tool calls."""
    assert read_on(tool_calls=1) == []


@given(st.lists(st.sampled_from("tca"), min_size=1, max_size=12), st.data())
def test_read_in_two_parts_it_is_the_same_answer(plan: list[str], data: st.DataObject) -> None:
    """Whatever was said before the cut and behind it: together they are what one reader hears."""
    told, calls = [created()], 0
    for number, kind in enumerate(plan, start=1):
        if kind == "t" or (kind == "a" and not calls):
            told.append(text(f"t{number}"))
        elif kind == "c":
            calls += 1
            told.append(call(calls, f"f{number}"))
        else:
            told.append(piece(calls, f"a{number}"))
    told.append(ended("completed"))
    whole = ask_run(ScriptedModel([*frames(*told), DONE]))
    cut = data.draw(st.integers(0, len(plan)))
    first = ask_run(ScriptedModel([*frames(*told[: cut + 1]), BREAK]))
    assert isinstance(first.error, ProviderTruncated)
    begun = sum("id" in event.data for event in first.said)
    behind = frames(*told[cut + 1 :], first=cut + 1)
    second = rejoin(ScriptedModel([*behind, DONE]), Upstream(RUN, cut), begun)
    assert first.said + second.said == whole.said
    assert first.positions + second.positions == whole.positions
    assert second.finish == whole.finish


# --- how it ended -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (ended("completed"), "stop"),
        (ended("incomplete", incomplete_details={"reason": "max_output_tokens"}), "length"),
        (ended("incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
        (ended("incomplete", incomplete_details={"reason": "new"}), "length"),
        (ended("incomplete", incomplete_details={"reason": None}), "length"),
        (ended("incomplete", incomplete_details=None), "length"),
        (ended("incomplete"), "length"),
    ],
)
def test_an_end_is_said_in_the_words_of_chat_completions(end: Told, reason: str) -> None:
    """An answer that is incomplete for a reason we do not know was at least not finished."""
    heard = hear(text("a"), end)
    assert (heard.error, heard.finish.reason, heard.is_over) == (None, reason, True)


@pytest.mark.parametrize(
    ("end", "retryable", "is_over"),
    [
        (ended("failed", error={"code": "server_error", "message": "oops"}), True, True),
        (ended("failed", error={"code": "rate_limit_exceeded", "message": ""}), True, True),
        (ended("failed", error={"code": "invalid_prompt", "message": "no"}), False, True),
        (ended("failed", error=None), False, True),
        (ended("cancelled", "incomplete"), False, True),
        (ended("cancelled", "incomplete", incomplete_details=None, error=None), False, True),
        (of("error", code="server_error", message="oops", param=None), True, False),
        (of("error", code="invalid_prompt", message="no", param=None), False, False),
        (of("error", code=None, message="no", param=None), False, False),
        (of("error"), False, False),
    ],
)
def test_a_run_that_failed_is_not_taken_for_an_answer(
    end: Told, retryable: bool, is_over: bool
) -> None:
    """Asking anew may help only where the server says so; a run that ended is not rejoined."""
    heard = hear(text("a"), end)
    assert isinstance(heard.error, ProviderRefused)
    assert (heard.error.code, heard.error.retryable) == ("provider_failed", retryable)
    is_cancelled = "cancelled" in heard.error.detail
    assert (heard.is_over, heard.error.status) == (is_over, 410 if is_cancelled else None)
    assert heard.finish.reason is None
    assert len(heard.said) == 1


def test_an_error_in_the_form_of_the_other_api_is_an_error_too() -> None:
    """Proxies in between speak Chat Completions."""
    heard = ask_run(ScriptedModel([*frames(created(), text("a")), frame({"error": {"code": "x"}})]))
    assert isinstance(heard.error, ProviderRefused)
    assert (heard.error.retryable, heard.is_over) == (True, False)


CUT: dict[str, list[Piece]] = {
    "done without an end": [*frames(created(), text("a")), DONE],
    "no end at all": frames(created(), text("a")),
    "broke": [*frames(created(), text("a")), BREAK],
    "broke within a frame": [*frames(created()), b'data: {"type"', BREAK],
    "nothing": [DONE],
    "nothing but its name": frames(created()),
}


@pytest.mark.parametrize("requires", [True, False])
@pytest.mark.parametrize("pieces", CUT.values(), ids=CUT.keys())
def test_a_run_that_was_cut_off_never_looks_complete(pieces: list[Piece], requires: bool) -> None:
    """Every run says how it ended: the setting for servers that never do is not for this API."""
    server = ScriptedModel(pieces)
    heard = ask_run(server, require_finish_reason=requires)
    assert isinstance(heard.error, ProviderTruncated)
    assert (heard.error.retryable, heard.is_over) == (True, False)
    assert server.body.is_closed
