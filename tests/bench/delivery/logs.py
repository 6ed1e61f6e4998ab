"""Logs as a worker owns them, many at a time: created and claimed by the product's own scripts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shared.connections import Client
from shared.generation import Order, Surface
from shared.generation_store import ClaimOutcome, GenerationStore
from shared.ids import GenerationId, draw_generation_id
from shared.keys import Keys
from tests.bench.delivery.load import Place, Stream
from tests.support.redis_server import RedisServer
from tests.support.stack import user

_LIFE: Final = timedelta(hours=1)
_CONNECTIONS: Final = 20


@dataclass(frozen=True, slots=True)
class Log(Stream):
    """One that is claimed: `<epoch>-0` is its `started`, so the writer's first token is -1."""

    generation: GenerationId

    @property
    def path(self) -> str:
        """Where it is followed."""
        return f"/v1/generations/{self.generation}/events"

    def behind(self, number: int) -> Place:
        """The place of a follower that has the tokens up to `number`."""
        return Place(f"{self.epoch}-{number}", number + 1)


@asynccontextmanager
async def _open_stores(server: RedisServer) -> AsyncIterator[list[GenerationStore]]:
    """A store for each connection: one that is shared waits for one answer after the other."""
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(server.client(single_connection_client=True))
            for _ in range(_CONNECTIONS)
        ]
        yield [GenerationStore(Client(client), Keys()) for client in clients]


async def make_logs(server: RedisServer, count: int) -> list[Log]:
    """Create and claim `count` generations; no job goes with them, and nothing ends them."""

    async def make(store: GenerationStore, share: int) -> list[Log]:
        return [await _make_log(store) for _ in range(share)]

    async with _open_stores(server) as stores:
        shares = [count // len(stores) + (n < count % len(stores)) for n in range(len(stores))]
        made = await asyncio.gather(*map(make, stores, shares))
    return [log for some in made for log in some]


async def _make_log(store: GenerationStore) -> Log:
    generation = draw_generation_id()
    request = {"messages": user("Say something long.")}
    order = Order(request, "default", Surface.NATIVE, _LIFE, _LIFE, _LIFE)
    await store.create(generation, order)
    seen = (await store.record(generation)).epoch
    claim = await store.claim(
        generation,
        seen_epoch=seen,
        token=f"bench/{generation}",
        started={"attempt": 1, "model": "standin", "resume": "fresh"},
        reset=False,
    )
    assert claim.outcome is ClaimOutcome.CLAIMED, claim
    assert claim.last_id.seq == 0, claim
    return Log(Keys().log(generation), claim.last_id.epoch, generation)
