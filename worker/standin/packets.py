"""In what pieces an answer's bytes leave."""

import asyncio

from aiohttp import web


class Packets:
    """One response's body, in writes of at most `packet_bytes`."""

    def __init__(self, response: web.StreamResponse, packet_bytes: int | None) -> None:
        self._response = response
        self._packet_bytes = packet_bytes

    async def write(self, data: bytes) -> None:
        """Write at once, in as many packets as it takes."""
        if self._packet_bytes is None:
            await self._response.write(data)
            return
        for start in range(0, len(data), self._packet_bytes):
            await self._response.write(data[start : start + self._packet_bytes])
            # aiohttp sets TCP_NODELAY: after a turn of the loop the packet has left.
            await asyncio.sleep(0)
