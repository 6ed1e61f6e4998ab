"""What is asked of Redis on the tracked connection, and when."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from api.followed import BATCH, FollowedLogs
from api.tracking import PING_EVERY, SILENCE_S, Conversation
from api.window import Window
from shared.ids import BEGINNING, GenerationId
from tests.support.wait import within

NOTHING_NEW = b"_\r\n"
"""As RESP3 says it."""


class Peer:
    """The other end: counts what it is asked, and answers when it is told to."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        talking: "asyncio.Task[None]",
    ) -> None:
        self._reader, self._writer = reader, writer
        self.talking = talking
        """Ends when the conversation is given up."""
        self.asked = 0

    async def wait_asked(self, reads: int) -> None:
        async with within(5, lambda: f"{self.asked} reads"):
            while self.asked < reads:
                await self._reader.readuntil(b"XREAD\r\n")
                self.asked += 1

    def answer(self, reads: int) -> None:
        self._writer.write(NOTHING_NEW * reads)

    def push(self, keys: bytes) -> None:
        """Tell of keys that changed, in RESP3."""
        self._writer.write(b">2\r\n$10\r\ninvalidate\r\n" + keys)


@asynccontextmanager
async def open_conversation(logs: FollowedLogs) -> AsyncIterator[Peer]:
    ours, theirs = socket.socketpair()
    streams = await asyncio.open_connection(sock=ours)
    peer_reader, peer_writer = await asyncio.open_connection(sock=theirs)
    talking = asyncio.create_task(Conversation(logs, streams).run())
    try:
        yield Peer(peer_reader, peer_writer, talking)
    finally:
        talking.cancel()
        with suppress(asyncio.CancelledError, TimeoutError):
            await talking
        for writer in (streams[1], peer_writer):
            writer.close()
            await writer.wait_closed()


def dirty_logs(count: int) -> FollowedLogs:
    logs = FollowedLogs()
    for number in range(count):
        logs.add(b"log %d" % number, Window(GenerationId(f"gen_{number}"), BEGINNING, 1000))
    return logs


async def test_redis_reads_a_batch_while_the_one_before_is_worked_on() -> None:
    """Two are under way at most: what gets dirty meanwhile gathers, and is asked for once."""
    logs = dirty_logs(3 * BATCH)
    async with open_conversation(logs) as peer:
        await peer.wait_asked(2 * BATCH)
        unasked = [followed.key for followed in logs.take_dirty()]
        assert len(unasked) == BATCH
        for key in unasked:
            logs.mark_dirty(key)
        peer.answer(BATCH)
        await peer.wait_asked(3 * BATCH)


async def test_a_silent_redis_is_noticed_whatever_trickles_in() -> None:
    """Reads of logs that somebody begins to follow do not put off the look whether it lives."""
    logs = dirty_logs(1)
    async with (
        open_conversation(logs) as peer,
        within(PING_EVERY.total_seconds() + SILENCE_S + 2, lambda: "not noticed"),
    ):
        while not peer.talking.done():
            logs.mark_all_dirty()
            await asyncio.wait([peer.talking], timeout=0.2)
        assert isinstance(peer.talking.exception(), TimeoutError)


async def test_what_is_pushed_is_read_and_nothing_else() -> None:
    """A key that somebody follows, and one that nobody does."""
    logs = dirty_logs(3)
    async with open_conversation(logs) as peer:
        await peer.wait_asked(3)
        peer.push(b"*2\r\n$5\r\nlog 1\r\n$5\r\nlog 9\r\n")
        peer.answer(3)
        await peer.wait_asked(4)
        peer.answer(1)
        peer.push(b"*1\r\n$5\r\nlog 2\r\n")
        await peer.wait_asked(5)
        assert logs.take_dirty() == []


async def test_a_push_without_keys_tells_of_all() -> None:
    """FLUSHALL: no key is tracked any more."""
    logs = dirty_logs(3)
    async with open_conversation(logs) as peer:
        await peer.wait_asked(3)
        peer.answer(3)
        peer.push(b"_\r\n")
        await peer.wait_asked(6)
