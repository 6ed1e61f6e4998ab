"""Follow one log from a cursor: history, live, reset, end, drain.

History and live are reads by id of the same log, so nothing can fall between them: a follower is
a cursor; below the window it reads Redis, in the window it reads memory, and when it has
everything it waits. At every seam the first entry must stand on the cursor, else the reader is
told to forget and hears everything anew: never a silent hole.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.followed import Batch, FollowedLog
from api.history import History
from api.hub import Hub
from api.sse import HEARTBEAT, Dialect, encode_history, encode_reconnect
from api.window import Piece
from shared.connections import reading_record
from shared.errors import GenerationUnknown, RecordUnreadable, StoreUnavailable
from shared.event_log import LogView
from shared.events import CLOSING, Entry, predecessor
from shared.generation import State
from shared.generation_store import GenerationStore
from shared.ids import BEGINNING, EntryId, GenerationId

STORE_RETRY: Final = timedelta(milliseconds=500)
"""Pause of a follower whose history cannot be read because Redis is away."""

REPAIR_LOOK: Final = timedelta(milliseconds=250)
"""How often a reader that is ahead of its log looks whether it was repaired."""

_RECONNECT_SPREAD_MS: Final = (200, 2000)
"""A draining server's followers come back spread over this, not all at once."""


@dataclass(frozen=True, slots=True)
class TailSettings:
    """How patient a tail is."""

    heartbeat: timedelta
    repair_wait: timedelta


class CursorLost(Exception):
    """What comes next in the log does not stand on the cursor."""


