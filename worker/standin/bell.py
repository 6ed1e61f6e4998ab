"""News of a change, for whoever waits for one."""

import asyncio


class Bell:
    """Wakes all who wait. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def watched(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def ring(self) -> None:
        """Something changed."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Return at the next ring. What is to be waited for is looked at before, without await."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future
