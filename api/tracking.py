"""Talk to a Redis that tells which keys changed.

Source: Redis, "Client-side caching": with `CLIENT TRACKING ON` a read of a key is remembered, its
next change sends one `invalidate` to this connection; FLUSHALL sends one without keys.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, Final

from hiredis import PushNotification, Reader, ReplyError
from redis.asyncio.connection import Connection
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis-py's name
    RedisError,
    ResponseError,
)

from api.followed import BATCH, FollowedLog, FollowedLogs
from shared.connections import is_away

READ_BYTES: Final = 256 * 1024

AHEAD: Final = BATCH
"""Reads that may be without an answer when the next ones are sent: Redis and we work at once."""

_PING: Final = b"*1\r\n$4\r\nPING\r\n"

PING_EVERY: Final = timedelta(seconds=1)

SILENCE_S: Final = 2.0
"""Without an answer for this long, to a PING at least, the connection is lost."""

CONNECT_S: Final = 5.0
"""A server that accepts and then says nothing, a frozen one, is given up after this."""


def is_lost(error: BaseException) -> bool:
    """Whether `error` ends a connection, not the hub."""
    return isinstance(error, RedisError | OSError) or is_away(error)


class TrackingRefused(Exception):
    """This server, or a proxy before it, does not track keys for us."""


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def start_tracking(connection: Connection) -> Streams:
    """Connect, and switch tracking on.

    Returns the streams, which are ours from now on: redis-py reads them no more.
    Raises: TrackingRefused, RedisError, OSError.
    """
    async with asyncio.timeout(CONNECT_S):
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it so
            await connection.send_command("CLIENT", "TRACKING", "ON")
            await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            # HELLO 3 or CLIENT is not allowed here.
            raise TrackingRefused(str(error)) from error
    return connection._reader, connection._writer  # type: ignore[return-value]  # it is connected


class Conversation:
    """One tracked connection from its start to its loss: a writer and a reader.

    The writer alone bounds the silence: redis-py's own time-outs would disconnect under it. Its
    packing and reading cost more than all the rest of the way of an entry through this process.
    """

    def __init__(self, logs: FollowedLogs, streams: Streams) -> None:
        """`streams`: of a connection on which tracking is on."""
        self._logs = logs
        self._reader, self._writer = streams
        self._expected: deque[FollowedLog | None] = deque()
        """Whose answers are under way, None for a PING's."""
        self._ahead = AHEAD
        self._has_room = asyncio.Event()

    async def run(self) -> None:
        """Talk until the connection is lost. Raises: RedisError, OSError."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(), name="hub writer")
                tasks.create_task(self._read(), name="hub reader")
        except ExceptionGroup as group:
            # Not `except*`, which would wrap what is raised here in a group again.
            lost, others = group.split(is_lost)
            if lost is None or others is not None:
                raise
            raise lost.exceptions[0] from group

    async def _write(self) -> None:
        """Send reads and, where there are none, a PING; once a second wait for all answers."""
        settled_at = monotonic()
        while True:
            expected: Sequence[FollowedLog | None] = [None]
            packed = [_PING]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_EVERY.total_seconds()):
                    await self._logs.wait_dirty()
                if not (logs := self._logs.take_dirty()):
                    continue
                expected, packed = logs, [followed.packed_read() for followed in logs]
            is_due = monotonic() - settled_at >= PING_EVERY.total_seconds()
            await self._send(expected, packed, ahead=0 if is_due else AHEAD)
            if is_due:
                settled_at = monotonic()

    async def _send(
        self, expected: Sequence[FollowedLog | None], packed: Sequence[bytes], *, ahead: int
    ) -> None:
        """Send, and wait until few are unanswered: what gets dirty meanwhile goes out together."""
        self._expected.extend(expected)
        self._ahead = ahead
        self._has_room.clear()
        self._note_room()
        async with asyncio.timeout(SILENCE_S):
            self._writer.write(b"".join(packed))
            await self._writer.drain()
            await self._has_room.wait()

    def _note_room(self) -> None:
        if len(self._expected) <= self._ahead:
            self._has_room.set()

    async def _read(self) -> None:
        """Take replies and pushes as they come, many for each turn of the event loop."""
        parser = Reader()
        while data := await self._reader.read(READ_BYTES):
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                if type(reply) is PushNotification:
                    self._take_push(reply)
                elif isinstance(reply, ReplyError):
                    self._take_error(str(reply))
                else:
                    self._take_reply(reply)
            self._note_room()
        raise ConnectionError("closed by Redis")

    def _take_reply(self, reply: Any) -> None:
        followed = self._expected.popleft()
        if followed is not None:
            self._logs.deliver(followed, reply)

    def _take_error(self, error: str) -> None:
        """A log of another type brings nothing; the next sweep has its followers look."""
        if not error.startswith("WRONGTYPE"):
            raise ResponseError(error)
        self._take_reply(None)

    def _take_push(self, push: Sequence[Any]) -> None:
        if push[0] != b"invalidate":
            return
        if push[1] is None:
            self._logs.mark_all_dirty()
            return
        for key in push[1]:
            self._logs.mark_dirty(key)
