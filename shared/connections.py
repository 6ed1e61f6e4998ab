"""Clients of Redis: one named kind for each use, with explicit time-outs and retries.

redis-py's methods are half typed and half awaitable; `Client` is the one typed door to it.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis-py's name
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's name
    TryAgainError,
)

from shared.errors import CursorMalformed, RecordUnreadable, StoreUnavailable
from shared.scripts import Script
from shared.sending import send_in_place
from shared.settings import RedisSettings

Argument = str | bytes | int
Command = tuple[Argument, ...]

_AWAY: Final = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    TryAgainError,
    OSError,
)
"""What a Redis that is away, starting, full or failing over raises. redis-py lets a bare OSError
through when a reconnect fails; a time-out of asyncio is one too."""

_AWAY_REPLIES: Final = (
    "MISCONF",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "OOM",
    "BUSY ",
    "TRYAGAIN",
    "UNBLOCKED",
)
"""Error replies that pass by themselves; `UNBLOCKED` ends a blocking pop at a fail-over."""

_GARBAGE_REPLIES: Final = (
    "WRONGTYPE",
    "not an integer",
    "would overflow",
    "attempt to ",
    "Invalid stream ID",
    "equal or smaller",
)
"""Error replies that tell of what a key holds: its type, a number, what a script computed of it."""

GARBLED: Final = (
    ArithmeticError,
    CursorMalformed,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What Python raises where it decodes what none of us encoded."""


_RANGES: Final = ("XRANGE", "XREVRANGE")
"""Their replies are read as they come: redis-py's dicts cost as much as all the rest."""


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


def is_away(error: BaseException) -> bool:
    """Whether `error` says that Redis cannot serve now, rather than that we asked wrongly."""
    if isinstance(error, AuthenticationError):
        return False
    if isinstance(error, _AWAY):
        return True
    if isinstance(error, RuntimeError):
        # uvloop's, of a transport that the other side reset before redis-py wrote to it.
        return "closed" in str(error)
    return isinstance(error, ResponseError) and (
        str(error).startswith(_AWAY_REPLIES) or "-OOM" in str(error) or "-READONLY" in str(error)
    )


def is_garbage(error: ResponseError) -> bool:
    """Whether `error` says that a key holds what none of us would have written there."""
    return any(reply in str(error) for reply in _GARBAGE_REPLIES)


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError, RuntimeError) as error:
        if is_away(error):
            raise StoreUnavailable(f"{type(error).__name__}: {error}"[:200]) from error
        raise


@contextmanager
def reading_record() -> Iterator[None]:
    """Have what Redis and Python say of a garbled record, or log, raised as RecordUnreadable.

    Raises: RecordUnreadable, StoreUnavailable.
    """
    try:
        with _store_errors():
            yield
    except ResponseError as error:
        if not is_garbage(error):
            raise
        raise RecordUnreadable(str(error)[:200]) from error
    except GARBLED as error:
        raise RecordUnreadable(f"{type(error).__name__}: {error}"[:200]) from error


