"""So many in a turn of the event loop: a storm of them leaves room for all other work."""

import asyncio
from collections import deque


class Turnstile:
    """Lets through a bounded number in each turn, in order of arrival."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._room = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Return at once, or in a later turn."""
        if self._room == self._at_once:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        if self._room > 0 and not self._waiting:
            self._room -= 1
            return
        entry = asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        await entry

    def _begin_turn(self) -> None:
        self._room = self._at_once
        while self._waiting and self._room > 0:
            entry = self._waiting.popleft()
            if not entry.done():
                entry.set_result(None)
                self._room -= 1
        if self._room < self._at_once:
            asyncio.get_running_loop().call_soon(self._begin_turn)
