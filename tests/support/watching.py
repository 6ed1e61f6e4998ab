"""A generation that a worker writes, every state of which is seen: `writing.py` with a witness."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from shared.connections import Command
from shared.event_log import AppendReply, EventLog, LogView
from shared.generation import Upstream
from shared.ids import BEGINNING, GenerationId
from tests.support.faulty_client import Fault
from tests.support.virtual_clock import run_virtual
from tests.support.writing import Writing
from worker.flusher import Flusher
from worker.log_writer import LogWriter

SILENCE = timedelta(seconds=0.5)
"""After so much of it a log is looked at."""


class WatchedLog(EventLog):
    """Remembers what was sent, and what record and log were after each round trip."""

    def __init__(self, writing: "Watching") -> None:
        super().__init__(writing.client, writing.stores.keys)
        self.sent: list[Sequence[Command]] = []
        self.views: list[LogView] = []
        self._writing = writing

    def looks_at(self, generation: GenerationId) -> int:
        """How often the store was asked about a log without a word for it."""
        look = self.append_command(generation, "", BEGINNING, [])
        return sum(
            command[:5] == look[:5] and len(command) == len(look)
            for commands in self.sent
            for command in commands
        )

    async def send(self, commands: Sequence[Command]) -> list[AppendReply | Exception]:
        self.sent.append(commands)
        try:
            return await super().send(commands)
        finally:
            self.views.append(await self._writing.view())


class Watching(Writing):
    """One claimed generation whose every state is seen."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults)
        self.log = WatchedLog(self)
        self.flusher = Flusher(self.log)

    async def another(self) -> LogWriter:
        """The writer of another generation."""
        generation = await self.stores.create()
        claim = await self.stores.claim(generation, "w/2")
        return self.flusher.open_writer(generation, "w/2", claim.last_id)

    async def round_trip(self, *, reply_lost: bool = False) -> None:
        """What a flusher does with this one log."""
        for reply in await self.log.send(self.writer.commands(self.log)):
            if not reply_lost:
                self.writer.take_reply(reply)

    async def view(self) -> LogView:
        return await self.stores.log.view(self.generation)

    async def upstream(self) -> Upstream | None:
        return (await self.stores.store.record(self.generation)).upstream


Act = Callable[[Watching], Coroutine[Any, Any, None]]


def play_watched(act: Act, *faults: Fault, flushes: bool = True, looks: bool = False) -> None:
    """Run `act` beside a flusher; `looks`: which also looks at silent logs.

    Without it `writing.round_trip` sends what there is.
    """

    async def main() -> None:
        writing = Watching(list(faults))
        await writing.open()
        running = [asyncio.create_task(writing.flusher.run())] if flushes else []
        if looks:
            running.append(asyncio.create_task(writing.flusher.look_forever(SILENCE)))
        try:
            await act(writing)
        finally:
            for task in running:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    run_virtual(main())
