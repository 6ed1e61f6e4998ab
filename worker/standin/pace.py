"""When the tokens of an answer are due."""

import asyncio

# Without a pace nothing else makes a turn for other answers, and for the news of a closed client.
_TOKENS_PER_TURN = 16


class Pace:
    """The n-th token is due n intervals after the first, whatever delayed those before.

    Late ones follow at once, and a pace holds over any length.
    """

    def __init__(self, tokens_per_second: float) -> None:
        self._interval = 1 / tokens_per_second if tokens_per_second else 0.0
        self._clock = asyncio.get_running_loop().time
        self._first_due: float | None = None
        self._passed = 0

    async def wait_due(self) -> None:
        """Return when the next token is due."""
        if self._first_due is None:
            self._first_due = self._clock()
        wait = self._first_due + self._passed * self._interval - self._clock()
        self._passed += 1
        if wait > 0:
            await asyncio.sleep(wait)
        elif self._passed % _TOKENS_PER_TURN == 0:
            await asyncio.sleep(0)

    async def wait_all_due(self, count: int) -> None:
        """Return when the last of count tokens, none of which was waited for, is due."""
        if count and self._interval:
            await asyncio.sleep((count - 1) * self._interval)
