"""uvicorn, as followers need it: who stops reading is cut, and a drain is told to all others.

Source: uvicorn closes a connection in the orderly way only, which waits until everything written
has left; of a client that reads nothing that is never. Its lifespan ends after its connections,
and after its own end it raises the signal that asked for it once more. Of each handle that listens,
the libuv of uvloop 0.23 takes one connection in a turn of the event loop.
"""

import asyncio
import socket
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.outbox import Outbox, Outgoing
from api.settings import ApiSettings

DRAIN_GRACE: Final = timedelta(seconds=1)
"""A draining process cuts clients that did not take its farewell within this."""


ACCEPTED: Final = 8
"""Connections that are taken in one turn of the event loop: in a storm, what they need alike is
done once for all of them.
"""

BACKLOG: Final = 8_192
"""Connections that may wait to be taken: a storm of them is not told to try again in a second."""

CONNECTION: Final = "rejoin.connection"
"""The name in a scope's `extensions` under which a route finds the connection it answers on."""


class ImpatientProtocol(HttpToolsProtocol):
    """One connection, aborted when its client takes nothing of what waits for it for too long."""

    send_timeout: timedelta
    outbox: Outbox
    """Of the event loop it runs in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self.on_change: Callable[[], None] | None = None
        """Called when the client is lost, and when there is room again."""

    @property
    def is_lost(self) -> bool:
        """Whether the client is gone."""
        return bool(self.transport.is_closing())

    @property
    def is_full(self) -> bool:
        """Whether the client has not taken what was written before."""
        return self.flow.write_paused

    def write(self, data: bytes) -> None:
        """Send bytes of a body as they are, past uvicorn's own framing."""
        self.transport.write(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]  # ours

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(Outgoing(transport, self.outbox))
        # Told of every byte that the socket does not take; no frame is made while one is left.
        transport.set_write_buffer_limits(high=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        self._tell()
        # All ways back to this connection end here: nothing of it waits for the collector.
        self.parser = self.cycle = self.scope = None  # type: ignore[assignment]  # used no more

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_timer()

    def resume_writing(self) -> None:
        self._stop_timer()
        super().resume_writing()
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def cut_if_stuck(self) -> None:
        """Abort, where something waits for the client to read."""
        if self.flow.write_paused:
            self.transport.abort()

    def _start_timer(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        delay = self.send_timeout.total_seconds()
        self._timer = self.loop.call_later(delay, self._check_progress, unsent)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_progress(self, unsent: int) -> None:
        """A slow client may take its time, as long as it takes something."""
        if self.transport.get_write_buffer_size() < unsent:
            self._start_timer()
        else:
            self.transport.abort()


class Server(uvicorn.Server):
    """One API process' uvicorn."""

    def __init__(self, app: Any, settings: ApiSettings) -> None:
        """`app`: ASGI, with `state.held` once its lifespan began."""

        class Protocol(ImpatientProtocol):
            send_timeout = settings.send_timeout
            outbox = Outbox()

        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=Protocol,
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=round(settings.drain.total_seconds()),
            )
        )
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen on these sockets, with several handles of each."""
        self._handles = [one.dup() for one in sockets or () for _ in range(ACCEPTED)]
        await super().startup(self._handles)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs between two bytecodes of the loop's thread: only asks the loop for the drain."""
        if (held := getattr(self._app.state, "held", None)) is not None:
            held.hub.drain()
        super().handle_exit(sig, frame)
        # Not to be raised again: who was told to end, and did so in order, has not failed.
        self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order; a client that reads nothing holds nothing up."""
        grace = DRAIN_GRACE.total_seconds()
        cut = asyncio.get_running_loop().call_later(grace, self._cut_stuck)
        await super().shutdown([*self._handles, *(sockets or ())])
        cut.cancel()

    def _cut_stuck(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, ImpatientProtocol):
                connection.cut_if_stuck()
