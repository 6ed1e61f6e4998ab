"""What was said before: reads of a log that all who need them at the same moment share.

    who asks ──► the next flight ──► one round trip ──► everybody in it has an answer
                 (gathers while others are under way)

An answer is never older than its question.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from api.followed import FollowedLog
from shared.errors import StoreUnavailable
from shared.event_log import PAGE, EventLog, LogView, Question
from shared.events import Entry
from shared.ids import EntryId, GenerationId

T = TypeVar("T")

AT_ONCE: Final = 16
"""Questions of one flight: together they hold Redis up for some 2 ms at most."""

PATIENCE_S: Final = 10.0
"""A storm of readers waits for its turn; after this they had better come back."""


class _Flight:
    """Questions that go out together."""

    def __init__(self) -> None:
        self.asked: dict[GenerationId, Question] = {}
        self.wanted: set[GenerationId] = set()
        """Logs of which somebody asked for entries."""
        self.has_landed = asyncio.Event()
        self._views: dict[GenerationId, LogView | Exception] = {}
        self._error: Exception | None = None

    def ask(self, question: Question) -> None:
        """Add a question. Two of one log become one without entries, which its window will have."""
        if question.limit:
            self.wanted.add(question.generation)
        if question.generation in self.asked:
            question = Question(question.generation, limit=0)
        self.asked[question.generation] = question

    async def fly(self, log: EventLog) -> None:
        """Get the answers."""
        views = await log.view_all(self.asked.values())
        self._views = dict(zip(self.asked, views, strict=True))
        self.has_landed.set()

    def fail(self, error: Exception) -> None:
        """Let everybody know that there is no answer."""
        self._error = error
        self.has_landed.set()

    def answer(self, generation: GenerationId) -> LogView:
        """Return what is known. Raises: what went wrong."""
        view = self._error or self._views.get(generation)
        if view is None:
            raise StoreUnavailable("ended before it was asked")
        if isinstance(view, Exception):
            raise view
        return view


class History:
    """The past of all logs, read on a few connections."""

    def __init__(self, log: EventLog, lanes: int = 1) -> None:
        """`lanes`: round trips under way at once."""
        self._log = log
        self._lanes = asyncio.Semaphore(lanes)
        self._next: _Flight | None = None
        self._wanted: set[GenerationId] = set()
        """Whose entries are on their way to somebody."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """The event loop alone would let go of them."""

    async def look(self, generation: GenerationId, after: EntryId, limit: int = PAGE) -> LogView:
        """Return the record, the log's last id and up to `limit` entries beyond `after`.

        None of them where others ask for the same log, or are being answered: its window will have
        them. Raises: StoreUnavailable.
        """
        question = Question(generation, after, 0 if generation in self._wanted else limit)
        flight = self._next
        if flight is None or len(flight.asked) >= AT_ONCE:
            flight = self._next = _Flight()
            self._begin(self._start(flight))
        flight.ask(question)
        self._wanted |= flight.wanted
        await flight.has_landed.wait()
        return flight.answer(generation)

    async def _start(self, flight: _Flight) -> None:
        try:
            async with self._lane():
                self._close(flight)
                await flight.fly(self._log)
        except Exception as error:  # noqa: BLE001 - raised by each who asked
            self._close(flight)
            flight.fail(error)
        finally:
            self._wanted -= flight.wanted

    def _close(self, flight: _Flight) -> None:
        """Take nobody in any more."""
        if self._next is flight:
            self._next = None

    async def read(self, generation: GenerationId, after: EntryId, until: EntryId) -> list[Entry]:
        """Return the next entries beyond `after`, to `until` at most. Raises: StoreUnavailable."""
        return await self._apart(lambda: self._log.read(generation, after, until))

    async def reach_back(self, followed: FollowedLog) -> None:
        """Have a log's window hold as much of what came before as it may; once for all followers.

        Raises: StoreUnavailable.
        """
        window = followed.window
        async with followed.reaching_back:
            while not window.has_reached_back:
                page = await self._apart(
                    lambda: self._log.read_back(window.generation, window.floor)
                )
                has_room = window.add_before(page)
                found = sum(len(run.data) for run in page)
                window.has_reached_back = found < PAGE or not has_room

    async def _apart(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read in a task of its own, which a reader that leaves does not take along.

        What is cancelled in the middle of an answer costs its connection.
        """

        async def read_in_lane() -> T:
            async with self._lane():
                return await read()

        return await asyncio.shield(self._begin(read_in_lane()))

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work, name="history")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @asynccontextmanager
    async def _lane(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_S), self._lanes:
                yield
        except TimeoutError:
            raise StoreUnavailable("too many ask for history") from None
