"""What every generation of one worker shares."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from shared.errors import StoreUnavailable
from shared.event_log import EventLog
from shared.events import Answer, fold
from shared.generation_store import GenerationStore
from shared.ids import GenerationId
from shared.queue import Queue
from worker.flusher import Flusher
from worker.provider.model_server import ModelServer
from worker.settings import WorkerSettings

T = TypeVar("T")

STORE_RETRY_S: Final = 0.25
"""Pause between tries of something that must get through to Redis."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tools:
    """The stores, the way into the logs, and the model."""

    store: GenerationStore
    queue: Queue
    event_log: EventLog
    flusher: Flusher
    provider: ModelServer
    settings: WorkerSettings
    model: str
    """For requests that name none."""

    async def read_answer(self, generation: GenerationId) -> Answer:
        """Return what stands in the log. Raises: StoreUnavailable."""
        answer = Answer()
        while page := await self.event_log.read(generation, answer.last_id):
            fold(page, answer)
        return answer


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call until Redis answers; whoever may not wait so long bounds it."""
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            log.debug("store_awaited", reason=error.reason)
            await asyncio.sleep(STORE_RETRY_S)
