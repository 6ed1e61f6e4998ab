"""The client that always comes back does what a browser would, and gets to the end."""

import pytest

from tests.support.event_source import follow_until_closed
from tests.support.follower import End
from tests.support.scripted_server import Answer, Ending, chunked, open_scripted_server
from tests.support.sse_reader import SseReader

FIRST = b"id: 1-0\nevent: queued\ndata: {}\n\n"
TOKEN = b'id: 2-0\nevent: token\ndata: {"text":"a"}\n\n'
DONE = b"id: 2-1\nevent: done\ndata: {}\n\n"


async def test_client_that_always_comes_back_gets_to_the_end() -> None:
    """Torn, reset before the head and clean ends are survived, each with the right cursor."""
    answers = [
        Answer(chunked(FIRST + TOKEN[:7], complete=False), Ending.RESET),
        Answer(b"", Ending.RESET),
        Answer(chunked(b"retry: 1\n\n")),
        Answer(chunked(TOKEN, complete=False), Ending.CLOSE),
        Answer(chunked(DONE, complete=False)),
    ]
    async with open_scripted_server(answers) as server:
        followed = await follow_until_closed(server.url, "/e")
    assert followed.events == SseReader().feed(FIRST + TOKEN + DONE)
    assert followed.ends == [End.TORN, End.CLEAN, End.TORN, None]
    cursors = [
        line.removeprefix(b"last-event-id: ")
        for request in server.requests
        for line in request.split(b"\r\n")
        if line.startswith(b"last-event-id: ")
    ]
    assert cursors == [b"1-0", b"1-0", b"1-0", b"2-0"]


async def test_client_that_always_comes_back_stops_at_no_content() -> None:
    """204 says that there is nothing more, as to EventSource."""
    async with open_scripted_server([Answer(b"HTTP/1.1 204 No Content\r\n\r\n")]) as server:
        followed = await follow_until_closed(server.url, "/e", "2-1")
    assert (followed.events, followed.last_event_id, followed.connections) == ([], "2-1", 1)


async def test_client_that_always_comes_back_fails_where_a_browser_gives_up() -> None:
    """A 503 ends an EventSource for good, so it must end the test."""
    raw = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    async with open_scripted_server([Answer(raw)]) as server:
        with pytest.raises(AssertionError, match="gives up at 503"):
            await follow_until_closed(server.url, "/e")
