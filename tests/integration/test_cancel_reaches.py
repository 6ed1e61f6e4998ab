"""Who is cancelled in the middle of a command hears of it, in whichever turn of the loop."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.connections import Client, open_connection
from shared.settings import RedisSettings
from tests.support.redis_server import RedisServer
from tests.support.wait import next_turn

# A command is sent within half as many; what blocks is answered long after all of them.
TURNS = 14
BLOCKING = ("BLPOP", "nobody-fills-it", "5")


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.call(*BLOCKING),
        lambda client: client.try_all([BLOCKING]),
    ],
    ids=["command", "pipeline"],
)
async def test_a_cancel_is_heard_in_every_turn(
    valkey: RedisServer, send: Callable[[Client], Awaitable[object]]
) -> None:
    """A loop that goes on after it was cancelled would keep its process alive for ever."""

    async def serve(client: Client) -> None:
        await send(client)

    settings = RedisSettings.model_validate({"url": valkey.url})
    async with open_connection(settings, "cancelled", max_connections=1) as connection:
        client = Client(connection)
        for turns in range(TURNS):
            await client.call("PING")  # connected, so that each begins with its own command
            task = asyncio.create_task(serve(client))
            for _ in range(turns):
                await next_turn()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), f"not after {turns} turns"
        assert await client.call("ECHO", "well") == b"well"
