"""One connection per process that tells which logs changed, and reads exactly those.

Reading a log with `CLIENT TRACKING` on arms it; the next change of its key pushes one invalidation;
the hub collects dirty keys and reads them in pipelines, which arms them again. So it is
edge-triggered, coalesces by itself under load, and needs nothing from whoever writes. Logs are
read in the order in which they changed, and Redis answers one pipeline while another is worked on.

Rules against deafness: tracking is switched on by the connect step and every followed log is
dirty then; a full read leaves its log dirty; an invalidation without keys (FLUSHALL) makes all
dirty; PING every second, two seconds of silence are a lost connection; every log is read, and
compared with its last id, every five seconds whatever happened.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final

import structlog
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from api.followed import BATCH, FollowedLog, FollowedLogs
from api.tracking import Conversation, TrackingRefused, is_lost, start_tracking
from api.window import Window
from shared.connections import Client, Command, reading_record
from shared.errors import RecordUnreadable, StoreUnavailable
from shared.generation import State
from shared.ids import BEGINNING, EntryId, GenerationId, decode_entry_id
from shared.keys import Keys

SWEEP_EVERY: Final = timedelta(seconds=5)
RETRY_AFTER: Final = timedelta(milliseconds=100)
TRACKING_RETRY: Final = timedelta(minutes=1)

log = structlog.get_logger()


class Hub:
    """All logs that are followed in this process."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        connect: Callable[[], Connection] | None,
        *,
        window_bytes: int,
        poll: timedelta,
        beat: timedelta = timedelta(seconds=1),
    ) -> None:
        """`connect` makes the tracked connection; None polls from the start."""
        self._client = client
        self._keys = keys
        self._connect = connect
        self._window_bytes = window_bytes
        self._poll = poll
        self._beat = beat
        self._logs = FollowedLogs()
        self._loop = asyncio.get_running_loop()
        self._sweep_asked = asyncio.Event()
        self.draining = asyncio.Event()
        self._deaf = asyncio.Event()
        self._deaf.set()
        self.is_polling = False
        """Whether all logs are read again and again, since nobody tells which ones changed."""
        self.losses = 0
        """How often a tracked connection was lost."""

    @property
    def followers(self) -> int:
        """How many follow a log."""
        return self._logs.followers

    @property
    def followed(self) -> int:
        """How many logs are followed."""
        return len(self._logs)

    @property
    def is_tracking(self) -> bool:
        """Whether Redis tells which logs change."""
        return not self._deaf.is_set()

    @property
    def hears(self) -> bool:
        """Whether changes of the logs reach us at the moment."""
        return self.is_tracking or self.is_polling

    def drain(self) -> None:
        """Tell every follower that this process is about to end; from any thread or signal."""
        self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self.draining.set()
        self._logs.notify_all()

    def join(self, generation: GenerationId, last_id: EntryId) -> FollowedLog:
        """Follow one log, of which `last_id` is known to exist; shared with its other followers."""
        key = self._keys.log(generation).encode()
        followed = self._logs.find(key)
        if followed is None:
            followed = self._logs.add(key, Window(generation, last_id, self._window_bytes))
        followed.followers += 1
        return followed

    def find(self, generation: GenerationId) -> FollowedLog | None:
        """Return a log that somebody follows already."""
        return self._logs.find(self._keys.log(generation).encode())

    def leave(self, followed: FollowedLog) -> None:
        """End what `join` began."""
        followed.followers -= 1
        if followed.followers == 0:
            self._logs.remove(self._keys.log(followed.window.generation).encode())

    async def run(self) -> None:
        """Keep every window up to date until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            own = (
                tasks.create_task(self._sweep_forever(), name="hub sweep"),
                tasks.create_task(self._track_forever(), name="hub tracking"),
                tasks.create_task(self._poll_forever(), name="hub poll"),
                tasks.create_task(self._beat_forever(), name="hub heartbeats"),
            )
            await asyncio.wait(own, return_when=asyncio.FIRST_COMPLETED)
            # Neither ends by itself, and a group does not mind one that was cancelled.
            raise RuntimeError("one of the hub's tasks has ended")

    async def _beat_forever(self) -> None:
        """Let all live followers hear something, however silent their logs are."""
        while True:
            await asyncio.sleep(self._beat.total_seconds())
            self._logs.beat_all(monotonic())

    async def _track_forever(self) -> None:
        while True:
            try:
                await self._run_tracked()
            except TrackingRefused as refusal:
                log.warning("tracking_refused", reason=str(refusal))
                await asyncio.sleep(TRACKING_RETRY.total_seconds())
            except (RedisError, OSError, RuntimeError) as error:
                if not is_lost(error):
                    raise
                if self.is_tracking:
                    log.warning("hub_lost_connection", reason=type(error).__name__)
                    self.losses += 1
                self._deaf.set()
                await asyncio.sleep(RETRY_AFTER.total_seconds())

    async def _run_tracked(self) -> None:
        if self._connect is None:
            raise TrackingRefused("not offered")
        connection = self._connect()
        try:
            streams = await start_tracking(connection)
            log.info("tracking_started")
            self._deaf.clear()
            self.is_polling = False
            self._logs.mark_all_dirty()
            self._sweep_asked.set()
            # In a task of its own: a TaskGroup whose task fails leaves its parent counted as being
            # cancelled (until Python 3.13), and every later time-out would end this one, unseen
            # (until 3.11.3).
            await asyncio.create_task(Conversation(self._logs, streams).run())
        finally:
            await connection.disconnect(nowait=True)

    async def _poll_forever(self) -> None:
        """Read all followed logs again and again, while nobody tells which ones changed."""
        while True:
            await self._deaf.wait()
            await asyncio.sleep(self._poll.total_seconds())
            if self._deaf.is_set():
                self._logs.mark_all_dirty()
                is_served = await self._read_dirty()
                self.is_polling = is_served and self._deaf.is_set()

    async def _read_dirty(self) -> bool:
        """Read what is dirty, until it is tracked again. False if Redis is away."""
        while self._deaf.is_set() and (batch := self._logs.take_dirty()):
            try:
                replies = await self._client.try_all(followed.read_command() for followed in batch)
            except StoreUnavailable:
                return False
            for followed, reply in zip(batch, replies, strict=True):
                if not isinstance(reply, Exception):
                    self._logs.deliver(followed, reply)
        return True

    async def _sweep_forever(self) -> None:
        """Compare every followed log with what we saw: after a roll-back nothing new comes."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_EVERY.total_seconds()):
                    await self._sweep_asked.wait()
            self._sweep_asked.clear()
            keys = self._logs.keys()
            for start in range(0, len(keys), BATCH):
                try:
                    await self._sweep(keys[start : start + BATCH])
                except StoreUnavailable:
                    break
            self._logs.mark_all_dirty()

    async def _sweep(self, keys: Sequence[bytes]) -> None:
        """Compare some logs with what was read of them before they are asked."""
        furthest: list[EntryId] = []
        commands: list[Command] = []
        for key in keys:
            followed = self._logs.find(key)
            furthest.append(followed.furthest if followed else BEGINNING)
            commands.append(("XREVRANGE", key, "+", "-", "COUNT", 1))
            commands.append(("HMGET", key.removesuffix(b":log"), "state", "deadline"))
        replies = await self._client.try_all(commands)
        now_ms = datetime.now(UTC).timestamp() * 1000
        for key, known, last, record in zip(
            keys, furthest, replies[::2], replies[1::2], strict=True
        ):
            if (followed := self._logs.find(key)) is None:
                continue
            try:
                with reading_record():
                    _compare(followed, known, last, record, now_ms)
            except RecordUnreadable:
                # Garbage that somebody else wrote: its followers look themselves, and end.
                followed.raise_alarm()


def _compare(followed: FollowedLog, known: EntryId, last: Any, record: Any, now_ms: float) -> None:
    """Note what two replies say of a log of which `known` was read. Raises: what a reply is."""
    for reply in (last, record):
        if isinstance(reply, Exception):
            raise reply
    state, deadline = record
    followed.is_gone = not last and state is None
    followed.is_overdue = (
        state is not None and not State(state.decode()).is_closed and int(deadline) <= now_ms
    )
    last_id = decode_entry_id(last[0][0]) if last else BEGINNING
    if followed.is_gone or followed.is_overdue or last_id < known:
        followed.raise_alarm()
