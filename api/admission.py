"""Accept a generation so that a crash between any two steps loses nothing and pays nothing twice.

1. offer: a job that is due in a moment, only if absent;
2. create: the record and the first entry, or the one that the same request made;
3. release: the job is due now, a worker wakes.

A job without a record is dropped by the worker that meets it; a record always has a job.
"""

from dataclasses import dataclass
from typing import Any, Final

import structlog

from api.settings import ApiSettings
from shared.errors import StoreUnavailable
from shared.generation import Order, State, Surface
from shared.generation_store import GenerationStore
from shared.ids import GenerationId, derive_generation_id, draw_generation_id
from shared.keys import Keys
from shared.queue import Queue

TENANT: Final = "default"
"""Everybody, until there is authentication."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ticket:
    """A generation that was offered to the queue and does not exist yet."""

    generation: GenerationId
    order: Order


class Admission:
    """The way in."""

    def __init__(
        self, store: GenerationStore, queue: Queue, keys: Keys, settings: ApiSettings
    ) -> None:
        self._store = store
        self._queue = queue
        self._keys = keys
        self._settings = settings

    async def offer(
        self, request: dict[str, Any], surface: Surface, idempotency_key: str | None
    ) -> Ticket:
        """Choose the id and promise the job; nothing can run yet.

        Raises: NotAdmitted, StoreUnavailable.
        """
        settings = self._settings
        if idempotency_key is None:
            generation = draw_generation_id()
        else:
            # The secret outlives every generation derived from it.
            secret = await self._store.secret(2 * settings.longest_life)
            generation = derive_generation_id(
                self._keys.prefix, TENANT, surface, idempotency_key, secret=secret
            )
        await self._queue.offer(
            generation, lifetime=settings.longest_life, max_length=settings.max_queue
        )
        order = Order(
            request=request,
            tenant=TENANT,
            surface=surface,
            queue_timeout=settings.queue_timeout,
            generation_timeout=settings.generation_timeout,
            retention=settings.retention,
        )
        return Ticket(generation, order)

    async def create(self, ticket: Ticket) -> State:
        """Make the generation, or find it, and let a worker have it. Returns its state.

        Raises: IdempotencyConflict, GenerationGone, StoreUnavailable.
        """
        _, state = await self._store.create(ticket.generation, ticket.order)
        if not state.is_closed:
            try:
                await self._queue.release(ticket.generation, lifetime=self._settings.longest_life)
            except StoreUnavailable as error:
                # It exists and its job is due by itself in a moment.
                log.warning("release_failed", generation=ticket.generation, reason=error.reason)
        return state
