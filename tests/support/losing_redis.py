"""A Redis that dies and comes back without its last writes, in the two ways in which that happens.

async with open_losing_redis("replica", "valkey") as redis:     # clients know redis.url
    await redis.mark()      # what is acknowledged from now on will be lost
    await redis.lose()      # dead, and back without it; no client has reached it yet
    ...                     # look at redis.serving: the proof that something was lost
    redis.answer()          # clients reach it again
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from tests.support.redis_server import Kind, RedisServer, open_redis_server
from tests.support.replica import SYNC_AT_ONCE, Replica, open_replica
from tests.support.switch import Switch, open_switch

Way = Literal["file", "replica"]

_CLAIM = b"started"
"""The type of the entry that opens an epoch: stands in the file wherever a log was claimed."""


class LosingRedis(ABC):
    """See `open_losing_redis`."""

    def __init__(self, server: RedisServer, switch: Switch) -> None:
        self.serving = server
        """The server that holds the truth now."""
        self._switch = switch

    @property
    def url(self) -> str:
        """The one address that clients know."""
        return self._switch.url

    @abstractmethod
    async def mark(self) -> None:
        """Keep what was acknowledged so far; what follows will be lost."""

    async def lose(self) -> None:
        """SIGKILL, and back without what was to be lost."""
        self._switch.shut()
        self.serving.kill()
        await self._come_back()

    @abstractmethod
    async def _come_back(self) -> None: ...

    def answer(self) -> None:
        """Let clients reach it again."""
        self._switch.lead_to(self.serving.port)


class CutFile(LosingRedis):
    """The append-only file ends in the first claim after the mark: the lease before it is kept.

    The machine went down in the middle of a write. Of a script that is there by half nothing is
    replayed.
    """

    async def mark(self) -> None:
        self._mark = self.serving.aof_bytes()

    async def _come_back(self) -> None:
        (path,) = (self.serving.directory / "appendonlydir").glob("*.incr.aof")
        claimed_at = path.read_bytes().find(_CLAIM, self._mark)
        assert claimed_at > 0, "nothing was claimed since the mark"
        self.serving.truncate_aof(claimed_at)
        await self.serving.start()


class LateReplica(LosingRedis):
    """The primary is gone and its replica, promoted, was behind: it ends exactly at the mark."""

    def __init__(self, server: RedisServer, switch: Switch, replica: Replica) -> None:
        super().__init__(server, switch)
        self._replica = replica

    async def mark(self) -> None:
        await self._replica.fall_behind()

    async def _come_back(self) -> None:
        await self._replica.promote()
        self.serving = self._replica.server


@asynccontextmanager
async def open_losing_redis(way: Way, kind: Kind) -> AsyncIterator[LosingRedis]:
    """A server of `kind`, and what it takes to lose its last writes that way."""
    if way == "file":
        async with open_redis_server(kind, aof=True) as server, open_switch(server.port) as switch:
            yield CutFile(server, switch)
        return
    async with (
        open_redis_server(kind, extra_args=SYNC_AT_ONCE) as primary,
        open_replica(primary) as replica,
        open_switch(primary.port) as switch,
    ):
        yield LateReplica(primary, switch, replica)
