"""What was said before: reads of a log that all who need them at the same moment share.

    who asks ──► the next flight ──► one round trip ──► everybody in it has an answer
                 (gathers while others are under way)

An answer is never older than its question.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Final

from api.followed import FollowedLog
from shared.errors import StoreUnavailable
from shared.event_log import PAGE, EventLog, LogView, Question
from shared.events import Entry
from shared.ids import EntryId, GenerationId

AT_ONCE: Final = 16
"""Questions of one flight: together they hold Redis up for some 2 ms at most."""

PATIENCE_S: Final = 10.0
"""A storm of readers waits for its turn; after this they had better come back."""


class _Flight:
    """Questions that go out together."""

    def __init__(self) -> None:
        self.asked: dict[GenerationId, Question] = {}
        self.has_landed = asyncio.Event()
        self._views: dict[GenerationId, LogView | Exception] = {}
        self._error: Exception | None = None

    def ask(self, question: Question) -> None:
        """Add a question. Two of one log become one that answers both."""
        other = self.asked.get(question.generation, question)
        self.asked[question.generation] = Question(
            question.generation,
            min(question.after, other.after),
            max(question.limit, other.limit),
        )

    async def fly(self, log: EventLog) -> None:
        """Get the answers."""
        try:
            views = await log.view_all(self.asked.values())
            self._views = dict(zip(self.asked, views, strict=True))
        except Exception as error:  # noqa: BLE001 - raised by each who asked
            self._error = error
        finally:
            self.has_landed.set()

    def answer(self, question: Question) -> LogView:
        """Return what is known. Raises: what went wrong."""
        view = self._error or self._views.get(question.generation)
        if view is None:
            raise StoreUnavailable("ended before it was asked")
        if isinstance(view, Exception):
            raise view
        if self.asked[question.generation].after == question.after:
            return view
        start = bisect_right(view.entries, question.after, key=attrgetter("id"))
        return LogView(view.record, view.last_id, view.entries[start:])


class History:
    """The past of all logs, read on a few connections."""

    def __init__(self, log: EventLog, lanes: int = 1) -> None:
        """`lanes`: round trips under way at once."""
        self._log = log
        self._lanes = asyncio.Semaphore(lanes)
        self._next: _Flight | None = None
        self._flights: set[asyncio.Task[None]] = set()

    async def view(self, generation: GenerationId, after: EntryId, count: int = PAGE) -> LogView:
        """Return the record, the log's last id and the first entries beyond `after`.

        At most `count` of them; fewer, or none, where somebody else asked for an earlier place.
        Raises: StoreUnavailable.
        """
        question = Question(generation, after, count)
        flight = self._next
        if flight is None or len(flight.asked) >= AT_ONCE:
            flight = self._next = _Flight()
            task = asyncio.create_task(self._start(flight), name="history")
            self._flights.add(task)
            task.add_done_callback(self._flights.discard)
        flight.ask(question)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await flight.has_landed.wait()
        except TimeoutError:
            raise StoreUnavailable("too many ask for history") from None
        return flight.answer(question)

    async def _start(self, flight: _Flight) -> None:
        async with self._lanes:
            if self._next is flight:
                self._next = None
            await flight.fly(self._log)

    async def read(self, generation: GenerationId, after: EntryId) -> list[Entry]:
        """Return the next entries beyond `after`. Raises: StoreUnavailable."""
        async with self._lane():
            return await self._log.read(generation, after)

    async def reach_back(self, followed: FollowedLog) -> None:
        """Have a log's window hold as much of what came before as it may; once for all followers.

        Raises: StoreUnavailable.
        """
        window = followed.window
        async with followed.reaching_back:
            while not window.has_reached_back:
                async with self._lane():
                    page = await self._log.read_back(window.generation, window.floor)
                has_room = window.add_before(page)
                window.has_reached_back = len(page) < PAGE or not has_room

    @asynccontextmanager
    async def _lane(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._lanes.acquire()
        except TimeoutError:
            raise StoreUnavailable("too many ask for history") from None
        try:
            yield
        finally:
            self._lanes.release()
