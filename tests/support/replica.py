"""A replica whose link to its primary can be held: promoted, it lacks the primary's last writes.

async with open_replica(primary) as replica:
    await replica.fall_behind()     # what the primary acknowledges from now on, it alone has
    primary.kill()
    await replica.promote()
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.cutting_proxy import CuttingProxy, open_cutting_proxy
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.wait import wait_until

SYNC_AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""For the primary: it would wait seconds for more replicas to join the first synchronisation."""


class Replica:
    """See `open_replica`."""

    def __init__(self, primary: RedisServer, server: RedisServer, link: CuttingProxy) -> None:
        self.primary = primary
        self.server = server
        self._link = link

    async def wait_synchronised(self) -> None:
        """Return when it has what the primary acknowledged before the call."""
        wanted = int((await _replication(self.primary))["master_repl_offset"])

        async def is_there() -> bool:
            told = await _replication(self.server)
            is_linked = told["master_link_status"] == "up"
            return is_linked and int(told["master_repl_offset"]) >= wanted

        await wait_until(is_there, f"{self.server} to follow {self.primary}")

    async def fall_behind(self) -> None:
        """Have all that was acknowledged so far, and receive nothing more."""
        await self.wait_synchronised()
        self._link.hold()

    async def promote(self) -> None:
        """Make a primary of it, once the old one is dead: what is on its way never arrives."""
        assert not self.primary.running, "it would still catch up"
        await self._link.cut_all()
        async with self.server.client() as client:
            await client.replicaof("NO", "ONE")

            async def is_primary() -> bool:
                role: bytes = (await client.role())[0]
                return role == b"master"

            await wait_until(is_primary, f"{self.server} to be a primary")


async def _replication(server: RedisServer) -> dict[str, Any]:
    async with server.client() as client:
        found: dict[str, Any] = await client.info("replication")
        return found


@asynccontextmanager
async def open_replica(primary: RedisServer) -> AsyncIterator[Replica]:
    """A second server of the same kind that follows `primary`; has all of its data when opened."""
    async with open_cutting_proxy("127.0.0.1", primary.port) as link:
        follow = ["--replicaof", "127.0.0.1", str(link.port)]
        async with open_redis_server(primary.kind, extra_args=follow) as server:
            replica = Replica(primary, server, link)
            await replica.wait_synchronised()
            yield replica
