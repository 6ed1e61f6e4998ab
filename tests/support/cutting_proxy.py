"""A TCP proxy that breaks connections at a byte the test chose.

    async with open_cutting_proxy("127.0.0.1", port, cuts=[17, 400]) as proxy:
        ...     # the first connection is reset after 17 bytes of response, the second after 400,
                # all others pass through

Works for anything over TCP, Redis included; only `counting="body"` knows HTTP.
"""

import asyncio
import fcntl
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Literal

from tests.support.follower import reset_on_close
from tests.support.listener import open_listener
from tests.support.wait import next_turn, wait_until

Counting = Literal["response", "body"]

_RECEIVE_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"

# Linux: ioctl SIOCOUTQNSD, bytes not yet sent; on loopback what was sent has arrived.
# macOS: getsockopt SO_NWRITE, bytes not yet sent and acknowledged.
_SIOCOUTQNSD = 0x894B
_SO_NWRITE = 0x1024


def _unsent_bytes(sock: socket.socket) -> int:
    if sys.platform == "linux":
        answer = fcntl.ioctl(sock.fileno(), _SIOCOUTQNSD, struct.pack("i", 0))
        (unsent,) = struct.unpack("i", answer)
        return int(unsent)
    return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)


def _end_writing(sock: socket.socket) -> None:
    with suppress(OSError):  # ENOTCONN: the other side has closed altogether
        sock.shutdown(socket.SHUT_WR)


class _Cut(Exception):
    """This connection is to be reset on both sides."""


class ProxiedConnection:
    """One connection through the proxy, and how far its response came."""

    def __init__(self, cut_after_bytes: int | None, counting: Counting) -> None:
        self.cut_after_bytes = cut_after_bytes
        self.forwarded_bytes = 0
        """Server to client, heads included."""
        self.counted_bytes = 0
        """Of those, the ones that `cuts` counts."""
        self.was_cut = False
        self.task: asyncio.Task[None] | None = None
        self._in_head = counting == "body"
        self._head_tail = b""

    def allowance(self, piece: bytes) -> int:
        """How much of the next piece of response may be forwarded; counts it as forwarded."""
        head = self._head_bytes(piece)
        body = len(piece) - head
        if self.cut_after_bytes is not None:
            body = min(body, self.cut_after_bytes - self.counted_bytes)
        self.counted_bytes += body
        self.forwarded_bytes += head + body
        return head + body

    def _head_bytes(self, piece: bytes) -> int:
        """How many bytes of the piece belong to the head, which is not counted."""
        if not self._in_head:
            return 0
        joined = self._head_tail + piece
        at = joined.find(_HEAD_END)
        if at < 0:
            self._head_tail = joined[-len(_HEAD_END) + 1 :]
            return len(piece)
        self._in_head = False
        return at + len(_HEAD_END) - (len(joined) - len(piece))

    @property
    def is_due(self) -> bool:
        return not self._in_head and self.counted_bytes == self.cut_after_bytes


class CuttingProxy:
    """See `open_cutting_proxy`."""

    def __init__(
        self,
        upstream: tuple[str, int],
        cuts: Iterable[int | None],
        counting: Counting,
        chunk_bytes: int | None,
    ) -> None:
        self.port = 0
        self.connections: list[ProxiedConnection] = []
        """Every connection so far, in the order of arrival."""
        self._upstream = upstream
        self._cuts = iter(cuts)
        self._counting = counting
        self._chunk_bytes = chunk_bytes
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cutting = asyncio.Event()
        self._cutting.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Forward nothing more, in either direction, on any connection; all stay open."""
        self._flowing.clear()

    def release(self) -> None:
        """Forward again, beginning with what was held back."""
        self._flowing.set()

    def delay_cuts(self) -> None:
        """A connection that comes to its cut stands still there, open, until `cut_now`.

        A browser may throw away what it had not read when a reset came right behind it.
        """
        self._cutting.clear()

    def cut_now(self) -> None:
        """Reset what was delayed; cuts to come are no longer delayed."""
        self._cutting.set()

    async def cut_all(self) -> None:
        """Reset every open connection, on both sides, now."""
        tasks = []
        for connection in self.connections:
            if connection.task is not None and not connection.task.done():
                connection.was_cut = True
                connection.task.cancel()
                tasks.append(connection.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, client: socket.socket) -> None:
        connection = ProxiedConnection(next(self._cuts, None), self._counting)
        connection.task = asyncio.current_task()
        self.connections.append(connection)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            orderly = False
            try:
                await asyncio.get_running_loop().sock_connect(server, self._upstream)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward_request(client, server))
                    both.create_task(self._forward_response(connection, server, client))
                orderly = True
            except* _Cut:
                connection.was_cut = True
            except* ConnectionError:
                pass  # one side was reset or refused; so is now the other
            finally:
                if not orderly:
                    reset_on_close(client)
                    reset_on_close(server)

    async def _forward_request(self, client: socket.socket, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while piece := await loop.sock_recv(client, _RECEIVE_BYTES):
            await self._flowing.wait()
            await loop.sock_sendall(server, piece)
        await self._flowing.wait()
        _end_writing(server)

    async def _forward_response(
        self, connection: ProxiedConnection, server: socket.socket, client: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        while piece := await loop.sock_recv(server, _RECEIVE_BYTES):
            await self._flowing.wait()
            await self._send_in_chunks(client, piece[: connection.allowance(piece)])
            if connection.is_due:
                # A reset discards what the kernel has not sent yet, so it must wait for that.
                await wait_until(lambda: _unsent_bytes(client) == 0, "the last bytes to leave")
                await self._cutting.wait()
                raise _Cut
        await self._flowing.wait()
        _end_writing(client)

    async def _send_in_chunks(self, client: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        step = self._chunk_bytes or max(len(data), 1)
        for start in range(0, len(data), step):
            await loop.sock_sendall(client, data[start : start + step])
            if self._chunk_bytes is not None:
                await next_turn()


@asynccontextmanager
async def open_cutting_proxy(
    upstream_host: str,
    upstream_port: int,
    *,
    cuts: Iterable[int | None] = (),
    counting: Counting = "response",
    chunk_bytes: int | None = None,
) -> AsyncIterator[CuttingProxy]:
    """Stand on a free loopback port before an upstream address; closes everything at exit.

    The n-th connection accepted is reset on both sides once exactly `cuts[n]` bytes of its
    response have reached the client (0: when the first byte of it would; None, and after the
    last cut: never). `counting="body"` counts only after the first response's blank line, the
    chunk framing included.

    `chunk_bytes` forwards responses in writes of that size, one for each turn of the loop. TCP
    promises no boundaries, so a reader in another process may still see several at once.
    """
    proxy = CuttingProxy((upstream_host, upstream_port), cuts, counting, chunk_bytes)
    async with open_listener(proxy._serve) as proxy.port:
        yield proxy
