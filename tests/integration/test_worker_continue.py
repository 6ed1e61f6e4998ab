"""A worker that dies in the middle of an answer: the next one goes on where it stands."""

import json
from collections.abc import AsyncIterator

import pytest

from shared.generation import Surface
from tests.support.redis_server import RedisServer
from tests.support.stack import expected_text
from tests.support.workshop import Workshop, open_workshop
from worker.standin import StandinSettings, open_standin

CONTINUE = json.dumps({"*": ["continue", "restart"]})


@pytest.fixture
async def shop(valkey: RedisServer) -> AsyncIterator[Workshop]:
    """A workshop whose workers are started by the test, to be killed."""
    async with (
        open_standin(StandinSettings(tokens_per_second=0)) as model,
        open_workshop(valkey, model) as shop,
    ):
        yield shop


@pytest.mark.parametrize("surface", list(Surface))
async def test_a_killed_workers_answer_is_continued(shop: Workshop, surface: Surface) -> None:
    """The next owner reads what stands in the log and goes on behind it, byte-exact."""
    prompt = "[standin tokens=80 pace=40 kind=plain] Killed"
    async with shop.open_worker(ladder=CONTINUE) as victim:
        generation = await shop.accept(prompt, surface=surface)
        await shop.wait_type(generation, "token")
        victim.kill()
    async with shop.open_worker(ladder=CONTINUE, mark="0.1"):
        await shop.make_due(generation)
        folded = await shop.closed(generation)
        await shop.wait_idle()
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert "reset" not in await shop.types(generation)
    first, second = shop.standin.ledger.entries
    assert first.continues is None
    assert second.continues
