"""An answer that nobody wants any more is ended at its provider, and what it cost is settled."""

from collections.abc import AsyncIterator

import pytest

from shared.ids import GenerationId
from tests.support.redis_server import RedisServer
from tests.support.runs import REATTACH, only_request, open_run_workshop, wait_entries
from tests.support.stack import expected_text
from tests.support.wait import wait_until
from tests.support.workshop import Workshop
from worker.standin import Outcome


@pytest.fixture
async def shop(valkey: RedisServer) -> AsyncIterator[Workshop]:
    """Its workers are started by the test."""
    async with open_run_workshop(valkey) as shop:
        yield shop


async def check_settled(shop: Workshop, generation: GenerationId) -> None:
    """The one run was ended, and the record has what it really cost."""
    entry = only_request(shop)
    assert entry.outcome is Outcome.CANCELLED
    usage = (await shop.record(generation)).usage
    assert usage is not None
    assert usage["completion_tokens"] == entry.tokens_generated
    assert "estimated" not in usage


async def test_a_cancel_ends_the_answer_at_its_provider(shop: Workshop) -> None:
    """A closed connection would not: it is cancelled by its name, and its cost is settled."""
    async with shop.open_worker(**REATTACH):
        generation = await shop.accept("[standin tokens=400 pace=40] Cancelled")
        await wait_entries(shop, generation, "token", 5)
        await shop.cancel(generation)
        await shop.ended(generation)
    await check_settled(shop, generation)


async def test_a_cancel_before_the_answer_has_a_name_ends_it_too(shop: Workshop) -> None:
    """The provider began when it was asked; its first event may be late."""
    async with shop.open_worker(**REATTACH):
        generation = await shop.accept("[standin tokens=400 pace=40 start_ms=700] Unnamed")
        await wait_until(lambda: shop.standin.ledger.running == 1, "the model to be asked")
        await shop.cancel(generation)
        await shop.ended(generation)
        assert only_request(shop).outcome is Outcome.CANCELLED


async def test_an_answer_that_grows_too_large_is_ended(shop: Workshop) -> None:
    """Nobody pays for what nobody may keep."""
    async with shop.open_worker(**REATTACH, max_output="200"):
        generation = await shop.accept("[standin tokens=900 pace=100 kind=plain] Large")
        folded = await shop.ended(generation)
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == "output_too_large"
    await check_settled(shop, generation)


async def test_when_attempts_run_out_the_answer_is_ended(shop: Workshop) -> None:
    """Failing for good leaves nothing that goes on."""
    prompt = "[standin tokens=900 pace=100 cut_after=3] Cut"
    async with shop.open_worker(**REATTACH, retry_pause="0.05"):
        generation = await shop.accept(prompt)
        folded = await shop.ended(generation)
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == "provider_truncated"
    assert expected_text(prompt).startswith(folded.text)
    await check_settled(shop, generation)


async def test_a_cancel_in_a_long_pause_ends_the_run_at_once(shop: Workshop) -> None:
    """It waits for its provider in no slot, but what it asked for goes on, and is paid for."""
    prompt = "[standin tokens=3000 pace=20 cut_after=5 retrieve_status=429 retry_after=600] Pause"
    async with shop.open_worker(**REATTACH, retry_pause="0.05", max_retry_pause="2"):
        generation = await shop.accept(prompt)
        await shop.wait_type(generation, "retrying")

        async def is_let_go() -> bool:
            return await shop.owner(generation) is None

        await wait_until(is_let_go, "the job to be given back")
        assert only_request(shop).outcome is Outcome.OPEN
        await shop.cancel(generation)
        await wait_until(lambda: only_request(shop).outcome is Outcome.CANCELLED, "the run's end")
        await shop.wait_idle()
