"""The logs that somebody in this process follows, and which of them have to be read."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog

from api.sse import Dialect, encode_run
from api.window import Window
from api.wire import encode_chunk
from shared.connections import GARBLED, Command
from shared.events import CLOSING, Run, decode_runs, drop_known
from shared.ids import EntryId, GenerationId

READ_COUNT: Final = 100
"""Entries per read: one long XREAD would hold up everybody else in Redis."""

BATCH: Final = 50
"""Logs per pipeline, for the same reason; and while one is read here Redis answers the next."""

log = structlog.get_logger()

_READ_HEAD: Final = (
    b"*6\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$%d\r\n%d\r\n$7\r\nSTREAMS\r\n"
    % (len(str(READ_COUNT)), READ_COUNT)
    + b"$%d\r\n%b\r\n"
)


class Batch:
    """What one read brought: the same bytes for every live follower of a dialect."""

    __slots__ = ("_chunks", "_generation", "_runs", "ends", "last_id", "stands_on")

    def __init__(self, stands_on: EntryId, runs: Sequence[Run], generation: GenerationId) -> None:
        self.stands_on = stands_on
        self.last_id = runs[-1].last_id
        self.ends = runs[-1].types[-1] in CLOSING
        self._runs = runs
        self._generation = generation
        self._chunks: dict[str, bytes] = {}

    def chunk(self, dialect: Dialect) -> bytes:
        """Return its frames as one chunk."""
        known = self._chunks.get(dialect.name)
        if known is None:
            frames = [encode_run(dialect, self._generation, run) for run in self._runs]
            known = self._chunks[dialect.name] = encode_chunk(b"".join(frames))
        return known


class Listener(Protocol):
    """Who follows a log without a task that waits for it."""

    def take(self, batch: Batch) -> None:
        """Send a batch on, or wake."""
        ...

    def wake(self) -> None:
        """Look again."""
        ...

    def beat(self, now: float) -> None:
        """Send a heartbeat if nothing was sent for long."""
        ...


class FollowedLog:
    """A log that somebody in this process follows."""

    __slots__ = (
        "_changed",
        "_head",
        "_reaching_back",
        "alarms",
        "followers",
        "furthest",
        "is_gone",
        "is_overdue",
        "is_unreadable",
        "key",
        "live",
        "window",
    )

    def __init__(self, key: bytes, window: Window) -> None:
        self.key = key
        self.window = window
        self._head = _READ_HEAD % (len(key), key)
        self.followers = 0
        self.is_gone = False
        """Whether record and log both vanished."""
        self.is_unreadable = False
        """Whether somebody else wrote into it what cannot be told."""
        self.furthest = window.floor
        """The newest entry that any follower was given; history may be ahead of the window."""
        self.alarms = 0
        """How often the log was found shorter than what somebody had already read of it."""
        self.is_overdue = False
        """Whether it was open beyond its deadline when it was last compared."""
        self.live: dict[Listener, None] = {}
        """Who has everything and takes what comes next at once."""
        self._changed: asyncio.Event | None = None
        self._reaching_back: asyncio.Lock | None = None

    def read_command(self) -> Command:
        """Return the command that reads what the window lacks, and arms its tracking."""
        return ("XREAD", "COUNT", READ_COUNT, "STREAMS", self.key, str(self.window.last_id))

    def packed_read(self) -> bytes:
        """Return the same as Redis takes it: the one command that is sent for every change."""
        after = b"%d-%d" % self.window.last_id
        return b"%b$%d\r\n%b\r\n" % (self._head, len(after), after)

    @property
    def is_shared(self) -> bool:
        """Whether more than one follows it."""
        return self.followers > 1

    @property
    def reaching_back(self) -> asyncio.Lock:
        """Held by who fills the window with what came before."""
        if self._reaching_back is None:
            self._reaching_back = asyncio.Lock()
        return self._reaching_back

    @property
    def changed(self) -> asyncio.Event:
        """An event for the next change; taken before looking at the window, awaited after."""
        if self._changed is None:
            self._changed = asyncio.Event()
        return self._changed

    def notify(self) -> None:
        """Wake all followers."""
        self._tell_change()
        for follower in self.live:
            follower.wake()

    def _tell_change(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def take(self, runs: list[Run]) -> None:
        """Add what was read beyond the window."""
        window = self.window
        fresh = drop_known(runs, window.last_id)
        if not fresh:
            return
        stands_on = fresh[0].predecessor
        if stands_on != window.last_id:
            # The log was rolled back and went on without its lost end: whoever is not exactly
            # where it goes on has to read what is really there.
            window.rebase(stands_on)
            self.notify()
        window.add(fresh)
        self.furthest = max(self.furthest, window.last_id)
        self._tell_change()
        if self.live:
            batch = Batch(stands_on, fresh, window.generation)
            for follower in self.live:
                follower.take(batch)

    def compare(self, seen: EntryId, last_id: EntryId) -> None:
        """The log ended with `last_id` after the window ended with `seen`: was it rolled back?"""
        if last_id < seen:
            self.rebase(last_id)

    def rebase(self, last_id: EntryId) -> None:
        """The log itself is shorter than what we saw: Redis lost its last writes.

        Its followers compare their own cursors: the next sweep would find nothing amiss any more.
        """
        if last_id < self.window.last_id:
            self.window.rebase(last_id)
        if last_id < self.furthest:
            self.furthest = last_id
            self.raise_alarm()

    def raise_alarm(self) -> None:
        """Have every follower compare its cursor with the log."""
        self.alarms += 1
        self.notify()


class FollowedLogs:
    """Every followed log by its key, and those that changed since they were read, in turn."""

    def __init__(self) -> None:
        self._logs: dict[bytes, FollowedLog] = {}
        self._dirty: OrderedDict[bytes, None] = OrderedDict()
        """Who changed first is read first: none waits longer than all of them once take."""
        self._work = asyncio.Event()

    def __len__(self) -> int:
        return len(self._logs)

    @property
    def followers(self) -> int:
        """How many follow one of them."""
        return sum(followed.followers for followed in self._logs.values())

    def keys(self) -> list[bytes]:
        """Return the keys of all followed logs."""
        return list(self._logs)

    def find(self, key: bytes) -> FollowedLog | None:
        """Return the log, None once its last follower has left."""
        return self._logs.get(key)

    def add(self, key: bytes, window: Window) -> FollowedLog:
        """Begin to follow a log; it is read at once, which arms its tracking."""
        followed = self._logs[key] = FollowedLog(key, window)
        self.mark_dirty(key)
        return followed

    def remove(self, key: bytes) -> None:
        """Follow a log no more."""
        del self._logs[key]

    def beat_all(self, now: float) -> None:
        """Let every live follower see whether it was silent for too long."""
        for followed in self._logs.values():
            for follower in followed.live:
                follower.beat(now)

    def notify_all(self) -> None:
        """Wake every follower of every log."""
        for followed in self._logs.values():
            followed.notify()

    def mark_dirty(self, key: bytes) -> None:
        """Have one log read, unless nobody follows it."""
        if key in self._logs:
            self._dirty[key] = None
            self._work.set()

    def mark_all_dirty(self) -> None:
        """Have every followed log read."""
        for key in self._logs:
            self._dirty[key] = None
        if self._dirty:
            self._work.set()

    async def wait_dirty(self) -> None:
        """Return when there may be something to read."""
        await self._work.wait()

    def take_dirty(self) -> list[FollowedLog]:
        """Return up to `BATCH` logs to read now."""
        dirty = self._dirty
        batch: list[FollowedLog] = []
        while dirty and len(batch) < BATCH:
            key, _ = dirty.popitem(last=False)
            if (followed := self._logs.get(key)) is not None:
                batch.append(followed)
        if not dirty:
            self._work.clear()
        return batch

    def deliver(self, followed: FollowedLog, reply: Any) -> None:
        """Hand what one read returned to the log's followers; a full read leaves it dirty.

        A log that was left and followed anew meanwhile is another one: it is dirty by itself.
        """
        key = followed.key
        if not reply or self._logs.get(key) is not followed:
            return
        rows = reply[key] if isinstance(reply, dict) else reply[0][1]
        if len(rows) >= READ_COUNT:
            self.mark_dirty(key)
        try:
            followed.take(decode_runs(rows))
        except GARBLED as error:
            # Not entries of ours: whoever comes back is told so.
            log.warning("log_unreadable", log=key.decode(), reason=str(error)[:200])
            followed.is_unreadable = True
            followed.notify()
