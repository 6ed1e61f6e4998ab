"""Whoever comes back to a response in the background, and what may befall the attempt."""

import json
from contextlib import aclosing

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tests.support.sdk_client import (
    ENDLESS,
    LONG,
    MODEL,
    create,
    deltas,
    gather,
    leave_after,
    only_run,
    response_of,
    retrieve,
    said,
)
from worker.standin import Outcome, Standin


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
async def test_a_retrieve_brings_exactly_what_follows(
    standin: Standin, client: AsyncOpenAI, share: float
) -> None:
    """Both halves are the events that one connection would have had, for one price."""
    prompt = "Why? [standin reasoning=3 kind=lines]"
    whole, _ = await gather(create(client, prompt, background=True))
    after = round(share * (len(whole) - 1))
    rest, error = await gather(retrieve(client, response_of(whole[0]).id, after))
    assert error is None
    assert rest == whole[after + 1 :]
    entry = await only_run(standin)
    assert (entry.tokens_generated, entry.tokens_sent) == (43, 43)
    assert standin.ledger.paid_twice == ()


async def test_a_retrieve_follows_live(standin: Standin, client: AsyncOpenAI) -> None:
    """First the past, then what comes while it listens, to the end."""
    response_id, events = await leave_after(client, LONG, 5)
    (entry,) = standin.ledger.entries
    after = events[-1].sequence_number
    so_far = entry.tokens_generated
    async with aclosing(retrieve(client, response_id, after)) as stream:
        while len(deltas(events)) <= so_far + 5:
            events.append(await anext(stream))
        await client.responses.cancel(response_id)
        events += [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert said(LONG).startswith("".join(deltas(events)))
    (connection,) = entry.retrieves
    assert (connection.outcome, connection.starting_after) == (Outcome.COMPLETED, after)
    assert connection.events_sent == len(events) - after - 1


async def test_the_streaming_helper_re_attaches(client: AsyncOpenAI) -> None:
    """responses.stream(response_id, starting_after) has the rest and folds the whole."""
    prompt = "Why? [standin pace=400]"
    response_id, before = await leave_after(client, prompt, 5)
    after = before[-1].sequence_number
    async with client.responses.stream(response_id=response_id, starting_after=after) as stream:
        numbers = [event.sequence_number async for event in stream]
        final = await stream.get_final_response()
    assert numbers == list(range(after + 1, numbers[-1] + 1))
    assert final.output_text == said(prompt)


@pytest.mark.parametrize(
    "fault", ["cut_after=7", "stall_after=7", "malformed_after=7", "end_after=7"]
)
async def test_a_fault_of_the_connection_spares_the_run(
    standin: Standin, client: AsyncOpenAI, fault: str
) -> None:
    """With times=1 only the first connection suffers, and a retrieve brings the rest."""
    prompt = f"Why? [standin {fault} times=1]"
    response_id, before = await leave_after(client, prompt, 7)
    after, error = await gather(retrieve(client, response_id, before[-1].sequence_number))
    assert error is None
    assert "".join(deltas(before + after)) == said(prompt)
    assert (await only_run(standin)).outcome == Outcome.COMPLETED


async def test_a_fault_befalls_every_connection_behind_its_own_tokens(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """Without times each has that many tokens, until one reaches the end; it is paid once."""
    prompt = "Why? [standin cut_after=15]"
    events, error = await gather(create(client, prompt, background=True))
    assert isinstance(error, openai.APIConnectionError)
    for _ in range(2):
        last = events[-1].sequence_number
        more, error = await gather(retrieve(client, response_of(events[0]).id, last))
        events += more
    assert error is None
    assert "".join(deltas(events)) == said(prompt)
    entry = await only_run(standin)
    outcomes = [retrieve.outcome for retrieve in entry.retrieves]
    assert (outcomes, entry.outcome) == ([Outcome.CUT, Outcome.COMPLETED], Outcome.COMPLETED)
    assert standin.ledger.paid_twice == ()


async def test_a_forgotten_response_is_unknown(standin: Standin, client: AsyncOpenAI) -> None:
    """forget_after refuses whoever comes later with 404; the run ends as its last client leaves."""
    prompt = f"{ENDLESS.removesuffix(']')} forget_after=1 times=1]"
    response_id, _ = await leave_after(client, prompt, 1)
    entry = await only_run(standin)
    assert entry.outcome == Outcome.FORGOTTEN
    _, error = await gather(retrieve(client, response_id, 5))
    assert isinstance(error, openai.NotFoundError)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response_id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel(response_id)
    assert [(r.outcome, r.starting_after) for r in entry.retrieves] == [
        (Outcome.REFUSED, 5),
        (Outcome.REFUSED, None),
    ]


async def test_forgetting_disturbs_nobody_who_follows(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """The connection that is there has the answer to its end."""
    prompt = "Why? [standin forget_after=3]"
    events, error = await gather(create(client, prompt, background=True))
    assert error is None
    assert "".join(deltas(events)) == said(prompt)
    assert (await only_run(standin)).outcome == Outcome.COMPLETED


async def test_a_retrieve_can_be_refused_for_a_while(standin: Standin, client: AsyncOpenAI) -> None:
    """retrieve_status counts with the POST: times=2 is that and one retrieve."""
    prompt = "Why? [standin cut_after=5 retrieve_status=503 times=2]"
    response_id, before = await leave_after(client, prompt, 5)
    last = before[-1].sequence_number
    _, error = await gather(retrieve(client, response_id, last))
    assert isinstance(error, openai.InternalServerError)
    after, error = await gather(retrieve(client, response_id, last))
    assert error is None
    assert "".join(deltas(before + after)) == said(prompt)


async def test_a_sequence_number_must_be_one(standin: Standin) -> None:
    """A cursor that is none is refused, not read as the beginning."""
    body = {"model": MODEL, "input": "Why?", "background": True, "stream": True}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{standin.base_url}/responses", json=body) as response:
            frame = await response.content.readuntil(b"\n\n")
        response_id = json.loads(frame.split(b"\ndata: ")[1])["response"]["id"]
        url = f"{standin.base_url}/responses/{response_id}?stream=true&starting_after=last"
        async with session.get(url) as response:
            assert response.status == 400
            assert (await response.json())["error"]["param"] == "starting_after"
