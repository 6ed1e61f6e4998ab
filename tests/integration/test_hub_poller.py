"""Where Redis does not tell which logs changed, they are polled; and the process says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

from pydantic import SecretStr

from api.hub import Hub
from shared.connections import Client, new_tracked_connection
from shared.ids import BEGINNING, parse_entry_id
from shared.keys import Keys
from shared.settings import RedisSettings
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, token
from tests.support.fold import fold, fold_log
from tests.support.metrics import read_metrics
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until
from tests.support.windows import following

POLL = timedelta(seconds=0.02)


@asynccontextmanager
async def open_deaf_api(valkey: RedisServer, client: Client) -> AsyncIterator[ApiProcess]:
    """An API whose user may do everything but have keys tracked."""
    rules = ("on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    await client.call("ACL", "SETUSER", "deaf", *rules)
    try:
        async with open_api(valkey.url.replace("://", "://deaf:secret@"), poll=POLL) as api:
            yield api
    finally:
        await client.call("ACL", "DELUSER", "deaf")


async def test_followers_are_served_where_tracking_is_refused(
    valkey: RedisServer, client: Client
) -> None:
    """Every token, by the poller."""
    async with open_deaf_api(valkey, client) as api:
        author = await Author.create(client)
        await author.claim()
        async with api.follow(author.generation) as follower:
            await follower.read_until("started")
            await wait_until(lambda: api.held.hub.is_polling, "the poller to take over")
            told = await read_metrics(api)
            assert (told["rejoin_tracking"], told["rejoin_polling"]) == (0, 1)
            assert (told["rejoin_followers"], told["rejoin_followed_logs"]) == (1, 1)
            for number in range(5):
                await author.say(token(f"{number} "))
                await follower.read_until("token")
            await author.close()
            await follower.read_until("done")
        assert fold(follower.events) == fold_log(await author.raw())


async def test_a_process_that_tracks_says_so(api: ApiProcess) -> None:
    """And how often it was lost."""
    await wait_until(lambda: api.held.hub.is_tracking, "the hub to track")
    told = await read_metrics(api)
    assert (told["rejoin_tracking"], told["rejoin_polling"]) == (1, 0)
    losses = told["rejoin_tracking_losses_total"]
    await api.held.redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await wait_until(lambda: api.held.hub.losses > losses, "the hub to lose its connection")
    assert (await read_metrics(api))["rejoin_tracking_losses_total"] == losses + 1


async def test_logs_are_polled_while_no_tracked_connection_can_be_had(client: Client) -> None:
    """Whoever answers there says nothing, while all else is well."""

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    settings = RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}"))
    connect = partial(new_tracked_connection, settings, "hub")
    hub = Hub(client, Keys(), connect, window_bytes=10_000, poll=POLL)
    author = await Author.create(client)
    running = asyncio.create_task(hub.run())
    try:
        with following(hub, author.generation, BEGINNING) as followed:
            await author.claim()
            await author.say(token("a"))
            last = parse_entry_id(author.last_id)
            await wait_until(lambda: followed.window.last_id == last, "the token to be read", 2)
            assert hub.is_polling
            assert hub.hears
            assert not hub.is_tracking
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        silent.close()
