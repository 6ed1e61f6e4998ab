"""How an answer's bytes leave: each when it is due, and counted."""

from collections.abc import Iterable

from worker.standin.entry import Entry
from worker.standin.pace import Pace
from worker.standin.packets import Packets


class Delivery:
    """One response on its way."""

    def __init__(self, packets: Packets, pace: Pace, entry: Entry) -> None:
        self._packets = packets
        self._pace = pace
        self._entry = entry

    async def write(self, data: bytes) -> None:
        """Write at once."""
        await self._packets.write(data)

    async def send(self, frames: Iterable[bytes]) -> None:
        """Write each frame when it is due, one token each."""
        for frame in frames:
            await self._pace.wait_due()
            await self._packets.write(frame)
            self._entry.token_sent()

    async def wait_all_due(self, count: int) -> None:
        """Return when the last of count tokens is due."""
        await self._pace.wait_all_due(count)
