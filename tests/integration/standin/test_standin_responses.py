"""The stand-in's Responses API over real sockets, through the official client it must satisfy."""

import json
from contextlib import aclosing
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.support.sdk_client import (
    MODEL,
    asking,
    create,
    deltas,
    gather,
    only_outcome,
    only_run,
    response_of,
    said,
    wait_ledger,
)
from worker.standin import Outcome, Standin, answer, compose


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("kind", ["prose", "lines", "unicode"])
async def test_a_streamed_response_is_the_oracle_token_by_token(
    client: AsyncOpenAI, kind: str, background: bool
) -> None:
    """Every delta is one token of the computed answer, and the end tells it whole."""
    prompt = f"Where to? [standin kind={kind} tokens=100]"
    events, error = await gather(create(client, prompt, background=background))
    assert error is None
    assert deltas(events) == list(answer(MODEL, asking(prompt)))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == said(prompt)


@pytest.mark.parametrize("background", [True, False])
async def test_the_streaming_helper_accepts_the_events(
    client: AsyncOpenAI, background: bool
) -> None:
    """The client's own fold of the events, strict about items and indexes, is the answer."""
    prompt = "Why? [standin reasoning=3]"
    async with client.responses.stream(model=MODEL, input=prompt, background=background) as stream:
        final = await stream.get_final_response()
    assert final.output_text == said(prompt)
    assert [item.type for item in final.output] == ["reasoning", "message"]


async def test_a_response_waits_for_its_end_without_stream(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """create() returns the whole, with its usage, and can be retrieved."""
    response = await client.responses.create(model=MODEL, input="Why?")
    assert (response.status, response.output_text) == ("completed", said("Why?"))
    assert response.usage is not None
    assert response.usage.output_tokens == 40
    assert await client.responses.retrieve(response.id) == response
    entry = await only_run(standin)
    assert (entry.outcome, entry.tokens_sent, entry.upstream_id) == (
        Outcome.COMPLETED,
        40,
        response.id,
    )


async def test_instructions_and_messages_are_the_same_question(client: AsyncOpenAI) -> None:
    """The oracle of the equivalent messages is the answer."""
    history: list[Any] = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Because."}]},
        {"role": "user", "content": "And?"},
    ]
    response = await client.responses.create(model=MODEL, input=history, instructions="Be brief.")
    messages = [
        {"role": "system", "content": "Be brief."},
        history[0],
        {"role": "assistant", "content": [{"type": "text", "text": "Because."}]},
        history[2],
    ]
    assert response.output_text == "".join(answer(MODEL, messages, default_tokens=40))


async def test_tool_calls_are_items_with_whole_arguments(client: AsyncOpenAI) -> None:
    """The deltas of each call join to what its item has in the end."""
    prompt = "[standin tool=2]"
    events, _ = await gather(create(client, prompt))
    calls = [item for item in response_of(events[-1]).output if item.type == "function_call"]
    script = compose(MODEL, asking(prompt))
    assert [call.arguments for call in calls] == [
        script.text("tool_arguments", 0),
        script.text("tool_arguments", 1),
    ]
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == "".join(call.arguments for call in calls)
    assert [list(json.loads(call.arguments)) for call in calls] == [["query"], ["query"]]


async def test_a_limit_makes_the_response_incomplete(client: AsyncOpenAI) -> None:
    """max_output_tokens ends it, and the end says so."""
    events, _ = await gather(create(client, "Why?", max_output_tokens=16))
    last = response_of(events[-1])
    assert len(deltas(events)) == 16
    assert (events[-1].type, last.status) == ("response.incomplete", "incomplete")
    assert last.incomplete_details is not None
    assert last.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    ("fault", "outcome", "expected"),
    [
        ("cut_after=5", Outcome.CUT, openai.APIConnectionError),
        ("malformed_after=5", Outcome.MALFORMED, json.JSONDecodeError),
        ("end_after=5", Outcome.ENDED_EARLY, None),
    ],
)
async def test_a_fault_of_the_connection_comes_behind_exactly_that_many_tokens(
    standin: Standin,
    client: AsyncOpenAI,
    fault: str,
    outcome: Outcome,
    expected: type[Exception] | None,
) -> None:
    """Without background that is the request's end, and nothing says it is complete."""
    events, error = await gather(create(client, f"Why? [standin {fault}]"))
    assert (type(error) if error else None) is expected
    assert len(deltas(events)) == 5
    assert not {"response.completed", "response.failed"} & {event.type for event in events}
    assert await only_outcome(standin) == outcome


