"""Responses that outlive their connections, their ends, and what is remembered of them."""

import asyncio
import json
from contextlib import aclosing

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.support.sdk_client import (
    ENDLESS,
    LONG,
    MODEL,
    PATIENCE_SECONDS,
    asking,
    create,
    gather,
    leave_after,
    only_run,
    response_of,
    retrieve,
    said,
    wait_ledger,
)
from worker.standin import Outcome, Standin, StandinSettings, open_standin, request_key


async def test_a_run_goes_on_when_its_client_hangs_up(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """The closed connection is one thing, the run another, which ends by itself."""
    response_id, _ = await leave_after(client, LONG, 3)
    await wait_ledger(standin, lambda ledger: not ledger.open)
    (entry,) = standin.ledger.entries
    assert entry.creation is not None
    assert entry.creation.outcome == Outcome.CLIENT_CLOSED
    so_far = entry.tokens_generated
    await wait_ledger(standin, lambda _: entry.tokens_generated > so_far + 5)
    assert (entry.tokens_sent <= so_far, entry.outcome) == (True, Outcome.OPEN)
    await client.responses.cancel(response_id)


async def test_a_run_that_nobody_follows_comes_to_its_end(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """Whoever asks afterwards has the whole answer, of which the POST had only a part."""
    prompt = "Why? [standin stall_after=3]"
    response_id, _ = await leave_after(client, prompt, 3)
    entry = await only_run(standin)
    assert (entry.outcome, entry.tokens_generated) == (Outcome.COMPLETED, 40)
    assert entry.tokens_sent == 3
    assert (await client.responses.retrieve(response_id)).output_text == said(prompt)


async def test_an_open_connection_and_a_run_are_counted_apart(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """open falls as the client leaves, running as the run is cancelled."""
    response_id, _ = await leave_after(client, ENDLESS, 1)
    await wait_ledger(standin, lambda ledger: not ledger.open)
    assert standin.ledger.running == 1
    await client.responses.cancel(response_id)
    assert (standin.ledger.open, standin.ledger.running) == (0, 0)


async def test_a_run_can_be_polled(client: AsyncOpenAI) -> None:
    """Without stream the answer is queued at once, and later it is complete."""
    response: Response = await client.responses.create(
        model=MODEL, input="Why? [standin pace=400]", background=True
    )
    assert (response.status, response.output) == ("queued", [])
    async with asyncio.timeout(PATIENCE_SECONDS):
        while response.status in ("queued", "in_progress"):
            response = await client.responses.retrieve(response.id)
    assert (response.status, response.output_text) == ("completed", said("Why?"))


async def test_a_cancelled_run_stops_and_says_so(standin: Standin, client: AsyncOpenAI) -> None:
    """Its followers hear the end, its usage is what was said, and once more is no mistake."""
    async with aclosing(create(client, ENDLESS, background=True)) as stream:
        events = [await anext(stream)]
        response_id = response_of(events[0]).id
        await wait_ledger(standin, lambda ledger: ledger.entries[0].tokens_generated == 1)
        cancelled = await client.responses.cancel(response_id)
        events += [event async for event in stream]
    assert (events[-1].type, response_of(events[-1]).status) == (
        "response.incomplete",
        "cancelled",
    )
    assert cancelled.usage is not None
    assert (cancelled.status, cancelled.usage.output_tokens) == ("cancelled", 1)
    assert await client.responses.cancel(response_id) == cancelled
    assert (await only_run(standin)).outcome == Outcome.CANCELLED


async def test_a_finished_run_cannot_be_cancelled(client: AsyncOpenAI) -> None:
    """Completed is completed."""
    events, _ = await gather(create(client, "Why?", background=True))
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a completed response"):
        await client.responses.cancel(response_of(events[0]).id)


async def test_a_deleted_response_is_gone(standin: Standin, client: AsyncOpenAI) -> None:
    """DELETE stops it, and nobody finds it afterwards."""
    response_id, _ = await leave_after(client, ENDLESS, 1)
    await client.responses.delete(response_id)
    assert (await only_run(standin)).outcome == Outcome.CANCELLED
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response_id)


async def test_a_second_request_for_a_running_question_is_paid_twice(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """Who asks anew instead of re-attaching is found out, whatever the first client had."""
    prompt = "Why? [standin stall_after=0 times=1]"
    async with aclosing(create(client, prompt, background=True)) as events:
        await anext(events)
        await wait_ledger(standin, lambda ledger: not ledger.running)
    await gather(create(client, prompt, background=True))
    assert standin.ledger.paid_twice == (request_key(MODEL, asking(prompt)),)


async def test_the_ledger_tells_a_run_and_its_connections(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """GET /ledger has the run once, with the POST's connection and each retrieve."""
    response_id, _ = await leave_after(client, "Why? [standin stall_after=2]", 2)
    async with aclosing(retrieve(client, response_id, 8)) as events:
        await anext(events)
        await anext(events)
    await client.responses.retrieve(response_id)
    await only_run(standin)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{standin.url}/ledger") as response,
    ):
        ledger = json.loads(await response.text())
    (entry,) = ledger["requests"]
    shown = ("stream", "starting_after", "events_sent", "outcome")
    connections = [entry["creation"], *entry["retrieves"]]
    assert (ledger["open"], ledger["running"]) == (0, 0)
    assert (entry["surface"], entry["upstream_id"]) == ("responses", response_id)
    assert (entry["tokens_generated"], entry["tokens_sent"]) == (40, 2)
    assert [[connection[name] for name in shown] for connection in connections] == [
        [True, None, 7, "client_closed"],
        [True, 8, 2, "client_closed"],
        [False, None, 0, "completed"],
    ]
    assert all(entry["received_at"] <= c["received_at"] <= c["ended_at"] for c in connections)


async def test_the_end_of_the_stand_in_ends_its_runs(client: AsyncOpenAI) -> None:
    """In-process use never leaves a task behind."""
    async with open_standin(StandinSettings()) as standin:
        other = client.with_options(base_url=standin.base_url)
        await leave_after(other, ENDLESS, 1)
        await wait_ledger(standin, lambda ledger: not ledger.open)
    assert [entry.outcome for entry in standin.ledger.entries] == [Outcome.STOPPED]
    assert standin.ledger.running == 0
