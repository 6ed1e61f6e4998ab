"""What a route may ask for: the things its process holds open."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from api.admission import Admission
from api.history import History
from api.hub import Hub
from api.settings import ApiSettings
from api.sse import Dialect
from api.tail import Tail, TailSettings
from shared.connections import Client
from shared.errors import Draining, GenerationUnknown
from shared.event_log import EventLog, GenerationView, LogView
from shared.generation_store import GenerationStore
from shared.ids import EntryId, GenerationId
from shared.queue import Queue


@dataclass(frozen=True, slots=True)
class Held:
    """Everything one API process holds from its start to its end."""

    settings: ApiSettings
    redis: Client
    store: GenerationStore
    event_log: EventLog
    history: History
    """Of the same logs, on connections of its own, so that it does not hold up the rest."""
    queue: Queue
    admission: Admission
    hub: Hub
    patience: TailSettings

    def check_not_draining(self) -> None:
        """Raises: Draining."""
        if self.hub.draining.is_set():
            raise Draining

    async def look(self, generation: GenerationId, cursor: EntryId) -> GenerationView:
        """As `view`, for who is about to follow: without entries where others follow the same log,
        since its window has them, or will.
        """
        followed = self.hub.find(generation)
        if followed is None:
            return await self._open(generation, lambda: self.history.look(generation, cursor))
        seen = followed.window.last_id
        view = await self._open(generation, lambda: self.history.look(generation, cursor, 0))
        followed.compare(seen, view.last_id)
        return view

    async def view(self, generation: GenerationId, cursor: EntryId) -> GenerationView:
        """Read record and log beyond `cursor`; one past its deadline is closed by whoever looks.

        Raises: GenerationUnknown, StoreUnavailable.
        """
        return await self._open(generation, lambda: self.event_log.view(generation, cursor))

    async def _open(
        self, generation: GenerationId, read: Callable[[], Awaitable[LogView]]
    ) -> GenerationView:
        view = await read()
        if view.record and view.record.is_overdue(datetime.now(UTC)):
            await self.store.expire(generation)
            view = await read()
        if view.record is None:
            raise GenerationUnknown
        return GenerationView(view.record, view.last_id, view.entries)

    def tail(self, generation: GenerationId, dialect: Dialect) -> Tail:
        """Return a new reader of one log."""
        return Tail(
            generation,
            dialect,
            hub=self.hub,
            history=self.history,
            store=self.store,
            settings=self.patience,
        )


def held(request: Request) -> Held:
    """Return what this process holds."""
    state: Held = request.app.state.held
    return state


Process = Annotated[Held, Depends(held)]