async def test_an_error_is_the_failure_of_the_response(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """error_after ends the events with response.failed, which tells code and partial text."""
    events, error = await gather(create(client, "[standin error_after=5 code=rate_limit_exceeded]"))
    last = response_of(events[-1])
    assert error is None
    assert (events[-1].type, last.status) == ("response.failed", "failed")
    assert last.error is not None
    assert last.error.code == "rate_limit_exceeded"
    assert last.output_text == "".join(deltas(events))
    assert len(deltas(events)) == 5
    assert await only_outcome(standin) == Outcome.ERRORED


@pytest.mark.parametrize(
    ("directive", "outcome"),
    [
        ("cut_after=3", Outcome.CUT),
        ("malformed_after=3", Outcome.MALFORMED),
        ("error_after=3", Outcome.ERRORED),
        ("end_after=3", Outcome.ENDED_EARLY),
    ],
)
async def test_a_whole_response_can_fail_too(
    standin: Standin, client: AsyncOpenAI, directive: str, outcome: Outcome
) -> None:
    """Without stream a fault never leaves a completed response."""
    status: object = None
    try:
        response = await client.responses.create(model=MODEL, input=f"[standin {directive}]")
        status = response.status
    except (openai.OpenAIError, ValueError):
        pass
    assert status != "completed"
    assert await only_outcome(standin) == outcome
    assert standin.ledger.entries[0].tokens_sent == 3


@pytest.mark.parametrize("background", [True, False])
async def test_a_status_refuses_before_anything_runs(
    standin: Standin, client: AsyncOpenAI, background: bool
) -> None:
    """A refused request is no run, and the next one is answered."""
    prompt = "Why? [standin status=503 times=1]"
    _, error = await gather(create(client, prompt, background=background))
    assert isinstance(error, openai.InternalServerError)
    assert await only_outcome(standin) == Outcome.REFUSED
    events, error = await gather(create(client, prompt, background=background))
    assert "".join(deltas(events)) == said(prompt)
    assert standin.ledger.paid_twice == ()


async def test_a_client_that_leaves_stops_what_is_not_in_the_background(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """The closed connection ends the request, and its response is unknown afterwards."""
    async with aclosing(create(client, "[standin pace=0.001]")) as events:
        created = response_of(await anext(events))
        await wait_ledger(standin, lambda ledger: ledger.entries[0].tokens_sent == 1)
    assert await only_outcome(standin) == Outcome.CLIENT_CLOSED
    assert standin.ledger.entries[0].tokens_generated == 1
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(created.id)


async def test_what_was_not_stored_cannot_be_retrieved(client: AsyncOpenAI) -> None:
    """store=false leaves nothing behind."""
    response = await client.responses.create(model=MODEL, input="Why?", store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)


async def test_what_ran_over_its_connection_cannot_be_cancelled_or_streamed_again(
    client: AsyncOpenAI,
) -> None:
    """As with OpenAI, that takes background, and stream from the start."""
    synchronous = await client.responses.create(model=MODEL, input="Why?")
    unstreamed = await client.responses.create(model=MODEL, input="Why?", background=True)
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(synchronous.id)
    for response in (synchronous, unstreamed):
        with pytest.raises(openai.BadRequestError):
            await client.responses.retrieve(response.id, stream=True)


async def test_a_mistyped_directive_is_a_bad_request(standin: Standin, client: AsyncOpenAI) -> None:
    """A fault beyond the end of the answer cannot pass unnoticed, nor can forgetting."""
    for directive in ("tokenz=5", "cut_after=41", "forget_after=41"):
        _, error = await gather(create(client, f"[standin {directive}]", background=True))
        assert isinstance(error, openai.BadRequestError)
    assert {entry.outcome for entry in standin.ledger.entries} == {Outcome.INVALID}
