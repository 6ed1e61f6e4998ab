"""The proxy cuts at the very byte it was told to, and elsewhere changes nothing."""

import pytest
import redis

from tests.support.cutting_proxy import open_cutting_proxy
from tests.support.event_source import follow_until_closed
from tests.support.follower import End, Follower
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer
from tests.support.scripted_server import Answer, Ending, chunked, open_scripted_server
from tests.support.sse_reader import SseReader
from tests.support.wait import wait_until

FRAMES = b"id: 1-0\nevent: queued\ndata: {}\n\nid: 2-0\nevent: done\ndata: {}\n\n"
# Delimited by the end of the connection, so that a client gets the body without framing.
RAW = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + FRAMES
HEAD_BYTES = len(RAW) - len(FRAMES)


async def test_uncut_connection_passes_through() -> None:
    """Response, request and orderly end are those of the server behind."""
    async with (
        open_scripted_server([Answer(chunked(FRAMES))]) as server,
        open_cutting_proxy("127.0.0.1", server.port) as proxy,
        Follower(proxy.url, "/e", "0-9") as follower,
    ):
        assert await follower.read_to_end() == SseReader().feed(FRAMES)
        assert follower.end is End.CLEAN
        assert b"last-event-id: 0-9" in server.requests[0]
        assert not proxy.connections[0].was_cut


async def test_cut_of_the_body_is_exact_at_every_byte() -> None:
    """For every n: exactly n bytes of the body arrive, then a reset, on the server's side too."""
    async with (
        open_scripted_server([Answer(RAW)]) as server,
        open_cutting_proxy(
            "127.0.0.1", server.port, cuts=range(len(FRAMES) + 1), counting="body"
        ) as proxy,
    ):
        for n in range(len(FRAMES) + 1):
            async with Follower(proxy.url, "/e") as follower:
                events = await follower.read_to_end()
                assert follower.end is End.TORN
                assert bytes(follower.body) == FRAMES[:n]
                assert events == SseReader().feed(FRAMES[:n])
        everyone = ["RST"] * (len(FRAMES) + 1)
        await wait_until(lambda: server.hung_up == everyone, "the server to see the resets")
        assert [connection.counted_bytes for connection in proxy.connections] == [
            *range(len(FRAMES) + 1)
        ]


async def test_cut_of_the_response_counts_the_head() -> None:
    """Inside the head there is no response yet; after it the body begins at once."""
    cuts = [0, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 3]
    async with (
        open_scripted_server([Answer(RAW)]) as server,
        open_cutting_proxy("127.0.0.1", server.port, cuts=cuts) as proxy,
    ):
        for _ in range(2):
            with pytest.raises(ConnectionError):
                async with Follower(proxy.url, "/e"):
                    pass
        for expected in (b"", FRAMES[:3]):
            async with Follower(proxy.url, "/e") as follower:
                assert await follower.read_body() == expected
                assert follower.end is End.TORN
        assert [connection.was_cut for connection in proxy.connections] == [True] * 4


async def test_body_is_counted_however_the_head_is_split() -> None:
    """The blank line is found across pieces of any size."""
    for chunk_bytes in (1, 2, 3, 5):
        async with (
            open_scripted_server([Answer(RAW)]) as server,
            open_cutting_proxy("127.0.0.1", server.port, chunk_bytes=chunk_bytes) as splitting,
            open_cutting_proxy("127.0.0.1", splitting.port, cuts=[7], counting="body") as proxy,
            Follower(proxy.url, "/e") as follower,
        ):
            assert await follower.read_body() == FRAMES[:7]


async def test_schedule_applies_to_connections_in_order_and_then_ends() -> None:
    """None is a connection that is spared, and so are all after the schedule."""
    async with (
        open_scripted_server([Answer(RAW, Ending.CLOSE)]) as server,
        open_cutting_proxy("127.0.0.1", server.port, cuts=[None, 4], counting="body") as proxy,
    ):
        got = []
        for _ in range(4):
            async with Follower(proxy.url, "/e") as follower:
                got.append(await follower.read_body())
        assert got == [FRAMES, FRAMES[:4], FRAMES, FRAMES]


