"""What one running stand-in holds: its settings, its ledger, and the answers on their way."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from worker.standin.entry import Connection, Entry, Outcome
from worker.standin.ledger import Ledger
from worker.standin.settings import StandinSettings


class Serving:
    """The state of one application."""

    def __init__(self, settings: StandinSettings) -> None:
        self.settings = settings
        self.ledger = Ledger()
        self._transports: set[asyncio.Transport] = set()
        self._stopping = False

    @contextmanager
    def answering(self, request: web.Request, answered: Entry | Connection) -> Iterator[None]:
        """Whatever leaves an answer unended is the client's close, or our own stop.

        Source: with `handler_cancellation` aiohttp cancels a handler as its connection goes, even
        while it waits; a write may notice first and raises ConnectionError then.
        """
        transport = request.transport
        if transport is not None:
            self._transports.add(transport)
        try:
            yield
        except ConnectionError:
            pass
        finally:
            if transport is not None:
                self._transports.discard(transport)
            answered.end(Outcome.STOPPED if self._stopping else Outcome.CLIENT_CLOSED)

    def stop(self) -> None:
        """Cut every answer on its way, so that none holds up the end of the process."""
        self._stopping = True
        for transport in self._transports.copy():
            transport.abort()


SERVING = web.AppKey("SERVING", Serving)
