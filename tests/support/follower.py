"""An HTTP client that follows a generation's events with its hand on the socket.

It reads only when it is asked to, so a follower that is not read from is a truly slow client;
it can cut its connection with a reset; and it knows how a response ended, which the usual
clients hide. The HTTP/1.1 framing is h11's, whose opposite number in uvicorn is httptools.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import h11

from tests.support.sse_reader import Event, SseReader
from tests.support.wait import DEFAULT_TIMEOUT_S, within

_RECEIVE_BYTES = 65_536


class End(Enum):
    """How a response came to its end."""

    CLEAN = "the body was complete: last chunk, or all of Content-Length"
    TORN = "the connection was reset, or closed before the body was complete"
    CUT = "we cut or closed it ourselves"


def reset_on_close(sock: socket.socket) -> None:
    """Make close() send RST instead of FIN (SO_LINGER with zero seconds)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Follower:
    """One request and its response, read event by event.

        async with Follower(base, f"/v1/generations/{id}/events", cursor) as follower:
            events = await follower.read_until("done")
            assert follower.end is None

    Every wait is bounded by `timeout_s` and fails with what had arrived until then.
    """

    def __init__(
        self,
        base_url: str,
        path: str,
        last_event_id: str | None = None,
        via_header: bool = True,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        """`via_header` False puts the cursor into `?last_event_id=`, as a first request must.

        `receive_buffer_bytes` makes the kernel's buffer small, so that a follower that does not
        read holds the server up early.
        """
        target = urlsplit(base_url + path)
        self._host, self._port = target.hostname or "127.0.0.1", target.port or 80
        self._target = (target.path or "/") + (f"?{target.query}" if target.query else "")
        wanted = {"accept": "text/event-stream"}
        wanted.update({name.lower(): value for name, value in (headers or {}).items()})
        if last_event_id and via_header:  # an empty cursor is not sent: WHATWG HTML 9.2.4
            wanted["last-event-id"] = last_event_id
        elif last_event_id:
            separator = "&" if target.query else "?"
            self._target += f"{separator}last_event_id={quote(last_event_id, safe='')}"
        self._request_headers = {"host": target.netloc, **wanted}
        self._method = method
        self._request_body = body
        self._timeout_s = timeout_s
        self._receive_buffer_bytes = receive_buffer_bytes
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_048_576)
        self._sock: socket.socket | None = None
        self._at_eof = False
        self._reader = SseReader(last_event_id or "")
        self._ready: deque[Event] = deque()
        self._first_cursor = last_event_id or ""
        self.status = 0
        """The response's status code."""
        self.headers: dict[str, str] = {}
        """The response's headers, names in lower case."""
        self.body = bytearray()
        """Every body byte received so far, without the chunk framing."""
        self.events: list[Event] = []
        """Every event handed out so far."""
        self.end: End | None = None
        """How the response ended; None while it has not."""

    @property
    def last_event_id(self) -> str:
        """The cursor a browser would send now, having seen the events handed out so far.

        Frames that arrived together with them but were not asked for yet do not count. A frame
        of only an `id:` counts as soon as no event before it is waiting.
        """
        if not self._ready:
            return self._reader.last_event_id
        return self.events[-1].last_event_id if self.events else self._first_cursor

    @property
    def retry_ms(self) -> int | None:
        """The last `retry:` received."""
        return self._reader.retry_ms

    # --- the connection ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Send the request and read status and headers.

        Raises:
            ConnectionError: refused, or torn before the head was complete.
        """
        self._sock = sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self._receive_buffer_bytes is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
            async with within(self._timeout_s, lambda: f"no answer to {self._target}"):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, (self._host, self._port))
                await loop.sock_sendall(sock, self._request_bytes())
                await self._read_head()
        except BaseException:
            sock.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _request_bytes(self) -> bytes:
        headers = dict(self._request_headers)
        if self._request_body:
            headers["content-length"] = str(len(self._request_body))
        # Browsers send the cursor in UTF-8, whatever HTTP says about header values.
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        request = h11.Request(method=self._method, target=self._target, headers=encoded)
        parts = [self._http.send(request)]
        if self._request_body:
            parts.append(self._http.send(h11.Data(data=self._request_body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    async def _read_head(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = {name.decode(): value.decode() for name, value in event.headers}
                return
            if event is h11.NEED_DATA:
                await self._receive()
                if self._at_eof:
                    raise ConnectionResetError(
                        "closed before the head of the response was complete"
                    )

    async def _receive(self) -> None:
        """Pass what the socket has to h11. Raises ConnectionError if it was reset."""
        assert self._sock is not None
        data = await asyncio.get_running_loop().sock_recv(self._sock, _RECEIVE_BYTES)
        self._at_eof = not data
        self._http.receive_data(data)

    def cut(self) -> None:
        """Abort at the socket: the server sees a reset, as when a phone loses its network."""
        if self._sock is not None:
            reset_on_close(self._sock)
        self.close()

    def close(self) -> None:
        """Close in the orderly way (FIN)."""
        if self.end is None:
            self.end = End.CUT
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    # --- the body ---------------------------------------------------------------------------

    async def _read_some_body(self) -> bytes:
        """The next piece of the body; empty once `end` is set."""
        while self.end is None:
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    await self._receive()
            except ConnectionError:
                self.end = End.TORN
            except h11.RemoteProtocolError:
                if not self._at_eof:  # not torn but wrong: a body that breaks HTTP's framing
                    raise
                self.end = End.TORN
            else:
                if isinstance(event, h11.Data):
                    self.body += event.data
                    return bytes(event.data)
                if isinstance(event, h11.EndOfMessage):
                    self.end = End.CLEAN
        return b""

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event. A torn response ends the iteration too: look at `end`."""
        async with within(self._timeout_s, lambda: f"no event after {self._shown()}"):
            while not self._ready:
                piece = await self._read_some_body()
                if not piece:
                    break
                self._ready.extend(self._reader.feed(piece))
        if not self._ready:
            raise StopAsyncIteration
        event = self._ready.popleft()
        self.events.append(event)
        return event

    def _shown(self) -> str:
        tail = ", ".join(f"{event.type}({event.last_event_id})" for event in self.events[-10:])
        return f"{len(self.events)} events [… {tail}], end={self.end}"

    async def read_n(self, n: int) -> list[Event]:
        """Exactly `n` more events; fails if the response ends before."""
        events: list[Event] = []
        while len(events) < n:
            event = await anext(self, None)
            assert event is not None, f"wanted {n} more events, got {len(events)}: {self._shown()}"
            events.append(event)
        return events

    async def read_until(self, *types: str) -> list[Event]:
        """Events up to and including the first of one of `types`; fails at an earlier end."""
        events = []
        async for event in self:
            events.append(event)
            if event.type in types:
                return events
        raise AssertionError(f"ended without any of {types}: {self._shown()}")

    async def read_to_end(self) -> list[Event]:
        """All remaining events; how it ended is in `end`."""
        return [event async for event in self]

    async def read_body(self) -> bytes:
        """The whole body of a response that is not a stream of events (an error, JSON)."""
        async with within(self._timeout_s, lambda: f"no end of the body of {self._target}"):
            while await self._read_some_body():
                pass
        return bytes(self.body)
