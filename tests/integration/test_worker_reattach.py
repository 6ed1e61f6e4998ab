"""An answer that goes on at its provider: the next attempt reads on behind what the log has."""

from collections.abc import AsyncIterator

import pytest

from shared.generation import State, Surface
from shared.ids import GenerationId
from tests.support.api_client import ApiClient
from tests.support.fold import Folded
from tests.support.redis_server import RedisServer
from tests.support.runs import REATTACH, only_request, open_run_workshop, wait_entries
from tests.support.stack import MODEL, expected_text, user
from tests.support.workshop import Workshop
from worker.standin import Outcome, compose

QUICK_MARK = {**REATTACH, "mark": "0.3"}


@pytest.fixture
async def shop(valkey: RedisServer) -> AsyncIterator[Workshop]:
    """Its workers are started by the test."""
    async with open_run_workshop(valkey) as shop:
        yield shop


async def killed_after(
    shop: Workshop, prompt: str, kind: str, count: int, surface: Surface = Surface.NATIVE
) -> GenerationId:
    """A generation whose worker was killed when the log had so many entries of a kind."""
    async with shop.open_worker(**REATTACH) as victim:
        generation = await shop.accept(prompt, surface=surface)
        await wait_entries(shop, generation, kind, count)
        victim.kill()
    return generation


async def recovered(shop: Workshop, generation: GenerationId) -> Folded:
    """What its next owner made of it."""
    async with shop.open_worker(**QUICK_MARK):
        await shop.make_due(generation)
        return await shop.ended(generation)


@pytest.mark.parametrize(
    ("kind", "surface"),
    [("plain", Surface.NATIVE), ("unicode", Surface.NATIVE), ("lines", Surface.CHAT)],
)
async def test_a_killed_workers_answer_goes_on_byte_for_byte(
    shop: Workshop, kind: str, surface: Surface
) -> None:
    """One request, no reset, and the model is asked for what comes after the log's last token."""
    prompt = f"[standin tokens=80 pace=60 kind={kind}] Killed"
    generation = await killed_after(shop, prompt, "token", 7, surface)
    upstream = (await shop.record(generation)).upstream
    folded = await recovered(shop, generation)
    expected = expected_text(prompt)
    if surface is Surface.CHAT:
        expected = expected.replace("\r\n", "\n").replace("\r", "\n")
    assert (folded.closing_type, folded.text) == ("done", expected)
    assert "reset" not in await shop.types(generation)
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh", "reattach"]
    entry = only_request(shop)
    (rejoined,) = entry.retrieves
    assert upstream is not None
    assert (upstream.id, upstream.at) == (entry.upstream_id, rejoined.starting_after)
    assert (entry.surface, entry.outcome) == ("responses", Outcome.COMPLETED)


@pytest.mark.parametrize(
    ("directive", "kind", "count"),
    [
        ("tool=2 tokens=40", "tool_call", 5),
        ("tool=2 tokens=40", "tool_call", 50),
        ("reasoning=40 tokens=40", "reasoning", 5),
        ("reasoning=20 tokens=40", "token", 5),
        ("refusal=1 tokens=60", "refusal", 5),
    ],
)
async def test_whatever_is_said_goes_on_where_it_was(
    shop: Workshop, directive: str, kind: str, count: int
) -> None:
    """Reasoning, refusals and tool calls, which no prefix can carry, are gone on with too."""
    prompt = f"[standin {directive} pace=60] Everything"
    generation = await killed_after(shop, prompt, kind, count)
    folded = await recovered(shop, generation)
    said = {"content": "", "reasoning": "", "refusal": "", "tool_arguments": ""}
    for delta in compose(MODEL, user(prompt)).deltas:
        if delta.field in said:
            said[delta.field] += delta.text
    assert folded.closing_type == "done"
    assert (folded.text, folded.reasoning, folded.refusal) == (
        said["content"],
        said["reasoning"],
        said["refusal"],
    )
    assert "".join(call.arguments for call in folded.tool_calls.values()) == said["tool_arguments"]
    assert len(folded.tool_calls) == (2 if "tool" in directive else 0)
    assert len(only_request(shop).retrieves) == 1


@pytest.mark.parametrize("surface", list(Surface))
@pytest.mark.parametrize("cut_after", range(4))
async def test_a_cut_connection_is_rejoined_by_the_same_worker(
    shop: Workshop, cut_after: int, surface: Surface
) -> None:
    """The answer was never in danger: it goes on after a pause, within a CRLF as anywhere."""
    prompt = f"[standin tokens=40 pace=200 kind=lines cut_after={cut_after} times=1] Cut"
    async with shop.open_worker(**REATTACH, retry_pause="0.05"):
        generation = await shop.accept(prompt, surface=surface)
        folded = await shop.ended(generation)
    expected = expected_text(prompt)
    if surface is Surface.CHAT:
        expected = expected.replace("\r\n", "\n").replace("\r", "\n")
    assert (folded.closing_type, folded.text) == ("done", expected)
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh", "reattach"]
    assert "retrying" in await shop.types(generation)
    assert len(only_request(shop).retrieves) == 1