async def test_client_that_comes_back_reads_through_a_schedule_of_cuts() -> None:
    """Reader and proxy together: cut after cut, each frame is seen once."""
    first, second = FRAMES[:32], FRAMES[32:]
    answers = [
        *[Answer(chunked(FRAMES, complete=False))] * 3,
        *[Answer(chunked(second, complete=False))] * 3,
    ]
    assert first.endswith(b"\n\n")
    async with (
        open_scripted_server(answers) as server,
        open_cutting_proxy(
            "127.0.0.1", server.port, cuts=[0, 20, 45, 0, 9, None], counting="body"
        ) as proxy,
    ):
        followed = await follow_until_closed(proxy.url, "/e")
    assert followed.events == SseReader().feed(FRAMES)
    assert followed.ends == [End.TORN] * 5 + [None]


async def test_held_bytes_come_after_the_release() -> None:
    """Nothing is forwarded while held, and nothing is lost by it."""
    async with (
        open_scripted_server([Answer(RAW)]) as server,
        open_cutting_proxy("127.0.0.1", server.port) as proxy,
    ):
        proxy.hold()
        with pytest.raises(AssertionError, match="no answer"):
            async with Follower(proxy.url, "/e", timeout_s=0.05):
                pass
        assert server.requests == []
        proxy.release()
        async with Follower(proxy.url, "/e") as follower:
            assert await follower.read_n(2) == SseReader().feed(FRAMES)


async def test_chunked_forwarding_changes_no_byte() -> None:
    """One byte at a time, the response is the same."""
    async with (
        open_scripted_server([Answer(chunked(FRAMES))]) as server,
        open_cutting_proxy("127.0.0.1", server.port, chunk_bytes=1) as proxy,
        Follower(proxy.url, "/e") as follower,
    ):
        assert await follower.read_to_end() == SseReader().feed(FRAMES)
        assert follower.end is End.CLEAN


async def test_reset_and_end_of_the_server_are_passed_on_as_they_are() -> None:
    """A proxy that is not told to cut invents no ending."""
    answers = [Answer(RAW, Ending.RESET), Answer(RAW, Ending.CLOSE)]
    async with (
        open_scripted_server(answers) as server,
        open_cutting_proxy("127.0.0.1", server.port) as proxy,
    ):
        ends = []
        for _ in answers:
            async with Follower(proxy.url, "/e") as follower:
                await follower.read_body()
                ends.append(follower.end)
    assert ends == [End.TORN, End.CLEAN]


async def test_client_that_leaves_is_seen_by_the_server() -> None:
    """FIN and RST of the client reach the server behind."""
    async with (
        open_scripted_server([Answer(RAW)]) as server,
        open_cutting_proxy("127.0.0.1", server.port) as proxy,
    ):
        async with Follower(proxy.url, "/e") as follower:
            await follower.read_n(1)
        await wait_until(lambda: server.hung_up == ["FIN"], "the server to see the end")
        async with Follower(proxy.url, "/e") as follower:
            await follower.read_n(1)
            follower.cut()
        await wait_until(lambda: server.hung_up == ["FIN", "RST"], "the server to see the reset")


async def test_server_that_is_away_resets_the_client() -> None:
    """Behind a proxy an absent server shows as a reset connection."""
    async with open_cutting_proxy("127.0.0.1", free_port()) as proxy:
        with pytest.raises(ConnectionError):
            async with Follower(proxy.url, "/e"):
                pass


async def test_redis_connections_can_be_cut_from_outside(valkey: RedisServer) -> None:
    """Any protocol passes, and cut_all breaks what is open at this moment only."""
    async with open_cutting_proxy("127.0.0.1", valkey.port) as proxy:
        client = redis.asyncio.Redis(port=proxy.port, protocol=2, single_connection_client=True)
        async with client:
            assert await client.ping() is True
            await proxy.cut_all()
            with pytest.raises(redis.ConnectionError):
                await client.ping()
            assert await client.ping() is True
    assert [connection.was_cut for connection in proxy.connections] == [True, False]
