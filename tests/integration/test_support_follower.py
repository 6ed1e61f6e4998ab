"""The follower tells how a response ended, and loses no byte that arrived before the end."""

import pytest

from tests.support.follower import End, Follower
from tests.support.processes import free_port
from tests.support.scripted_server import Answer, Ending, chunked, open_scripted_server
from tests.support.sse_reader import Event
from tests.support.wait import wait_until

FIRST = b"id: 1-0\nevent: queued\ndata: {}\n\n"
TOKEN = b'id: 2-0\nevent: token\ndata: {"text":"a"}\n\n'
DONE = b"id: 2-1\nevent: done\ndata: {}\n\n"

EVENTS = [
    Event("queued", "{}", "1-0"),
    Event("token", '{"text":"a"}', "2-0"),
    Event("done", "{}", "2-1"),
]

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_complete_body_ends_clean() -> None:
    """Status, headers and events of a response that was sent to its last chunk."""
    answer = Answer(chunked(FIRST, TOKEN[:9], TOKEN[9:] + DONE))
    async with open_scripted_server([answer]) as server, Follower(server.url, "/e") as follower:
        assert follower.status == 200
        assert follower.headers["content-type"] == "text/event-stream"
        assert await follower.read_to_end() == EVENTS
        assert follower.end is End.CLEAN
        assert bytes(follower.body) == FIRST + TOKEN + DONE


@pytest.mark.parametrize("ending", [Ending.CLOSE, Ending.RESET])
async def test_body_without_its_last_chunk_is_torn(ending: Ending) -> None:
    """FIN or RST before the body was complete: what arrived is read, the torn frame is not."""
    answer = Answer(chunked(FIRST, TOKEN[:-1], complete=False), ending)
    async with open_scripted_server([answer]) as server, Follower(server.url, "/e") as follower:
        assert await follower.read_to_end() == EVENTS[:1]
        assert follower.end is End.TORN
        assert follower.last_event_id == "1-0"


async def test_short_content_length_is_torn() -> None:
    """A body shorter than announced is torn, not clean."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + FIRST
    async with (
        open_scripted_server([Answer(raw, Ending.CLOSE)]) as server,
        Follower(server.url, "/e") as follower,
    ):
        assert await follower.read_to_end() == EVENTS[:1]
        assert follower.end is End.TORN


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-"], ids=["nothing", "half"])
@pytest.mark.parametrize("ending", [Ending.CLOSE, Ending.RESET])
async def test_connection_lost_before_the_head_is_an_error(raw: bytes, ending: Ending) -> None:
    """Without a complete head there is no response to speak of."""
    async with open_scripted_server([Answer(raw, ending)]) as server:
        with pytest.raises(ConnectionError):
            async with Follower(server.url, "/e"):
                pass


async def test_refused_connection_is_an_error() -> None:
    """Nobody listening is told from a response."""
    with pytest.raises(ConnectionRefusedError):
        async with Follower(f"http://127.0.0.1:{free_port()}", "/e"):
            pass


async def test_cut_is_a_reset_and_close_is_not() -> None:
    """The server sees RST after cut(), FIN after close()."""
    answer = Answer(chunked(FIRST, complete=False))
    async with open_scripted_server([answer]) as server:
        async with Follower(server.url, "/e") as follower:
            assert await follower.read_n(1) == EVENTS[:1]
            follower.cut()
            assert follower.end is End.CUT
            assert await follower.read_to_end() == []
        await wait_until(lambda: server.hung_up == ["RST"], "the server to see the reset")
        async with Follower(server.url, "/e") as follower:
            await follower.read_n(1)
        await wait_until(lambda: server.hung_up == ["RST", "FIN"], "the server to see the end")


async def test_cursor_counts_only_what_was_handed_out() -> None:
    """Frames that arrived but were not asked for are not behind the cursor."""
    answer = Answer(chunked(FIRST + TOKEN + DONE))
    async with open_scripted_server([answer]) as server, Follower(server.url, "/e") as follower:
        await follower.read_n(1)
        assert follower.last_event_id == "1-0"
        assert await follower.read_until("token") == EVENTS[1:2]
        assert follower.last_event_id == "2-0"
        assert follower.events == EVENTS[:2]


async def test_cursor_travels_by_header_or_by_query() -> None:
    """The two ways of naming a cursor, and none for none."""
    async with open_scripted_server([Answer(NO_CONTENT)]) as server:
        for cursor, via_header in [("a/1-0", True), ("a/1-0", False), ("", True), (None, False)]:
            async with Follower(server.url, "/e?x=1", cursor, via_header):
                pass
    heads = [request.decode().lower().split("\r\n") for request in server.requests]
    assert [head[0] for head in heads] == [
        "get /e?x=1 http/1.1",
        "get /e?x=1&last_event_id=a%2f1-0 http/1.1",
        "get /e?x=1 http/1.1",
        "get /e?x=1 http/1.1",
    ]
    assert ["last-event-id: a/1-0" in head for head in heads] == [True, False, False, False]


async def test_body_of_an_error_can_be_read() -> None:
    """A refusal is no stream of events; its body comes as bytes."""
    raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
    async with (
        open_scripted_server([Answer(raw)]) as server,
        Follower(server.url, "/e", method="POST", body=b"{}") as follower,
    ):
        assert (follower.status, await follower.read_body()) == (404, b"{}")
    assert server.requests[0].endswith(b"content-length: 2\r\n\r\n{}")


async def test_silence_fails_with_what_had_come() -> None:
    """A response that hangs fails the test and shows the last event."""
    answer = Answer(chunked(FIRST, complete=False))
    async with (
        open_scripted_server([answer]) as server,
        Follower(server.url, "/e", timeout_s=0.05) as follower,
    ):
        with pytest.raises(AssertionError, match=r"1 events \[… queued\(1-0\)\]"):
            await follower.read_until("done")


async def test_missing_events_fail() -> None:
    """An end before the wanted event or number is not mistaken for having got it."""
    answer = Answer(chunked(FIRST))
    async with open_scripted_server([answer]) as server:
        async with Follower(server.url, "/e") as follower:
            with pytest.raises(AssertionError, match="wanted 2 more events, got 1"):
                await follower.read_n(2)
        async with Follower(server.url, "/e") as follower:
            with pytest.raises(AssertionError, match="ended without any of"):
                await follower.read_until("done")
