"""How an answer's bytes leave: when each is due, in what pieces, and counted."""

import asyncio
from collections.abc import Iterable

from aiohttp import web

from worker.standin.ledger import Entry

# Without a pace nothing else makes a turn for other answers, and for the news of a closed client.
_SENDS_PER_TURN = 16


class Delivery:
    """One response on its way.

    The n-th token is due n intervals after the first, whatever delayed those before: late ones
    follow at once, and a pace holds over any length.
    """

    def __init__(
        self,
        response: web.StreamResponse,
        entry: Entry,
        *,
        tokens_per_second: float,
        packet_bytes: int | None,
    ) -> None:
        self._response = response
        self._entry = entry
        self._interval = 1 / tokens_per_second if tokens_per_second else 0.0
        self._packet_bytes = packet_bytes
        self._clock = asyncio.get_running_loop().time
        self._first_due: float | None = None
        self._sent = 0

    async def write(self, data: bytes) -> None:
        """Write at once, in as many packets as the directive asks for."""
        if self._packet_bytes is None:
            await self._response.write(data)
            return
        for start in range(0, len(data), self._packet_bytes):
            await self._response.write(data[start : start + self._packet_bytes])
            # aiohttp sets TCP_NODELAY: after a turn of the loop the packet has left.
            await asyncio.sleep(0)

    async def send(self, frames: Iterable[bytes]) -> None:
        """Write each frame when it is due, one token each."""
        for frame in frames:
            await self._wait_due()
            await self.write(frame)
            self._entry.token_sent()

    async def wait_all_due(self, count: int) -> None:
        """Return when the last of count tokens is due."""
        if count and self._interval:
            await asyncio.sleep((count - 1) * self._interval)

    async def _wait_due(self) -> None:
        if self._first_due is None:
            self._first_due = self._clock()
        wait = self._first_due + self._sent * self._interval - self._clock()
        self._sent += 1
        if wait > 0:
            await asyncio.sleep(wait)
        elif self._sent % _SENDS_PER_TURN == 0:
            await asyncio.sleep(0)
