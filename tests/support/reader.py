"""A client that follows one generation as `EventSource` does: it comes back until it is told to go.

It ends when it has the closing event, or on any answer but 200. Leaving and coming back by hand,
it goes on from the id it had.
"""

import asyncio

from tests.support.api_client import ApiClient
from tests.support.fold import CLOSING_TYPES
from tests.support.sse_reader import Event
from tests.support.wait import wait_until

_RECONNECT_S = 0.05

# Longer than any silence that is meant: whether something is too slow is for the test to say.
_PATIENCE_S = 60.0


class Reader:
    """One client's view of one generation, over all its connections."""

    def __init__(self, api: ApiClient, generation: str) -> None:
        self._api = api
        self.generation = generation
        self.events: list[Event] = []
        """All it was ever given, wire signals included."""
        self.statuses: list[int] = []
        """The status of every answer it had, in order."""
        self.cursor = ""
        self._answers_before = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it has the closing event."""
        return bool(self.events) and self.events[-1].type in CLOSING_TYPES

    @property
    def has_ended(self) -> bool:
        """Whether it follows no more because there is nothing left to follow."""
        return self._task is not None and self._task.done() and not self._task.cancelled()

    def types(self) -> list[str]:
        """The types of all it was given."""
        return [event.type for event in self.events]

    def come(self) -> None:
        """Follow from where it is, from now on."""
        self._answers_before = len(self.statuses)
        self._task = asyncio.create_task(self._follow())

    async def leave(self) -> None:
        """Cut the connection and stay away. Raises: whatever ended it before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if not self._task.cancelled():
                self._task.result()

    async def wait_answered(self) -> None:
        """Wait until it has the status of its first answer since it came."""
        await wait_until(
            lambda: len(self.statuses) > self._answers_before, f"an answer about {self.generation}"
        )

    async def wait_events(self, count: int) -> None:
        """Wait until it was given that many events."""
        await wait_until(lambda: len(self.events) >= count, f"{count} events of {self.generation}")

    async def _follow(self) -> None:
        while True:
            try:
                async with self._api.follow(
                    self.generation, self.cursor, timeout_s=_PATIENCE_S
                ) as follower:
                    self.statuses.append(follower.status)
                    if follower.status != 200:
                        return
                    async for event in follower:
                        self.events.append(event)
                        self.cursor = event.last_event_id
                        if event.type in CLOSING_TYPES:
                            return
            except ConnectionError:
                pass
            await _stay_away()


async def _stay_away() -> None:
    loop = asyncio.get_running_loop()
    back_at = loop.time() + _RECONNECT_S
    await wait_until(lambda: loop.time() >= back_at, "the client to come back")
