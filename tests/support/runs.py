"""Answers in the background, which go on at the provider whoever follows them."""

import json

from shared.ids import GenerationId
from tests.support.wait import wait_until
from tests.support.workshop import Workshop
from worker.standin import Entry

REATTACH = {"ladder": json.dumps({"*": ["reattach", "continue", "restart"]})}
"""For `Workshop.open_worker`."""


def only_request(shop: Workshop) -> Entry:
    """The one request that the model had: nothing is paid for twice."""
    (entry,) = shop.standin.ledger.entries
    return entry


async def wait_entries(shop: Workshop, generation: GenerationId, kind: str, count: int) -> None:
    """Wait until the log holds that many entries of a kind."""

    async def are_there() -> bool:
        return (await shop.types(generation)).count(kind) >= count

    await wait_until(are_there, f"{count} {kind} entries in the log")
