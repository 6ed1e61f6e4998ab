"""Redis is away: what is asked is refused or put off, who follows is held, and nothing is lost."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import SecretStr

from api.hub import SWEEP_EVERY
from api.sse import HEARTBEAT, NATIVE
from shared.connections import Client, open_connection
from shared.event_log import PAGE
from shared.generation import Surface
from shared.ids import BEGINNING
from shared.settings import RedisSettings
from tests.support.api_client import chat_path, follow_path
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, token
from tests.support.event_source import follow_until_closed
from tests.support.fold import fold, fold_log
from tests.support.follower import End
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.sse_reader import SseReader
from tests.support.stack import expected_text, open_stack
from tests.support.wait import wait_until, within
from tests.support.windows import following

HEARTBEAT_EVERY = timedelta(seconds=0.1)


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    """A server of the test's own, which may be killed."""
    async with open_redis_server(aof=True) as server:
        yield server


@pytest.fixture
async def api(redis: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API over it that is never silent for long."""
    async with open_api(redis.url, heartbeat=HEARTBEAT_EVERY) as api:
        yield api


@pytest.fixture
async def client(redis: RedisServer) -> AsyncIterator[Client]:
    """Our client of it."""
    async with open_connection(RedisSettings(url=SecretStr(redis.url)), "test") as connection:
        yield Client(connection)


async def test_what_is_no_event_stream_is_refused_for_a_moment(
    redis: RedisServer, api: ApiProcess, client: Client
) -> None:
    """503 and when to try again: a program repeats its request."""
    author = await Author.create(client)
    redis.kill()
    of_it = f"/v1/generations/{author.generation}"
    for method, path, body in (
        ("POST", "/v1/generations", {"prompt": "hello"}),
        ("GET", of_it, None),
        ("POST", f"{of_it}/cancel", None),
        ("DELETE", of_it, None),
    ):
        reply = await api.call(method, path, body)
        assert (reply.status, reply.json["code"]) == (503, "store_unavailable"), (method, path)
        assert int(reply.headers["retry-after"]) >= 1
    assert (await api.call("GET", "/healthz")).status == 200
    assert (await api.call("GET", "/readyz")).status == 503


async def test_what_a_browser_follows_is_put_off(
    redis: RedisServer, api: ApiProcess, client: Client
) -> None:
    """200, `retry:`, and the end: `EventSource` gives up for good on anything else."""
    author = await Author.create(client)
    chat = await Author.create(client, Surface.CHAT)
    redis.kill()
    for path, cursor in (
        (follow_path(author.generation), None),
        (follow_path(author.generation), "1-1"),
        (chat_path("hello"), None),
        (chat_path("hello"), f"{chat.generation}/0-0"),
        (chat_path("hello", key="once"), None),
    ):
        headers = {"last-event-id": cursor} if cursor else {}
        reply = await api.call("GET", path, headers=headers)
        assert reply.status == 200, path
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.body.startswith(b"retry: ")
        assert reply.body.count(b"\n\n") == 1


async def test_a_follower_is_held_and_goes_on_when_redis_is_back(
    redis: RedisServer, api: ApiProcess, client: Client
) -> None:
    """It hears heartbeats meanwhile, then the rest on the same connection."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("a"))
    async with api.follow(author.generation) as follower:
        events = await follower.read_until("token")
        redis.kill()
        await wait_until(lambda: not api.held.hub.is_tracking, "the hub to notice")
        events += await follower.read_n(5)
        assert {event.type for event in events[-5:]} == {"heartbeat"}
        await redis.start()
        await author.say(token("b"))
        await author.close()
        events += await follower.read_to_end()
        assert follower.end is End.CLEAN

    assert fold(events) == fold_log(await author.raw())


async def test_a_follower_hears_of_news_at_once_after_the_hub_came_back(
    redis: RedisServer, api: ApiProcess, client: Client
) -> None:
    """The new connection tracks again: what is said later is not left to the next sweep."""
    author = await Author.create(client)
    await author.claim()
    async with api.follow(author.generation) as follower:
        await follower.read_until("started")
        redis.kill()
        await wait_until(lambda: not api.held.hub.is_tracking, "the hub to notice")
        await redis.start()
        await wait_until(lambda: api.held.hub.is_tracking, "the hub to track again")
        async with within(SWEEP_EVERY.total_seconds() / 2, lambda: "not every token came"):
            for text in "abc":
                await author.say(token(text))
                await follower.read_until("token")
        await author.close()
        await follower.read_until("done")


async def test_the_hub_comes_back_when_it_was_cut_in_the_middle_of_a_write(
    redis: RedisServer, api: ApiProcess, client: Client
) -> None:
    """Redis dies in the very turn of the loop in which the hub asks it: no task waits for ever."""
    author = await Author.create(client)
    with following(api.held.hub, author.generation, BEGINNING):
        redis.kill()
        await wait_until(lambda: not api.held.hub.is_tracking, "the hub to notice")
        await redis.start()
        await wait_until(lambda: api.held.hub.is_tracking, "the hub to track again")


async def test_a_reader_of_history_is_not_left_in_silence(
    redis: RedisServer, api: ApiProcess, client: Client
) -> None:
    """Below what the process remembers Redis is needed: until it is back there are heartbeats."""
    author = await Author.create(client)
    await author.claim()
    await author.say(*[token(f"{i} ") for i in range(PAGE)])
    await author.close()
    view = await api.held.view(author.generation, BEGINNING)
    frames = api.held.tail(author.generation, NATIVE).frames(view, BEGINNING)
    pieces = [await anext(frames), await anext(frames)]
    redis.kill()
    async with within(5, lambda: "no heartbeat"):
        assert [await anext(frames), await anext(frames)] == [HEARTBEAT] * 2
    await redis.start()
    pieces += [piece async for piece in frames]

    assert fold(SseReader().feed(b"".join(pieces))) == fold_log(await author.raw())


async def test_an_api_that_starts_before_redis_serves_once_it_is_there() -> None:
    """The order in which things start does not matter."""
    async with open_redis_server() as redis:
        redis.kill()
        async with open_api(redis.url) as api:
            assert (await api.post({"prompt": "hello"})).status == 503
            await redis.start()
            await wait_until(lambda: api.held.hub.is_tracking, "the hub to track")
            assert (await api.post({"prompt": "hello"})).status == 202


async def test_a_running_generation_survives_a_restart_of_redis() -> None:
    """API, worker and Redis for real: killed in the middle, and no token lost or doubled."""
    prompt = "[standin tokens=150 kind=lines pace=100] hello"
    async with open_stack(aof=True) as stack:
        generation = await stack.create(prompt)
        async with stack.follow(generation) as follower:
            events = await follower.read_until("token")
            stack.redis.kill()
            await stack.redis.start()
            late = await follow_until_closed(stack.api_url, follow_path(generation))
            events += await follower.read_to_end()

        assert fold(events).text == expected_text(prompt)
        assert fold(late.events).text == expected_text(prompt)
        assert fold_log(await stack.entries(generation)).closing_type == "done"
        assert len(stack.ledger.entries) == 1
