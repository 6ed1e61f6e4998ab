"""What is to be done with a job once its ownership is over, and doing it."""

from datetime import timedelta
from enum import Enum, auto
from typing import Final

import structlog

from shared.errors import GenerationUnknown, RecordUnreadable
from shared.failures import RECORD_UNREADABLE
from shared.generation_store import GenerationStore
from shared.ids import GenerationId
from shared.queue import OFFER_DELAY, Lease, Queue

OWNER_LIFE: Final = timedelta(days=1)
"""How long a job remembers its last owner; longer than any generation lives."""

log = structlog.get_logger()


class Outcome(Enum):
    """How an ownership ended."""

    FINISHED = auto()
    """The log is closed: the job can go."""
    NOT_MINE = auto()
    """Somebody else owns it: it is not touched."""
    HAND_OVER = auto()
    """Told to end in the middle: it goes on elsewhere, at once, and no attempt is counted."""
    GIVE_BACK = auto()
    """It must run again, here or elsewhere."""
    PAUSE = auto()
    """It must run again after a while: its provider asked for that."""
    NO_RECORD = auto()
    """Its record is missing: not written yet, or gone."""
    NO_RECORD_AGAIN = auto()
    """And was missing the last time."""


async def carry_out(
    outcome: Outcome, lease: Lease, pause: timedelta, store: GenerationStore, queue: Queue
) -> None:
    """Let go of the job as `outcome` says; it runs again after `pause`. Raises: StoreUnavailable.

    Atomic: each step compares the lease's token, and a repeat of all does no harm.
    """
    match outcome:
        case Outcome.FINISHED:
            await queue.finish(lease)
        case Outcome.HAND_OVER:
            await store.hand_over(lease.generation, lease.token, "drain")
            await queue.give_back(lease)
        case Outcome.GIVE_BACK:
            await queue.give_back(lease, pause)
        case Outcome.PAUSE:
            await store.hand_over(lease.generation, lease.token, "pause")
            await queue.give_back(lease, pause)
        case Outcome.NO_RECORD:
            await queue.give_back(lease, OFFER_DELAY)
        case Outcome.NO_RECORD_AGAIN:
            await _drop(lease, store, queue)
        case Outcome.NOT_MINE:
            pass


async def _drop(lease: Lease, store: GenerationStore, queue: Queue) -> None:
    """Remove a job that has no record; one whose record came just then is made due again."""
    log.warning("job_dropped", generation=lease.generation, reason="no record")
    await queue.finish(lease)
    try:
        record = await store.record(lease.generation)
    except GenerationUnknown:
        return
    if not record.state.is_closed:
        await queue.release(lease.generation, lifetime=OWNER_LIFE)


async def condemn(
    generation: GenerationId, error: RecordUnreadable, store: GenerationStore
) -> None:
    """End a generation that cannot be read, if its log still can. Raises: StoreUnavailable."""
    is_ended = True
    try:
        await store.condemn(generation, RECORD_UNREADABLE)
    except (GenerationUnknown, RecordUnreadable):
        is_ended = False
    log.error("record_unreadable", generation=generation, reason=error.reason, is_ended=is_ended)