class Tail:
    """One reader of one log."""

    __slots__ = (
        "_alarms_seen",
        "_cursor",
        "_generation",
        "_has_begun",
        "_has_forgotten",
        "_history",
        "_hub",
        "_is_ended",
        "_settings",
        "_store",
        "_view",
        "dialect",
    )

    def __init__(
        self,
        generation: GenerationId,
        dialect: Dialect,
        *,
        hub: Hub,
        history: History,
        store: GenerationStore,
        settings: TailSettings,
    ) -> None:
        self._generation = generation
        self.dialect = dialect
        """How its reader is told."""
        self._hub = hub
        self._history = history
        self._store = store
        self._settings = settings
        self._cursor = BEGINNING
        self._view: LogView | None = None
        self._has_begun = False
        self._is_ended = False
        self._has_forgotten = False
        self._alarms_seen = 0

    @property
    def is_ended(self) -> bool:
        """Whether its reader has been told all there is to tell here."""
        return self._is_ended

    def begin(self, view: LogView, cursor: EntryId) -> tuple[bytes, FollowedLog]:
        """Start behind `cursor`; `view` was read there a moment ago.

        Returns what precedes the first frame, and the log, which must be left in the end.
        """
        self._cursor, self._view = cursor, view
        followed = self._hub.join(self._generation, view.last_id)
        self._alarms_seen = followed.alarms
        return self.dialect.encode_opening(self._generation, cursor), followed

    def leave(self, followed: FollowedLog) -> None:
        """End what `begin` began."""
        self._hub.leave(followed)

    def accept(self, batch: Batch) -> bool:
        """Move over a batch if it comes next; False if it does not."""
        if batch.stands_on != self._cursor:
            return False
        self._cursor, self._has_forgotten, self._is_ended = batch.last_id, False, batch.ends
        return True

    async def frames(self, view: LogView, cursor: EntryId) -> AsyncIterator[bytes]:
        """Yield whole frames beyond `cursor`, live, until the closing event or the drain.

        `view` was read at `cursor` a moment ago.
        """
        opening, followed = self.begin(view, cursor)
        try:
            yield opening
            loop = asyncio.get_running_loop()
            spoke_at = loop.time()
            while not self._is_ended:
                changed = followed.changed
                try:
                    piece = await self.find_next(followed)
                    if piece is None:
                        is_news = await wait_change(changed, self._settings.heartbeat)
                        piece = b"" if is_news else HEARTBEAT
                except CursorLost:
                    piece = await self.lose_cursor(followed)
                except StoreUnavailable:
                    await wait_change(followed.changed, STORE_RETRY)
                    piece = b""
                if not piece and loop.time() - spoke_at >= self._settings.heartbeat.total_seconds():
                    piece = HEARTBEAT
                if piece:
                    yield piece
                    spoke_at = loop.time()
        finally:
            self._hub.leave(followed)

    async def find_next(self, followed: FollowedLog) -> bytes | None:
        """Return the next frames, empty if only something was learnt; None if there is no news.

        Raises: CursorLost, StoreUnavailable.
        """
        try:
            return await self._find_next(followed)
        except RecordUnreadable:
            # Whoever comes back is told so.
            return self._end()

    async def _find_next(self, followed: FollowedLog) -> bytes | None:
        if self._hub.draining.is_set():
            self._is_ended = True
            pause = timedelta(milliseconds=random.randint(*_RECONNECT_SPREAD_MS))
            return encode_reconnect(pause)
        if not self._has_begun:
            return await self._begin(followed)
        if not followed.window.reaches(self._cursor):
            return await self._read_history(followed)
        with reading_record():
            piece = followed.window.read(self._cursor, self.dialect)
        if piece is not None:
            self._advance(followed, piece)
            return piece.frames
        if followed.is_gone or followed.is_unreadable:
            return self._end()
        if followed.is_overdue or followed.alarms != self._alarms_seen:
            await self._look(followed)
            return b""
        return None

    def _end(self) -> bytes:
        self._is_ended = True
        return b""

    async def _begin(self, followed: FollowedLog) -> bytes:
        """Return the history that one read brings, from where this reader has to start."""
        view, self._view = self._view, None
        if view is None:
            view = await self._look_again(followed)
        reset_at = view.record.reset_at if view.record else BEGINNING
        if self._cursor < reset_at:
            # Whatever the reader has, the reset takes it back: nothing before it matters.
            self._cursor = EntryId(reset_at.epoch, reset_at.seq - 1)
        elif self._cursor > view.last_id:
            await self._wait_repair(followed)
        elif view.entries:
            self._has_begun = True
            return self._tell(followed, view.entries)
        self._has_begun = True
        return b""

    async def _read_history(self, followed: FollowedLog) -> bytes:
        """Return one page that the window no longer has, or never had; empty if it has it now."""
        if followed.is_shared and not followed.window.has_reached_back:
            await self._history.reach_back(followed)
            return b""
        floor = followed.window.floor
        entries = await self._history.read(self._generation, self._cursor, floor)
        if not entries:
            # Below the window's floor, yet nothing beyond the cursor: the log lost its end, or is
            # gone. The reader comes back with its cursor, and is told which.
            return self._end()
        return self._tell(followed, entries)

    async def _look(self, followed: FollowedLog) -> None:
        """Settle what a sweep saw: a deadline that passed, or a log that became shorter.

        Raises: CursorLost, StoreUnavailable.
        """
        alarms = followed.alarms
        try:
            if followed.is_overdue:
                # One of its followers does it for all; where that fails, the next sweep sees it.
                followed.is_overdue = False
                await self._store.expire(self._generation)
        except GenerationUnknown:
            self._is_ended = True
            return
        await self._wait_repair(followed)
        self._alarms_seen = alarms

    async def _wait_repair(self, followed: FollowedLog) -> None:
        """Return once the log reaches the cursor; at once where it never was shorter.

        Only the owner of the cursor's own epoch can append lost entries again.
        Raises: CursorLost, StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.repair_wait.total_seconds()
        while True:
            view = await self._look_again(followed)
            if view.last_id >= self._cursor:
                # Read to its end before the end was lost, and now it is there again.
                is_closed = view.record is not None and view.record.state.is_closed
                self._is_ended = is_closed and view.last_id == self._cursor
                return
            record = view.record
            if record is None or record.state is not State.RUNNING:
                raise CursorLost
            if record.epoch != self._cursor.epoch or loop.time() >= deadline:
                raise CursorLost
            await wait_change(followed.changed, REPAIR_LOOK)

    async def _look_again(self, followed: FollowedLog) -> LogView:
        seen = followed.window.last_id
        view = await self._history.look(self._generation, self._cursor)
        followed.compare(seen, view.last_id)
        return view

    def _tell(self, followed: FollowedLog, entries: Sequence[Entry]) -> bytes:
        """Return what was read from Redis, framed. Raises: CursorLost."""
        with reading_record():
            frames = encode_history(self.dialect, self._generation, entries)
            ends = entries[-1].type in CLOSING
            piece = Piece(predecessor(entries[0]), entries[-1].id, ends, frames)
        self._advance(followed, piece)
        return frames

    def _advance(self, followed: FollowedLog, piece: Piece) -> None:
        """Move the cursor over a piece. Raises: CursorLost if it does not stand on it."""
        if piece.stands_on != self._cursor:
            raise CursorLost
        self._cursor, self._has_forgotten, self._is_ended = piece.last_id, False, piece.ends
        followed.furthest = max(followed.furthest, self._cursor)

    async def lose_cursor(self, followed: FollowedLog) -> bytes:
        """Tell the reader, and begin anew where its surface can say so."""
        self._view, self._has_begun = None, False
        if self._has_forgotten:
            # Lost again before anything was said: the log itself is being rolled back and forth.
            self._cursor = BEGINNING
            await wait_change(followed.changed, REPAIR_LOOK)
            return b""
        frame, history_follows = self.dialect.encode_loss(self._generation)
        self._is_ended = not history_follows
        self._cursor, self._has_forgotten = BEGINNING, True
        return frame


async def wait_change(changed: asyncio.Event, longest: timedelta) -> bool:
    """Wait for a change; False if there was none."""
    try:
        async with asyncio.timeout(longest.total_seconds()):
            await changed.wait()
    except TimeoutError:
        return False
    return True
