"""A log written by hand, entry by entry, through the scripts that a worker uses.

author = await Author.create(client)
await author.claim()
await author.say(token("Hel"), token("lo"))
await author.close()
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from shared.connections import Client
from shared.event_log import AppendReply, EventLog
from shared.events import Entry, Event, EventType, encode_data
from shared.generation import Order, Surface
from shared.generation_store import ClaimOutcome, GenerationStore
from shared.ids import EntryId, GenerationId, draw_generation_id
from shared.keys import Keys
from tests.support.fold import Entry as RawEntry
from tests.support.fold import raw_entries

_LIFE = timedelta(minutes=10)


def token(text: str) -> Event:
    """Some text of the answer."""
    return Event(EventType.TOKEN, {"text": text})


@dataclass(frozen=True, slots=True)
class Past:
    """Record and log as they were: what a Redis that lost its last writes goes back to."""

    record: bytes
    log: bytes


class Author:
    """One generation and its one writer."""

    def __init__(self, client: Client, generation: GenerationId) -> None:
        self.generation = generation
        self.epoch = 0
        self.entries: list[Entry] = []
        """What was said in this epoch, under the ids it has."""
        self._client = client
        self._keys = Keys()
        self._log = EventLog(client, self._keys)
        self._store = GenerationStore(client, self._keys)
        self._token = ""
        self._next = EntryId(0, 0)

    @classmethod
    async def create(cls, client: Client, surface: Surface = Surface.NATIVE) -> Self:
        """A generation that is queued; no job goes with it."""
        author = cls(client, draw_generation_id())
        request = {"messages": [{"role": "user", "content": "written by hand"}]}
        order = Order(request, "default", surface, _LIFE, _LIFE, _LIFE)
        await author._store.create(author.generation, order)
        return author

    @property
    def last_id(self) -> str:
        """The newest id of this epoch."""
        return f"{self.epoch}-{self._next.seq - 1}"

    async def claim(self, *, reset: bool = False) -> None:
        """Own the log, in a new epoch; `reset` makes readers forget what was said before."""
        record = await self._store.record(self.generation)
        self._token = f"author/{secrets.token_hex(8)}"
        resume = "restart" if reset else "fresh"
        claim = await self._store.claim(
            self.generation,
            seen_epoch=record.epoch,
            token=self._token,
            started={"attempt": record.attempts + 1, "model": "by hand", "resume": resume},
            reset=reset,
        )
        assert claim.outcome is ClaimOutcome.CLAIMED, claim
        self.epoch = claim.last_id.epoch
        self.entries = []
        self._next = claim.last_id.successor

    async def say(self, *events: Event) -> None:
        """Append, in one step."""
        entries = [
            Entry(EntryId(self.epoch, self._next.seq + i), event.type, encode_data(event.data))
            for i, event in enumerate(events)
        ]
        await self.append(entries)
        self.entries.extend(entries)
        self._next = entries[-1].id.successor

    async def append(self, entries: list[Entry]) -> None:
        """Append entries that have their ids: what an owner does again after Redis lost them."""
        first = entries[0].id
        command = self._log.append_command(self.generation, self._token, first, entries)
        reply = await self._send(command)
        assert reply.last_id >= entries[-1].id, f"refused: {reply}"

    async def holds(self) -> bool:
        """Whether the record names this epoch: Redis did not lose the claim."""
        return (await self._store.record(self.generation)).epoch == self.epoch

    async def repair(self) -> None:
        """Append what Redis lost of this epoch: the same entries, under the same ids."""
        view = await self._log.view(self.generation)
        lost = [entry for entry in self.entries if entry.id > view.last_id]
        if lost:
            await self.append(lost)

    async def close(
        self, closing: EventType = EventType.DONE, data: dict[str, Any] | None = None
    ) -> None:
        """End the log."""
        if data is None:
            data = {"finish_reason": "stop", "usage": None} if closing is EventType.DONE else {}
        entry = Entry(self._next, closing, encode_data(data))
        reply = await self._send(self._log.close_command(self.generation, self._token, entry, b""))
        assert reply.last_id == entry.id, f"refused: {reply}"
        self._next = entry.id.successor

    async def _send(self, command: tuple[str | bytes | int, ...]) -> AppendReply:
        (reply,) = await self._log.send([command])
        assert isinstance(reply, AppendReply), reply
        return reply

    # --- what the store holds ---------------------------------------------------------------

    @property
    def _both(self) -> tuple[str, str]:
        return self._keys.record(self.generation), self._keys.log(self.generation)

    async def raw(self) -> list[RawEntry]:
        """The whole raw log, for the oracles of tests.support.fold."""
        rows = await self._client.call("XRANGE", self._keys.log(self.generation), "-", "+")
        return raw_entries(rows)

    async def remember(self) -> Past:
        """Record and log as they are now."""
        record, log = await self._client.call_all([("DUMP", key) for key in self._both])
        return Past(record, log)

    async def roll_back(self, past: Past) -> None:
        """Make the store forget what happened since: both keys at once, as a lost tail does."""
        life_ms = round(_LIFE.total_seconds() * 1000)
        dumps = zip(self._both, (past.record, past.log), strict=True)
        await self._client.call_all(
            [("RESTORE", key, life_ms, dump, "REPLACE") for key, dump in dumps], atomic=True
        )

    async def delete(self) -> None:
        """Remove record and log, as retention or a FLUSHALL does."""
        await self._client.call("DEL", *self._both)