@pytest.mark.parametrize(
    "refusal", ["retrieve_status=404", "retrieve_status=400", "forget_after=9"]
)
async def test_a_refused_rejoin_takes_the_next_rung(shop: Workshop, refusal: str) -> None:
    """The provider has it no more: the answer is continued from its prefix, as another request."""
    prompt = f"[standin tokens=300 pace=60 {refusal}] Refused"  # longer than a worker's start
    generation = await killed_after(shop, prompt, "token", 12)
    folded = await recovered(shop, generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    resumes = [attempt["resume"] for attempt in folded.attempts]
    assert resumes == ["fresh", "reattach", "continue"]
    first, second = shop.standin.ledger.entries
    assert first.outcome in (Outcome.CANCELLED, Outcome.FORGOTTEN), "it would be paid to its end"
    assert second.continues


async def test_a_run_that_was_cancelled_there_takes_the_next_rung(shop: Workshop) -> None:
    """So it is after Redis forgot a cancel: the generation goes on, its run does not."""
    prompt = "[standin tokens=200 pace=100] Forgotten"
    generation = await killed_after(shop, prompt, "token", 5)
    upstream = (await shop.record(generation)).upstream
    assert upstream is not None
    model = ApiClient(shop.standin.url)
    assert (await model.call("POST", f"/v1/responses/{upstream.id}/cancel")).status == 200
    folded = await recovered(shop, generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    resumes = [attempt["resume"] for attempt in folded.attempts]
    assert resumes == ["fresh", "reattach", "continue"]


async def test_a_server_in_trouble_is_asked_again_before_the_rung_is_given_up(
    shop: Workshop,
) -> None:
    """A 503 says nothing about the answer, which goes on meanwhile."""
    prompt = "[standin tokens=80 pace=60 retrieve_status=503 times=2] Trouble"
    generation = await killed_after(shop, prompt, "token", 5)
    folded = await recovered(shop, generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert [a["resume"] for a in folded.attempts] == ["fresh", "reattach", "reattach"]
    assert len(only_request(shop).retrieves) == 2


async def test_an_answer_that_failed_at_its_provider_is_not_rejoined(shop: Workshop) -> None:
    """There is nothing left to read: the next attempt asks, with what was said so far."""
    prompt = "[standin tokens=40 pace=200 error_after=12 times=1] Failed"
    async with shop.open_worker(**REATTACH, retry_pause="0.05"):
        generation = await shop.accept(prompt)
        folded = await shop.ended(generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh", "continue"]
    assert not any(entry.retrieves for entry in shop.standin.ledger.entries)


async def test_what_the_other_api_cannot_say_is_asked_as_ever(shop: Workshop) -> None:
    """`seed` has no word there: the request is a chat completion, and the next rung applies."""
    prompt = "[standin tokens=80 pace=60] Seeded"
    async with shop.open_worker(**REATTACH) as victim:
        generation = await shop.accept(prompt, parameters={"seed": 7})
        await wait_entries(shop, generation, "token", 5)
        victim.kill()
    folded = await recovered(shop, generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh", "continue"]
    assert {entry.surface for entry in shop.standin.ledger.entries} == {"chat"}


async def test_a_draining_worker_leaves_the_answer_to_go_on(shop: Workshop) -> None:
    """Handed over on SIGTERM, it is not asked again."""
    prompt = "[standin tokens=200 pace=40] Drained"
    async with shop.open_worker(**REATTACH, drain="0.1") as old:
        generation = await shop.accept(prompt)
        await wait_entries(shop, generation, "token", 5)
        async with shop.open_worker(**REATTACH):
            old.terminate()
            folded = await shop.ended(generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert only_request(shop).outcome is Outcome.COMPLETED
    assert (await shop.record(generation)).handovers == 1


@pytest.mark.parametrize("way", ["cancel", "erase"])
async def test_an_orphans_answer_is_ended_by_whoever_finds_it(shop: Workshop, way: str) -> None:
    """Its worker is dead: the next owner of the job ends it, that of a deleted generation too."""
    generation = await killed_after(shop, "[standin tokens=900 pace=40] Orphan", "token", 5)
    if way == "cancel":
        await shop.store.cancel(generation)
    else:
        await shop.store.erase(generation)
    async with shop.open_worker(**QUICK_MARK):
        await shop.make_due(generation)
        await shop.wait_idle()
    assert only_request(shop).outcome is Outcome.CANCELLED
    if way == "cancel":
        record = await shop.record(generation)
        assert record.state is State.CANCELLED
        assert record.usage is not None
        assert record.usage["completion_tokens"] == only_request(shop).tokens_generated
