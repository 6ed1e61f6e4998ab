"""Answers in the background, which go on at the provider whoever follows them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.ids import GenerationId
from tests.support.redis_server import RedisServer
from tests.support.stack import open_model
from tests.support.wait import wait_until
from tests.support.workshop import Workshop, open_workshop
from worker.standin import Entry

REATTACH = {"ladder": json.dumps({"*": ["reattach", "continue", "restart"]})}
"""For `Workshop.open_worker`."""


@asynccontextmanager
async def open_run_workshop(server: RedisServer) -> AsyncIterator[Workshop]:
    """A workshop without a worker; at the end nothing goes on anywhere."""
    async with open_model(0) as model, open_workshop(server, model) as shop:
        yield shop
        await shop.wait_idle()
        assert shop.standin.ledger.running == 0, "a run goes on that nobody reads"


def only_request(shop: Workshop) -> Entry:
    """The one request that the model had: nothing is paid for twice."""
    (entry,) = shop.standin.ledger.entries
    return entry


async def wait_entries(shop: Workshop, generation: GenerationId, kind: str, count: int) -> None:
    """Wait until the log holds that many entries of a kind."""

    async def are_there() -> bool:
        return (await shop.types(generation)).count(kind) >= count

    await wait_until(are_there, f"{count} {kind} entries in the log")