class Client:
    """Short commands on one Redis. Every method raises StoreUnavailable when Redis cannot serve.

    `script_flags`: whether the server takes `#!lua flags=` lines (Redis 7 does, fakeredis not).
    """

    def __init__(self, connection: redis.asyncio.Redis, *, script_flags: bool = True) -> None:
        self._connection: Any = connection
        self._script_flags = script_flags

    def script(self, name: str) -> Script:
        """Return the script `name` as this server takes it."""
        return Script(name, flags=self._script_flags)

    async def call(self, *command: Argument) -> Any:
        """Send one command and return its reply."""
        with _store_errors():
            return await self._connection.execute_command(*command)

    async def call_all(self, commands: Iterable[Command], *, atomic: bool = False) -> list[Any]:
        """Send `commands` in one round trip; an error reply is raised. `atomic`: in a MULTI."""
        return await self._pipeline(commands, atomic=atomic, raise_on_error=True)

    async def try_all(self, commands: Iterable[Command], *, atomic: bool = False) -> list[Any]:
        """Send `commands` in one round trip; an error reply stands in its place in the list."""
        return await self._pipeline(commands, atomic=atomic, raise_on_error=False)

    async def _pipeline(
        self, commands: Iterable[Command], *, atomic: bool, raise_on_error: bool
    ) -> list[Any]:
        with _store_errors():
            async with self._connection.pipeline(transaction=atomic) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                replies: list[Any] = await pipe.execute(raise_on_error=raise_on_error)
        return replies

    async def run(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Run `script`, teaching it to a server that does not know it (a restart, a fail-over)."""
        tail = (len(keys), *keys, *args)
        try:
            return await self.call("EVALSHA", script.sha, *tail)
        except NoScriptError:
            return await self.call("EVAL", script.text, *tail)


class SyncClient:
    """The same for a thread of its own: one connection, no retry, since the caller has a pace."""

    def __init__(self, connection: redis.Redis) -> None:
        self._connection: Any = connection

    def call(self, *command: Argument) -> Any:
        """Send one command and return its reply. Raises: StoreUnavailable."""
        with _store_errors():
            return self._connection.execute_command(*command)

    def run(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Run `script`, teaching it to a server that does not know it. Raises: StoreUnavailable."""
        tail = (len(keys), *keys, *args)
        try:
            return self.call("EVALSHA", script.sha, *tail)
        except NoScriptError:
            return self.call("EVAL", script.text, *tail)


def _options(settings: RedisSettings, name: str, block: timedelta = timedelta(0)) -> dict[str, Any]:
    return {
        "protocol": 2,
        "client_name": f"rejoin-{name}",
        "socket_connect_timeout": settings.connect_timeout.total_seconds(),
        "socket_timeout": (settings.command_timeout + block).total_seconds(),
        "socket_keepalive": True,
        "decode_responses": False,
    }


@asynccontextmanager
async def open_connection(
    settings: RedisSettings,
    name: str,
    *,
    max_connections: int = 32,
    block: timedelta = timedelta(0),
) -> AsyncIterator[redis.asyncio.Redis]:
    """Open a pooled connection named `rejoin-<name>` in `CLIENT LIST`.

    `block` is the longest a command on it blocks on purpose: an answer may take that much longer.

    A broken connection is retried once, at once: every move is a compare-and-set or carries its
    own ids, so that sending it twice does no harm.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.url.get_secret_value(),
        max_connections=max_connections,
        timeout=settings.command_timeout.total_seconds(),
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), 1),
        retry_on_error=[ConnectionError, OSError],
        **_options(settings, name, block),
    )
    send_in_place(pool)
    connection = redis.asyncio.Redis(connection_pool=pool)
    for command in _RANGES:
        connection.set_response_callback(command, _as_it_is)  # type: ignore[arg-type]  # half typed
    try:
        yield connection
    finally:
        await connection.aclose()
        await pool.disconnect()


def new_tracked_connection(settings: RedisSettings, name: str) -> Connection:
    """Return an unconnected RESP3 connection; pushes arrive between the replies.

    Its reads have no time-out: whoever talks on it bounds the silence.
    Source: with hiredis `read_response` returns a push as `hiredis.PushNotification`.
    """
    options = {**_options(settings, name), "protocol": 3, "socket_timeout": None}
    pool: Any = redis.asyncio.ConnectionPool.from_url(settings.url.get_secret_value(), **options)
    connection: Connection = pool.make_connection()
    return connection


@contextmanager
def open_sync_client(
    settings: RedisSettings, name: str, *, timeout: timedelta
) -> Iterator[SyncClient]:
    """Open a client for a thread: one connection, no retry, nothing takes longer than `timeout`."""
    options = _options(settings, name)
    options["socket_connect_timeout"] = options["socket_timeout"] = timeout.total_seconds()
    connection = redis.Redis.from_url(settings.url.get_secret_value(), max_connections=1, **options)
    try:
        yield SyncClient(connection)
    finally:
        connection.close()
