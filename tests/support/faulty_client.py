"""A Redis that loses requests, replies and writes, exactly as a test tells it to.

Each pipeline meets the next fault of the list; when the list is at its end, all goes well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis.asyncio
from redis.exceptions import OutOfMemoryError

from shared.connections import Client, Command
from shared.errors import StoreUnavailable
from shared.ids import GenerationId
from tests.support.stores import Snapshot, Stores


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one pipeline."""

    kind: Literal["none", "not sent", "reply lost", "sent twice", "full", "rolled back", "new"]
    """full: error replies; rolled back: earlier writes are lost first; new: no script is known."""
    at: int = 0
    """How many of the commands are done in spite of it; how many of the moments are lost."""


class FaultyClient(Client):
    """Speaks to a real store, and breaks off where it is told to."""

    def __init__(self, connection: redis.asyncio.Redis, faults: Iterable[Fault]) -> None:
        super().__init__(connection, script_flags=False)
        self.met: list[Fault] = []
        """The faults there have been."""
        self._faults = iter(faults)
        self._stores = Stores(connection)
        self._generation: GenerationId | None = None
        self._moments: list[Snapshot] = []

    async def remember(self, generation: GenerationId) -> None:
        """From here on writes to `generation` may be lost, but nothing from before."""
        self._generation = generation
        self._moments = [await self._stores.snapshot(generation)]

    async def try_all(self, commands: Iterable[Command], *, atomic: bool = False) -> list[Any]:
        if atomic:
            return await super().try_all(commands, atomic=True)
        sent = list(commands)
        fault = next(self._faults, Fault("none"))
        self.met.append(fault)
        match fault.kind:
            case "not sent":
                raise StoreUnavailable("not sent")
            case "reply lost":
                await self._send(sent[: fault.at])
                raise StoreUnavailable("reply lost")
            case "sent twice":
                await self._send(sent)
                return await self._send(sent)
            case "full":
                done = await self._send(sent[: fault.at])
                refused = OutOfMemoryError("command not allowed when used memory > 'maxmemory'")
                return [*done, *(refused for _ in sent[fault.at :])]
            case "rolled back":
                await self._roll_back(fault.at)
            case "new":
                await self.call("SCRIPT", "FLUSH")
        return await self._send(sent)

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        replies = []
        for command in commands:
            replies += await super().try_all([command])
            if self._generation is not None:
                self._moments.append(await self._stores.snapshot(self._generation))
        return replies

    async def _roll_back(self, lost: int) -> None:
        if self._generation is None or not self._moments:
            return
        del self._moments[max(1, len(self._moments) - lost) :]
        await self._stores.roll_back(self._generation, self._moments[-1])
