"""What a route may ask for: the things its process holds open."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from api.admission import Admission
from api.hub import Hub
from api.settings import ApiSettings
from api.sse import Dialect
from api.tail import Tail, TailSettings
from shared.connections import Client
from shared.errors import Draining, GenerationUnknown
from shared.event_log import EventLog, GenerationView
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
    history: EventLog
    """The same logs on connections of their own, so that history does not hold up the rest."""
    queue: Queue
    admission: Admission
    hub: Hub
    patience: TailSettings

    def check_not_draining(self) -> None:
        """Raises: Draining."""
        if self.hub.draining.is_set():
            raise Draining

    async def view(self, generation: GenerationId, cursor: EntryId) -> GenerationView:
        """Read record and log beyond `cursor`; one past its deadline is closed by whoever looks.

        Raises: GenerationUnknown, StoreUnavailable.
        """
        view = await self.history.view(generation, cursor)
        if view.record and view.record.is_overdue(datetime.now(UTC)):
            await self.store.expire(generation)
            view = await self.history.view(generation, cursor)
        if view.record is None:
            raise GenerationUnknown
        return GenerationView(view.record, view.last_id, view.entries)

    def tail(self, generation: GenerationId, dialect: Dialect) -> Tail:
        """Return a new reader of one log."""
        return Tail(
            generation,
            dialect,
            hub=self.hub,
            event_log=self.history,
            store=self.store,
            settings=self.patience,
        )


def held(request: Request) -> Held:
    """Return what this process holds."""
    state: Held = request.app.state.held
    return state


Process = Annotated[Held, Depends(held)]
