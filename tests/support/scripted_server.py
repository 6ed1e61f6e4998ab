"""An HTTP server that says, byte for byte, what a test tells it to: for the tools' own tests.

Each connection takes the next `Answer`; the last one serves all that follow.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

from tests.support.follower import reset_on_close
from tests.support.listener import open_listener

_RECEIVE_BYTES = 65_536


class Ending(Enum):
    """What the server does once it has sent its bytes."""

    CLOSE = "FIN"
    RESET = "RST"
    STAY = "stay silent until the client has gone"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one connection is sent after its request's head was read."""

    raw: bytes
    ending: Ending = Ending.STAY


def chunked(*chunks: bytes, complete: bool = True, status: str = "200 OK") -> bytes:
    """A response in chunked transfer coding; `complete` False leaves the last chunk out."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head.encode() + b"\r\n" + body + (b"0\r\n\r\n" if complete else b"")


@dataclass(slots=True)
class ScriptedServer:
    """What it was asked, and how its clients left."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    """The heads of the requests, in the order of arrival."""
    hung_up: list[str] = field(default_factory=list)
    """For each connection that stayed: "FIN" or "RST"."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


async def _how_it_left(sock: socket.socket) -> str:
    try:
        while await asyncio.get_running_loop().sock_recv(sock, _RECEIVE_BYTES):
            pass
    except ConnectionResetError:
        return "RST"
    return "FIN"


@asynccontextmanager
async def open_scripted_server(answers: Sequence[Answer]) -> AsyncIterator[ScriptedServer]:
    """Serve the answers on a free loopback port; closes every connection at exit."""
    loop = asyncio.get_running_loop()
    waiting = list(answers)

    async def serve(sock: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = await loop.sock_recv(sock, _RECEIVE_BYTES)
            if not received:
                return
            head += received
        server.requests.append(head)
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        await loop.sock_sendall(sock, answer.raw)
        if answer.ending is Ending.RESET:
            reset_on_close(sock)
        elif answer.ending is Ending.STAY:
            server.hung_up.append(await _how_it_left(sock))

    server = ScriptedServer()
    async with open_listener(serve) as server.port:
        yield server
