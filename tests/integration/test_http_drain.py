"""SIGTERM to an API process: its followers go elsewhere at once, and it is gone in a moment."""

from collections.abc import AsyncIterator

import pytest

from shared.connections import Client
from shared.generation import Surface
from tests.support.api_client import ApiClient
from tests.support.author import Author, token
from tests.support.fold import fold, fold_log
from tests.support.follower import End
from tests.support.processes import Process, free_port, open_process
from tests.support.reading import Reading
from tests.support.redis_server import RedisServer
from tests.support.stack import api_environment
from tests.support.wait import within

LARGE = "x" * 100_000


@pytest.fixture
async def port() -> int:
    """Where the process under test listens."""
    return free_port()


@pytest.fixture
async def process(valkey: RedisServer, port: int) -> AsyncIterator[Process]:
    """An API process of the test's own."""
    ready = f"http://127.0.0.1:{port}/healthz"
    async with open_process("api", api_environment(valkey.url, port, {}), ready) as process:
        yield process


@pytest.fixture
def api(process: Process, port: int) -> ApiClient:
    """Its surface."""
    return ApiClient(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("surface", list(Surface))
async def test_followers_are_told_to_come_back_and_the_process_ends(
    process: Process, api: ApiClient, client: Client, surface: Surface
) -> None:
    """`reconnect` with a `retry:`, a clean end of the body within a second, and status 0."""
    reading = await Reading.begin(client, surface)
    async with reading.open(api.api_url) as follower:
        await follower.read_until("token")
        process.terminate()
        async with within(1, lambda: "the end of the response did not come"):
            events = await follower.read_to_end()

    assert [event.type for event in events] == ["reconnect"]
    assert follower.end is End.CLEAN
    assert follower.retry_ms is not None
    assert 200 <= follower.retry_ms <= 2000
    assert await process.wait(3) == 0


async def test_the_farewell_leaves_the_cursor_alone(
    process: Process, api: ApiClient, client: Client, valkey: RedisServer
) -> None:
    """It has no id: the next process goes on where this one stopped."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("a"))
    async with api.follow(author.generation) as follower:
        events = await follower.read_until("token")
        process.terminate()
        events += await follower.read_to_end()
    await author.say(token("b"))
    await author.close()
    port = free_port()
    another = ApiClient(f"http://127.0.0.1:{port}")
    ready = f"{another.api_url}/healthz"
    async with (
        open_process("api", api_environment(valkey.url, port, {}), ready),
        another.follow(author.generation, follower.last_event_id) as again,
    ):
        events += await again.read_to_end()

    assert fold(events) == fold_log(await author.raw())


async def test_an_idle_process_ends_at_once(process: Process) -> None:
    """Nobody is there to wait for."""
    process.terminate()
    assert await process.wait(2) == 0


async def test_a_client_that_does_not_read_holds_nothing_up(
    process: Process, api: ApiClient, client: Client
) -> None:
    """Its socket is full, so it cannot be told: it is cut, and comes back by its cursor."""
    author = await Author.create(client)
    await author.claim()
    for _ in range(150):
        await author.say(token(LARGE))
    deaf = api.follow(author.generation, receive_buffer_bytes=4096)
    async with deaf, api.follow(author.generation, author.last_id) as follower:
        await author.say(token("now"))
        await follower.read_until("token")
        process.terminate()
        await follower.read_until("reconnect")
        assert await process.wait(3) == 0
        await deaf.read_to_end()
        assert deaf.end is End.TORN
