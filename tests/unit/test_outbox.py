"""What connections send leaves in rows, in its order, whole."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import uvloop

from api.outbox import HELD, ROW, Outbox, Outgoing
from tests.support.wait import next_turn


class Line:
    """A connection to write on, and its other end."""

    def __init__(
        self, outgoing: Outgoing, transport: asyncio.Transport, other_end: socket.socket
    ) -> None:
        self.outgoing = outgoing
        self._transport = transport
        self._other_end = other_end

    def lose(self) -> None:
        """End it under the feet of whoever writes on it."""
        self._transport.abort()

    def arrived(self) -> bytes | None:
        """What has arrived by now, empty at the end of it; None if nothing has."""
        try:
            return self._other_end.recv(2 * HELD)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def open_line(outbox: Outbox) -> AsyncIterator[Line]:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        yield Line(Outgoing(transport, outbox), transport, theirs)
        transport.abort()
        await next_turn()


async def test_bytes_are_held_back_until_what_is_ready_has_run() -> None:
    """One write of everything, in the order in which it was said."""
    async with open_line(Outbox()) as line:
        for piece in (b"head ", b"opening ", b"history"):
            line.outgoing.write(piece)
        assert line.arrived() is None
        assert line.outgoing.get_write_buffer_size() == len(b"head opening history")
        await next_turn()
        assert line.arrived() == b"head opening history"
        assert line.outgoing.get_write_buffer_size() == 0
        line.outgoing.write(b" and more")
        await next_turn()
        assert line.arrived() == b" and more"


async def test_a_whole_row_leaves_at_once() -> None:
    """The first of thousands does not wait for the last."""
    async with AsyncExitStack() as stack:
        outbox = Outbox()
        lines = [await stack.enter_async_context(open_line(outbox)) for _ in range(ROW + 1)]
        for line in lines:
            line.outgoing.write(b"x")
        assert [line.arrived() for line in lines] == [b"x"] * ROW + [None]
        await next_turn()
        assert lines[-1].arrived() == b"x"


async def test_no_more_than_a_bound_is_held() -> None:
    """Who writes without end is told by its transport when nobody reads."""
    async with open_line(Outbox()) as line:
        line.outgoing.write(b"x")
        line.outgoing.write(b"y" * (HELD - 2))
        assert line.arrived() is None
        line.outgoing.write(b"z")
        assert line.arrived() == b"x" + b"y" * (HELD - 2) + b"z"
        line.outgoing.write(b"y" * HELD)
        assert line.arrived() == b"y" * HELD


async def test_what_was_said_before_the_end_is_sent() -> None:
    """A farewell, and the close behind it."""
    async with open_line(Outbox()) as line:
        line.outgoing.write(b"farewell")
        line.outgoing.close()
        assert line.outgoing.is_closing()
        line.outgoing.write(b"too late")
        for _ in range(3):
            await next_turn()
        assert (line.arrived(), line.arrived()) == (b"farewell", b"")


def test_a_connection_that_is_gone_holds_nobody_up() -> None:
    """Lost in the turn of its write: uvloop refuses what is written on a closed connection."""

    async def lose_one() -> bytes | None:
        outbox = Outbox()
        async with open_line(outbox) as lost, open_line(outbox) as line:
            lost.lose()
            for each in (lost, line):
                each.outgoing.write(b"x")
            await next_turn()
            return line.arrived()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(lose_one()) == b"x"


async def test_who_is_cut_is_sent_nothing_more() -> None:
    """Not even what was held back."""
    async with open_line(Outbox()) as line:
        line.outgoing.write(b"unsent")
        line.outgoing.abort()
        for _ in range(3):
            await next_turn()
        assert line.arrived() == b""
