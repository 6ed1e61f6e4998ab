"""I7: how long a generation that is open makes no step, measured while everything fails."""

import asyncio
from collections.abc import Collection

import redis

from tests.chaos.clients import Clients
from tests.chaos.faults import LEASE_S, MARK_S, pause
from tests.support.fold import CLOSING_TYPES
from tests.support.redis_server import RedisServer

WORKER_LOST_S = LEASE_S + MARK_S + 1
WRITES_LOST_S = LEASE_S + MARK_S + 2
"""The design's bounds of the two worst of our faults; of the second, after Redis is back."""

SLACK_S = 3.0
"""Two cores start a process in a second and a half, and the watch looks ten times a second."""

ABSENCE_S = 3.0
"""A reader's own: it is away for a moment, and its next request may meet an API that starts."""

_LOOK_EVERY_S = 0.1


def stall_bound_s(outage_s: float) -> float:
    """The longest stall that is allowed, where Redis was away for `outage_s` at most.

    Lost writes, and, since faults do not wait for each other, a lost worker on top.
    """
    return outage_s + WRITES_LOST_S + WORKER_LOST_S + SLACK_S


class Watch:
    """Looks at the end of every open log, again and again."""

    def __init__(self, server: RedisServer, clients: Clients) -> None:
        self._server, self._clients = server, clients
        self._moved: dict[str, tuple[bytes, float]] = {}
        self._closed: set[str] = set()
        self.longest_stall_s = 0.0

    def reopen(self, generations: Collection[str]) -> None:
        """These are not closed any more: Redis forgot that they were."""
        self._closed.difference_update(generations)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await pause(_LOOK_EVERY_S)
            try:
                await self._look()
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                continue

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        names = [a.generation for a in self._clients.asked if a.generation not in self._closed]
        async with self._server.client(socket_timeout=1) as client:
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.xrevrange(f"gen:{{{name}}}:log", count=1)
            rows = await pipe.execute()
        for name, row in zip(names, rows, strict=True):
            if not row:  # forgotten; it steps again once its client has asked again
                self._moved.pop(name, None)
                continue
            ((last, fields),) = row
            before, since = self._moved.get(name, (b"", now))
            self.longest_stall_s = max(self.longest_stall_s, now - since)
            if last != before:
                self._moved[name] = (last, now)
            if fields[b"t"].decode() in CLOSING_TYPES:
                self._closed.add(name)
