"""Many followers, slow ones, silent ones, and those who leave: what they cost and what they get."""

import asyncio
from datetime import timedelta

from shared.connections import Client
from shared.generation import Surface
from shared.ids import BEGINNING
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, token
from tests.support.fold import check_ids, fold, fold_log
from tests.support.follower import End
from tests.support.leaks import pending_tasks
from tests.support.reading import Reading
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until
from tests.support.windows import following, read_all

LARGE = "x" * 50_000
ENTRIES = 120
"""So many of these are more than the sockets between us and the API can hold."""

COUNT = 200
SEND_TIMEOUT = timedelta(seconds=0.3)


async def test_silence_is_filled_with_heartbeats(valkey: RedisServer, client: Client) -> None:
    """They have no id and leave the cursor alone; on both surfaces."""
    async with open_api(valkey.url, heartbeat=timedelta(seconds=0.05)) as api:
        for surface in Surface:
            reading = await Reading.begin(client, surface)
            async with reading.open(api.api_url) as follower:
                (*_, last) = await follower.read_until("token")
                beats = await follower.read_n(3)
                assert [(b.type, b.data, b.last_event_id) for b in beats] == [
                    ("heartbeat", "", last.last_event_id)
                ] * 3
                assert b"event: heartbeat\ndata:\n\n" in follower.body


async def test_a_response_has_the_headers_that_keep_it_flowing(
    api: ApiProcess, client: Client
) -> None:
    """No proxy may hold it back, keep it, or change it."""
    for surface in Surface:
        reading = await Reading.begin(client, surface)
        async with reading.open(api.api_url) as follower:
            assert follower.headers["content-type"].startswith("text/event-stream")
            assert follower.headers["cache-control"] == "no-store, no-transform"
            assert follower.headers["x-accel-buffering"] == "no"
            assert "content-encoding" not in follower.headers


async def test_two_hundred_followers_of_one_log_see_the_same(
    api: ApiProcess, client: Client
) -> None:
    """They share one entry of the hub and its memory, and each has every token once."""
    author = await Author.create(client)
    await author.claim()
    connected: list[None] = []
    room = asyncio.Semaphore(50)

    async def follow() -> list[str]:
        follower = api.follow(author.generation)
        async with room:
            await follower.__aenter__()
        connected.append(None)
        try:
            events = await follower.read_to_end()
        finally:
            follower.close()
        check_ids([event.last_event_id for event in events])
        return [fold(events).text]

    async with asyncio.TaskGroup() as tasks:
        followers = [tasks.create_task(follow()) for _ in range(COUNT)]
        await wait_until(lambda: len(connected) == COUNT, "all to be connected")
        assert api.held.hub.followed == 1
        for i in range(20):
            await author.say(token(f"{i}\n"))
        await author.close()

    said = fold_log(await author.raw()).text
    assert [follower.result() for follower in followers] == [[said]] * COUNT


async def test_who_leaves_is_forgotten(api: ApiProcess, client: Client) -> None:
    """By a reset or in order, in history or live: no task, no window, no connection stays."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("a"))
    before = len(pending_tasks())
    for leave_early in (True, False):
        for cut in (True, False):
            async with api.follow(author.generation) as follower:
                if not leave_early:
                    await follower.read_until("token")
                    assert api.held.hub.followed == 1
                if cut:
                    follower.cut()
            await wait_until(lambda: api.held.hub.followed == 0, "the hub to let go")
            await wait_until(lambda: api.connections == 0, "the connection to be closed")

    # One task polls for sse-starlette as long as the process lives.
    await wait_until(lambda: len(pending_tasks()) <= before + 1, "the tasks to end")


async def test_who_stops_reading_is_cut_and_resumes(valkey: RedisServer, client: Client) -> None:
    """Its socket stays full beyond the send time-out: torn, not ended, and nothing is held."""
    async with open_api(valkey.url, send_timeout=SEND_TIMEOUT) as api:
        author = await Author.create(client)
        await author.claim()
        for _ in range(ENTRIES):
            await author.say(token(LARGE))
        await author.close()
        async with api.follow(author.generation, receive_buffer_bytes=4096) as slow:
            assert api.connections == 1
            await wait_until(lambda: api.connections == 0, "the connection to be cut")
            events = await slow.read_to_end()
            assert slow.end is End.TORN
        async with api.follow(author.generation, slow.last_event_id) as again:
            events += await again.read_to_end()

        assert fold(events) == fold_log(await author.raw())


async def test_a_slow_follower_holds_no_more_memory_than_the_window(
    valkey: RedisServer, client: Client
) -> None:
    """What it has not read is in Redis, not in the process."""
    window = 200_000
    async with open_api(valkey.url, window=window) as api:
        author = await Author.create(client)
        await author.claim()
        async with (
            api.follow(author.generation, receive_buffer_bytes=4096) as slow,
            api.follow(author.generation) as quick,
        ):
            for _ in range(ENTRIES):
                await author.say(token(LARGE))
                await quick.read_until("token")
            with following(api.held.hub, author.generation, BEGINNING) as log:
                kept = read_all(log.window, log.window.floor) or []
            assert sum(len(event.data) for event in kept) <= window + len(LARGE)
            await author.close()
            folded = fold(await slow.read_to_end())

        assert folded == fold_log(await author.raw())
