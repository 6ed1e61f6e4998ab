"""The stand-in's Responses API, without a connection: what is asked, and what is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from worker.standin import Ledger, Outcome, compose, request_key
from worker.standin.directive import parse
from worker.standin.error import RequestInvalid
from worker.standin.responses.narration import Event, Narration
from worker.standin.responses.request import ResponsesRequest

MODEL = "standin"
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def request(asked: Any, **parameters: Any) -> ResponsesRequest:
    body = {"model": MODEL, "input": asked, **parameters}
    return ResponsesRequest.parse(json.dumps(body).encode())


def narrate(directive: str, *, background: bool = True, **parameters: Any) -> list[Event]:
    """All events of the answer that the directive asks for."""
    asked = request(f"Why? [standin {directive}]", background=background, **parameters)
    script = compose(MODEL, asked.messages, tools=asked.tools, limit=asked.limit)
    narration = Narration(
        "resp_1", asked, created_at=1.5, prompt_tokens=script.prompt_tokens, with_usage=True
    )
    events = narration.open()
    for delta in script.deltas:
        events += narration.tell(delta)
    return events + narration.finish(script.finish_reason)


def told(events: list[Event]) -> list[dict[str, Any]]:
    """The events' data."""
    return [json.loads(event.data.split(b"\ndata: ")[1]) for event in events]


def types(events: list[Event]) -> list[str]:
    """The events' types, one for each run of the same."""
    names = [data["type"].removeprefix("response.") for data in told(events)]
    return [n for i, n in enumerate(names) if i == 0 or names[i - 1] != n]


@given(
    shape=st.sampled_from(["kind=unicode", "tool=3", "refusal=1", "finish=length", "kind=lines"]),
    reasoning=st.integers(0, 3),
    tokens=st.integers(0, 30),
    background=st.booleans(),
)
def test_every_event_is_one_the_official_client_knows(
    shape: str, reasoning: int, tokens: int, background: bool
) -> None:
    """All fields have their types, the numbers have no hole, and only the last is the last."""
    events = narrate(f"{shape} reasoning={reasoning} tokens={tokens}", background=background)
    for event in events:
        head, data = event.data.removesuffix(b"\n\n").split(b"\ndata: ")
        known = EVENT.validate_json(data)
        assert head == b"event: " + known.type.encode()
        assert known.sequence_number == event.number
    assert [event.number for event in events] == list(range(len(events)))
    assert [event.last for event in events] == [False] * (len(events) - 1) + [True]


def test_a_text_is_told_in_order() -> None:
    """In the background: created, queued, in progress, the reasoning, the text, completed."""
    assert types(narrate("reasoning=2 tokens=2")) == [
        "created",
        "queued",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_tool_calls_are_told_one_after_the_other() -> None:
    """Each is an item of its own, opened with its name."""
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]
    call.append("output_item.done")
    tools = [{"type": "function", "name": "weather", "parameters": {}}]
    events = narrate("tool=2", background=False, tools=tools)
    assert types(events) == ["created", "in_progress", *call, *call, "completed"]
    items = told(events)[-1]["response"]["output"]
    assert [(item["name"], list(json.loads(item["arguments"]))) for item in items] == [
        ("weather", ["query"]),
        ("weather", ["query"]),
    ]


@given(shape=st.sampled_from(["", " tool=2", " refusal=1"]), reasoning=st.integers(0, 3))
def test_one_event_carries_each_delta(shape: str, reasoning: int) -> None:
    """Tokens are counted as in Chat Completions."""
    directive = f"tokens=9 reasoning={reasoning}{shape}"
    messages = [{"role": "user", "content": f"Why? [standin {directive}]"}]
    script = compose(MODEL, messages)
    events = narrate(directive)
    usage = told(events)[-1]["response"]["usage"]
    assert sum(event.token for event in events) == len(script.deltas) == usage["output_tokens"]
    assert usage["output_tokens_details"] == {"reasoning_tokens": reasoning}
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_the_end_says_why(finish: str, status: str, details: Any) -> None:
    """finish= becomes the status, of the last item too."""
    last = told(narrate(f"tokens=2 finish={finish}"))[-1]
    response = last["response"]
    assert last["type"] == f"response.{status}"
    assert (response["status"], response["incomplete_details"]) == (status, details)
    assert response["output"][-1]["status"] == status
    assert (response["completed_at"] is None) == (status == "incomplete")


