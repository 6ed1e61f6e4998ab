"""Connections of redis-py that send without a task for each command, and lose no cancel.

Source: redis-py 5.3 sends within `asyncio.wait_for`, which before Python 3.12 runs it as a task and
returns as if nothing had happened where a cancel comes in the moment at which that has ended. Who
was cancelled then goes on: a loop that nobody can end any more.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004 - redis-py's names


class _Sending(AbstractConnection):
    """Comes before the kind of connection whose way of sending it replaces."""

    # Of which redis-py gives no types.
    _writer: asyncio.StreamWriter
    connect: Callable[[], Coroutine[Any, Any, Any]]
    check_health: Callable[[], Coroutine[Any, Any, Any]]

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Send what was packed. Raises: redis-py's TimeoutError and ConnectionError."""
        if not self.is_connected:
            await self.connect()
        elif check_health:
            await self.check_health()
        if isinstance(command, str):
            command = command.encode()
        pieces = [command] if isinstance(command, bytes) else command
        try:
            async with asyncio.timeout(self.socket_timeout):
                self._writer.writelines(pieces)
                await self._writer.drain()
        except BaseException as error:
            # What left of it is unknown: nothing else may be sent behind it.
            await self.disconnect(nowait=True)
            if isinstance(error, asyncio.TimeoutError):
                raise TimeoutError("Timeout writing to socket") from None
            if isinstance(error, OSError):
                raise ConnectionError(f"Error while writing to socket: {error}") from error
            raise


def send_in_place(pool: ConnectionPool) -> None:
    """Have a pool that made no connection yet make such ones, of the kind its URL asks for."""
    kind: Any = pool.connection_class
    pool.connection_class = type(kind.__name__, (_Sending, kind), {})
