"""One address of a Redis behind which the server may change: what a fail-over is to its clients.

async with open_switch(primary.port) as switch:     # clients know only switch.url
    switch.shut()                                   # nobody is there: all are cut, none let in
    ...                                             # time to look at what the new one holds
    switch.lead_to(replica.port)                    # from now on Redis answers again
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.follower import reset_on_close
from tests.support.listener import open_listener

_RECEIVE_BYTES = 65_536


class Switch:
    """See `open_switch`."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port: int | None = target_port
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The address that clients are told."""
        return f"redis://127.0.0.1:{self.port}/0"

    def shut(self) -> None:
        """Reset every connection on both sides, and from now on whoever comes."""
        self._target_port = None
        for task in self._serving:
            task.cancel()

    def lead_to(self, port: int) -> None:
        """Let new connections through, to a server on that port."""
        self._target_port = port

    async def _serve(self, client: socket.socket) -> None:
        if self._target_port is None:
            reset_on_close(client)
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            orderly = False
            try:
                loop = asyncio.get_running_loop()
                await loop.sock_connect(server, ("127.0.0.1", self._target_port))
                async with asyncio.TaskGroup() as both:
                    both.create_task(_forward(client, server))
                    both.create_task(_forward(server, client))
                orderly = True
            except* ConnectionError:
                pass  # one side was reset or refused; so is now the other
            finally:
                self._serving.discard(task)
                if not orderly:
                    reset_on_close(client)
                    reset_on_close(server)


async def _forward(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes until its end; a Redis connection has no use for only one direction."""
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(source, _RECEIVE_BYTES):
        await loop.sock_sendall(target, piece)
    raise ConnectionAbortedError


@asynccontextmanager
async def open_switch(target_port: int) -> AsyncIterator[Switch]:
    """Stand on a free loopback port before the Redis on `target_port`; all ends with the block."""
    switch = Switch(target_port)
    async with open_listener(switch._serve) as switch.port:
        yield switch
