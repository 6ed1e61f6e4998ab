"""The body of one event stream, written straight to its connection.

A follower that waits costs no task of its own beside its request's, no queue and no timer: whoever
has frames for it writes them, and it is woken only for what needs thought.

Source: uvicorn writes the head of a response at once, with `Transfer-Encoding: chunked` where no
length is given; every chunk is `<size in hex> CRLF <bytes> CRLF` (RFC 9112, section 7.1).
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol


class Connection(Protocol):
    """What a server's connection offers to who writes on it: see `api/server.py`."""

    on_change: Callable[[], None] | None
    """Called when the client is lost, and when there is room again."""

    @property
    def is_lost(self) -> bool:
        """Whether the client is gone."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the client has not taken what was written before."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes of the body as they are, before the event loop's next turn."""
        ...


def encode_chunk(frames: bytes) -> bytes:
    """Return `frames`, which are not empty, as they stand in a chunked body."""
    return b"%x\r\n%b\r\n" % (len(frames), frames)


class Wire:
    """The way of one response to its client."""

    __slots__ = ("_attention", "_connection", "spoke_at")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._attention: asyncio.Future[None] | None = None
        self.spoke_at = 0.0
        """When something was last written, by `monotonic()`."""
        connection.on_change = self.wake

    @property
    def is_lost(self) -> bool:
        """Whether nobody is there any more."""
        return self._connection.is_lost

    @property
    def is_full(self) -> bool:
        """Whether the client must read before more is written."""
        return self._connection.is_full

    def write(self, chunk: bytes) -> None:
        """Write one whole chunk."""
        self._connection.write(chunk)
        # Not the event loop's clock: to ask which loop runs is a system call (until Python 3.12).
        self.spoke_at = monotonic()

    def wake(self) -> None:
        """Have who waits look again."""
        if self._attention is not None and not self._attention.done():
            self._attention.set_result(None)

    async def wait(self) -> None:
        """Return at the next `wake`; nothing that happened before the call counts."""
        self._attention = asyncio.get_running_loop().create_future()
        try:
            await self._attention
        finally:
            self._attention = None

    def close(self) -> None:
        """Hear of the connection no more."""
        self._connection.on_change = None
