"""Keep this worker's leases alive, from a thread: an event loop with a thousand jobs is late."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from shared.connections import open_sync_client
from shared.errors import StoreUnavailable
from shared.ids import GenerationId
from shared.keys import Keys
from shared.queue import Lease, Renewal
from shared.settings import RedisSettings
from worker.settings import WorkerSettings

LOOP_HANGS_AFTER: Final = timedelta(seconds=10)
"""A loop that has not ticked for this long does no work: its leases are left to lapse."""

LONGEST_RENEWAL: Final = timedelta(milliseconds=500)
"""A renewal that takes longer is tried anew on another connection: a dead one may say nothing."""

RECONNECT_EVERY: Final = timedelta(milliseconds=100)
"""How often an unreachable Redis is tried: owners must be back before their marks run out."""

log = structlog.get_logger()


class LeaseKeeper:
    """The leases of one worker. Used from its event loop; the thread only reads and renews."""

    def __init__(
        self,
        redis: RedisSettings,
        keys: Keys,
        settings: WorkerSettings,
        on_lost: Callable[[Lease], None],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._settings = settings
        self._on_lost = on_lost
        self._held: dict[GenerationId, Lease] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticked_at = time.monotonic()

    def hold(self, lease: Lease) -> None:
        """Renew `lease` from now on."""
        with self._lock:
            self._held[lease.generation] = lease

    def drop(self, lease: Lease) -> None:
        """Renew `lease` no more."""
        with self._lock:
            if self._held.get(lease.generation) == lease:
                del self._held[lease.generation]

    async def run(self) -> None:
        """Run the thread until cancelled; tell it meanwhile that the loop is alive."""
        loop = asyncio.get_running_loop()
        thread = asyncio.create_task(asyncio.to_thread(self._renew_forever, loop))
        try:
            while not thread.done():
                self._ticked_at = time.monotonic()
                await asyncio.wait([thread], timeout=1)
            # It ends by itself only by an error, without which nothing of this worker would be
            # renewed any more: let it end the worker.
            await thread
        finally:
            self._ended.set()
            await asyncio.wait([thread])

    def _renew_forever(self, loop: asyncio.AbstractEventLoop) -> None:
        timeout = min(self._settings.lease / 4, LONGEST_RENEWAL)
        with open_sync_client(self._redis, "lease", timeout=timeout) as client:
            renewal = Renewal(client, self._keys, self._settings.lease)
            pause, is_away = self._settings.renewal, False
            while not self._ended.wait(pause.total_seconds()):
                pause = self._settings.renewal
                with self._lock:
                    held = list(self._held.values())
                if not held or time.monotonic() - self._ticked_at > LOOP_HANGS_AFTER.seconds:
                    continue
                try:
                    lost = renewal.renew(held)
                except StoreUnavailable as error:
                    tell = log.debug if is_away else log.warning
                    tell("lease_renewal_failed", reason=error.reason, leases=len(held))
                    is_away = True
                    pause = min(RECONNECT_EVERY, pause)
                    continue
                is_away = False
                for lease in held:
                    if lease.generation in lost:
                        loop.call_soon_threadsafe(self._lose, lease)

    def _lose(self, lease: Lease) -> None:
        """Runs in the loop: one that was let go in the meantime was not lost."""
        if self._held.get(lease.generation) == lease:
            self.drop(lease)
            self._on_lost(lease)
