"""Follow one log from a cursor: history, live, reset, end, drain.

History and live are reads by id of the same log, so nothing can fall between them: a follower is
a cursor; below the window it reads Redis, in the window it reads memory, and when it has
everything it waits. At every seam the first entry must stand on the cursor, else the reader is
told to forget and hears everything anew: never a silent hole.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.followed import FollowedLog
from api.hub import Hub
from api.sse import HEARTBEAT, Dialect, encode_history, encode_reconnect
from shared.errors import GenerationUnknown, StoreUnavailable
from shared.event_log import EventLog, LogView
from shared.events import CLOSING, Entry, EventType, decode_data
from shared.generation import State
from shared.generation_store import GenerationStore
from shared.ids import BEGINNING, EntryId, GenerationId

STORE_RETRY: Final = timedelta(milliseconds=500)
"""Pause of a follower whose history cannot be read because Redis is away."""

_RECONNECT_SPREAD_MS: Final = (200, 2000)
"""A draining server's followers come back spread over this, not all at once."""


@dataclass(frozen=True, slots=True)
class TailSettings:
    """How patient a tail is."""

    heartbeat: timedelta
    repair_wait: timedelta


class _CursorLost(Exception):
    """What comes next in the log does not stand on the cursor."""


class Tail:
    """One reader of one log."""

    def __init__(
        self,
        generation: GenerationId,
        dialect: Dialect,
        *,
        hub: Hub,
        event_log: EventLog,
        store: GenerationStore,
        settings: TailSettings,
    ) -> None:
        self._generation = generation
        self._dialect = dialect
        self._hub = hub
        self._log = event_log
        self._store = store
        self._settings = settings
        self._cursor = BEGINNING
        self._is_closed = False

    async def frames(self, view: LogView, cursor: EntryId) -> AsyncIterator[bytes]:
        """Yield whole frames beyond `cursor`, live, until the closing event or the drain.

        `view` was read at `cursor` a moment ago; its record may be gone meanwhile.
        """
        self._cursor = cursor
        yield self._dialect.encode_opening(self._generation, cursor)
        async with self._hub.follow(self._generation, view.last_id) as followed:
            first: LogView | None = view
            while True:
                try:
                    async for piece in self._follow(followed, first):
                        yield piece
                except _CursorLost:
                    frame, history_follows = self._dialect.encode_loss(self._generation)
                    yield frame
                    if not history_follows:
                        return
                    self._cursor = BEGINNING
                    first = None
                else:
                    return

    async def _follow(self, followed: FollowedLog, first: LogView | None) -> AsyncIterator[bytes]:
        """Yield frames until the end. Raises: _CursorLost."""
        async for piece in self._begin(followed, first):
            yield piece
        while not self._is_closed:
            changed = followed.changed
            entries = followed.window.after(self._cursor)
            if entries is None:
                async for piece in self._read_history(followed):
                    yield piece
            elif entries:
                self._advance(entries)
                yield followed.window.frames(self._dialect, entries)
            elif followed.is_gone:
                return
            elif self._hub.draining.is_set():
                yield encode_reconnect(_draw_reconnect())
                return
            elif self._needs_look(followed):
                async for piece in self._look(followed):
                    yield piece
            elif not await _wait(changed, self._settings.heartbeat):
                yield HEARTBEAT

    async def _begin(self, followed: FollowedLog, first: LogView | None) -> AsyncIterator[bytes]:
        """Yield the history that one read brings, from where this reader has to start."""
        view = first
        while view is None:
            try:
                view = await self._log.view(self._generation, self._cursor)
            except StoreUnavailable:
                await asyncio.sleep(STORE_RETRY.total_seconds())
        reset_at = view.record.reset_at if view.record else BEGINNING
        if self._cursor < reset_at:
            # Whatever the reader has, the reset takes it back: nothing before it matters.
            self._cursor = EntryId(reset_at.epoch, reset_at.seq - 1)
            return
        if self._cursor > view.last_id:
            await self._wait_repair(followed, view)
        elif view.entries:
            self._advance(view.entries)
            yield encode_history(self._dialect, self._generation, view.entries)

    async def _read_history(self, followed: FollowedLog) -> AsyncIterator[bytes]:
        """Yield one page that the window no longer has, or never had."""
        try:
            entries = await self._log.read(self._generation, self._cursor)
        except StoreUnavailable:
            if not await _wait(followed.changed, STORE_RETRY) and self._hub.draining.is_set():
                yield encode_reconnect(_draw_reconnect())
                self._is_closed = True
            return
        if entries:
            self._advance(entries)
            yield encode_history(self._dialect, self._generation, entries)
        else:
            # Below the window's floor, yet nothing beyond the cursor: the log itself is gone.
            self._is_closed = True

    def _needs_look(self, followed: FollowedLog) -> bool:
        """Whether the last sweep saw something that this reader has to settle."""
        last_id = followed.swept_last_id
        return followed.is_overdue or (last_id is not None and last_id < self._cursor)

    async def _look(self, followed: FollowedLog) -> AsyncIterator[bytes]:
        """Settle what a sweep saw: a deadline that passed, or a log that became shorter."""
        try:
            if followed.is_overdue:
                await self._store.expire(self._generation)
            view = await self._log.view(self._generation, self._cursor)
        except GenerationUnknown:
            followed.is_gone = True
            return
        except StoreUnavailable:
            yield HEARTBEAT
            await asyncio.sleep(STORE_RETRY.total_seconds())
            return
        followed.is_overdue = False
        followed.swept_last_id = view.last_id
        if view.last_id < self._cursor:
            await self._wait_repair(followed, view)

    async def _wait_repair(self, followed: FollowedLog, view: LogView) -> None:
        """Wait until the log, which lost its end, has reached the cursor again.

        Only the owner of the cursor's own epoch can append the same entries again.
        Raises: _CursorLost.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.repair_wait.total_seconds()
        while True:
            followed.rebase(view.last_id)
            record = view.record
            if record is None or record.state is not State.RUNNING:
                raise _CursorLost
            if record.epoch != self._cursor.epoch:
                raise _CursorLost
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise _CursorLost
            await _wait(followed.changed, timedelta(seconds=min(left, 0.5)))
            try:
                view = await self._log.view(self._generation, self._cursor)
            except StoreUnavailable:
                continue
            if view.last_id >= self._cursor:
                followed.swept_last_id = view.last_id
                return

    def _advance(self, entries: list[Entry]) -> None:
        """Move the cursor over `entries`. Raises: _CursorLost if they do not stand on it."""
        if not _stands_on(entries[0], self._cursor):
            raise _CursorLost
        self._cursor = entries[-1].id
        self._is_closed = entries[-1].type in CLOSING


def _stands_on(entry: Entry, cursor: EntryId) -> bool:
    """Whether nothing lies between `cursor` and `entry`.

    Within an epoch ids are dense; the first entry of an epoch names the one it stands on.
    """
    if entry.id.epoch == cursor.epoch:
        return entry.id == cursor.successor
    if entry.type is EventType.QUEUED:
        return cursor == BEGINNING
    if entry.id.seq != 0:
        return False
    return bool(decode_data(entry.data).get("prev") == str(cursor))


async def _wait(changed: asyncio.Event, longest: timedelta) -> bool:
    """Wait for a change; False if there was none."""
    try:
        async with asyncio.timeout(longest.total_seconds()):
            await changed.wait()
    except TimeoutError:
        return False
    return True


def _draw_reconnect() -> timedelta:
    return timedelta(milliseconds=random.randint(*_RECONNECT_SPREAD_MS))