def test_the_response_repeats_what_it_was_asked() -> None:
    """Parameters that were given come back, the others have their defaults."""
    given: dict[str, Any] = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
    }
    response = told(narrate("tokens=1", **given, max_output_tokens=7))[0]["response"]
    assert {name: response[name] for name in given} == given
    assert (response["max_output_tokens"], response["store"], response["background"]) == (
        7,
        True,
        True,
    )
    assert (response["status"], response["output"], response["usage"]) == ("queued", [], None)


@pytest.mark.parametrize(
    ("asked", "parameters", "messages"),
    [
        ("Why?", {}, [{"role": "user", "content": "Why?"}]),
        (
            [{"type": "message", "role": "user", "content": "Why?"}],
            {"instructions": "Be brief."},
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}],
            {},
            [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
        ),
        (
            [
                {"role": "user", "content": "Weather?"},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "Rain."},
            ],
            {},
            [
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "look", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "Rain."},
            ],
        ),
    ],
)
def test_the_same_question_has_the_same_key_on_both_surfaces(
    asked: Any, parameters: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    """Input becomes the messages it would be in Chat Completions, so the oracle is one."""
    assert request(asked, **parameters).messages == tuple(messages)
    assert request(asked, **parameters).key == request_key(MODEL, messages)


@pytest.mark.parametrize(
    ("asked", "parameters", "param"),
    [
        (None, {}, "input"),
        ([], {}, "input"),
        ([{"type": "message", "content": "x"}], {}, "input"),
        ([{"type": "item_reference", "id": "x"}], {}, "input"),
        ("x", {"background": "yes"}, "background"),
        ("x", {"background": True, "store": False}, "store"),
        ("x", {"max_output_tokens": 0}, "max_output_tokens"),
        ("x", {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("x", {"tools": [{"name": "look"}]}, "tools"),
        ("x", {"instructions": []}, "instructions"),
    ],
)
def test_a_malformed_request_is_refused(asked: Any, parameters: dict[str, Any], param: str) -> None:
    """What cannot be answered is refused by the name of its parameter."""
    with pytest.raises(RequestInvalid) as refused:
        request(asked, **parameters)
    assert refused.value.param == param


def test_a_response_can_be_forgotten_beside_any_other_fault() -> None:
    """forget_after is no end of a connection, and times heals it."""
    directive, _ = parse("[standin cut_after=3 forget_after=5 retrieve_status=503 times=1]")
    healed = directive.for_attempt(2)
    assert directive.forget_after == 5
    assert (healed.fault, healed.forget_after, healed.retrieve_status) == (None, None, None)


def test_a_run_is_one_request_that_outlives_its_connection() -> None:
    """open counts connections, running counts runs; only the run's end ends the entry."""
    ledger = Ledger()
    entry = ledger.receive(received_at=0, key="a", surface="responses")
    connection = entry.go_to_background(stream=True)
    entry.token_generated(3)
    assert (ledger.open, ledger.running) == (1, 1)
    connection.end(Outcome.CLIENT_CLOSED)
    assert (ledger.open, ledger.running, entry.outcome) == (0, 1, Outcome.OPEN)
    entry.end(Outcome.COMPLETED)
    assert (ledger.open, ledger.running, entry.outcome) == (0, 0, Outcome.COMPLETED)
    assert (entry.tokens_generated, entry.tokens_sent) == (3, 0)


def test_what_was_generated_was_paid_whoever_had_it() -> None:
    """A run that nobody heard counts among what was paid twice; its retrieves do not."""
    ledger = Ledger()
    for key in ("a", "b", "b"):
        entry = ledger.receive(received_at=0, key=key)
        entry.go_to_background(stream=True)
        entry.token_generated()
        entry.retrieve(received_at=0, stream=True, starting_after=1)
    assert ledger.paid_twice == ("b",)
    assert (ledger.connections("a"), ledger.connections("b")) == (2, 4)
