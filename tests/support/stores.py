"""Log, record and queue over one Redis, and what tests do to them behind the code's back.

A roll-back is what a Redis does that lost its last writes: record and log of a generation are
again what they were at one earlier moment, both of the same one, since a script is replayed whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import fakeredis
import redis.asyncio

from shared.connections import Client, Command
from shared.event_log import AppendReply, EventLog
from shared.events import Entry, EventType, encode_data
from shared.generation import Order, Surface
from shared.generation_store import Claim, GenerationStore
from shared.ids import EntryId, GenerationId, draw_generation_id
from shared.keys import OWNER_PREFIX, Keys
from shared.queue import Queue
from tests.support.fold import raw_entries

ORDER = Order(
    request={"messages": [{"role": "user", "content": "Hello"}], "model": "m"},
    tenant="default",
    surface=Surface.NATIVE,
    queue_timeout=timedelta(minutes=5),
    generation_timeout=timedelta(minutes=15),
    retention=timedelta(hours=1),
)

RawEntry = tuple[bytes, Mapping[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything Redis holds of one generation, as it was at one moment."""

    fields: Mapping[bytes, bytes]
    entries: Sequence[RawEntry]
    lifetime_ms: int


def tokens(last: EntryId, *texts: str) -> list[Entry]:
    """Token entries that stand on `last`, in its epoch."""
    return [
        Entry(EntryId(last.epoch, last.seq + i), EventType.TOKEN, encode_data({"text": text}))
        for i, text in enumerate(texts, start=1)
    ]


class Stores:
    """What an API process and a worker have of one Redis."""

    def __init__(self, connection: redis.asyncio.Redis, client: Client | None = None) -> None:
        # fakeredis has no `#!lua` lines.
        is_fake = isinstance(connection, fakeredis.FakeAsyncRedis)
        self.client = client or Client(connection, script_flags=not is_fake)
        self.keys = Keys("test:")
        self.log = EventLog(self.client, self.keys)
        self.store = GenerationStore(self.client, self.keys)
        self.queue = Queue(self.client, self.keys)

    # --- short ways through the code under test ---------------------------------------------

    async def create(self, **changes: Any) -> GenerationId:
        """A queued generation with an id of its own."""
        generation = draw_generation_id()
        await self.store.create(generation, replace(ORDER, **changes))
        return generation

    async def claim(self, generation: GenerationId, token: str, *, reset: bool = False) -> Claim:
        """A claim by the rules: the epoch is read first."""
        record = await self.store.record(generation)
        started = {"attempt": record.attempts + 1, "model": "m", "resume": "fresh"}
        return await self.store.claim(
            generation, seen_epoch=record.epoch, token=token, started=started, reset=reset
        )

    async def append(
        self, generation: GenerationId, token: str, entries: Sequence[Entry]
    ) -> AppendReply:
        """One append on its own."""
        command = self.log.append_command(generation, token, entries[0].id, entries)
        (reply,) = await self.log.send([command])
        assert isinstance(reply, AppendReply), reply
        return reply

    async def close(
        self, generation: GenerationId, token: str, closing: Entry, usage: bytes = b""
    ) -> AppendReply:
        """One close on its own."""
        (reply,) = await self.log.send([self.log.close_command(generation, token, closing, usage)])
        assert isinstance(reply, AppendReply), reply
        return reply

    # --- what Redis holds -------------------------------------------------------------------

    async def fields(self, generation: GenerationId) -> dict[bytes, bytes]:
        """The record as it lies there."""
        fields: dict[bytes, bytes] = await self.client.call("HGETALL", self.keys.record(generation))
        return dict(fields)

    async def entries(self, generation: GenerationId) -> list[RawEntry]:
        """The whole log as it lies there, in the shape `tests.support.fold` takes."""
        rows = await self.client.call("XRANGE", self.keys.log(generation), "-", "+")
        return raw_entries(rows)

    async def kinds(self, generation: GenerationId) -> list[str]:
        """The types of all entries, in order."""
        return [fields[b"t"].decode() for _, fields in await self.entries(generation)]

    async def lifetimes_ms(self, generation: GenerationId) -> tuple[int, int]:
        """What is left of record and log; -1: for ever, -2: not there."""
        record, log = self.keys.record(generation), self.keys.log(generation)
        left = await self.client.call_all((("PTTL", record), ("PTTL", log)))
        return int(left[0]), int(left[1])

    async def all_keys(self) -> set[bytes]:
        """The names of all keys."""
        return set(await self.client.call("KEYS", "*"))

    async def now_ms(self) -> int:
        """Redis' clock."""
        seconds, micros = await self.client.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def due_ms(self, generation: GenerationId) -> int | None:
        """When a job is due, counted from Redis' now; None if it is not queued."""
        score = await self.client.call("ZSCORE", self.keys.queue, generation)
        return None if score is None else round(float(score)) - await self.now_ms()

    async def owner(self, generation: GenerationId) -> str | None:
        """What the owner key of a job says."""
        token = await self.client.call("GET", OWNER_PREFIX + generation)
        return None if token is None else token.decode()

    # --- time and loss ----------------------------------------------------------------------

    async def pass_deadline(self, generation: GenerationId) -> None:
        """Let the deadline of a generation lie behind us."""
        past = await self.now_ms() - 1
        await self.client.call("HSET", self.keys.record(generation), "deadline", past)

    async def make_due(self, generation: GenerationId) -> None:
        """Let a job's delay, lease or mark lie behind us."""
        past = await self.now_ms() - 1
        await self.client.call("ZADD", self.keys.queue, past, generation)

    async def snapshot(self, generation: GenerationId) -> Snapshot:
        """What a roll-back may return to."""
        lifetime_ms, _ = await self.lifetimes_ms(generation)
        return Snapshot(await self.fields(generation), await self.entries(generation), lifetime_ms)

    async def roll_back(self, generation: GenerationId, snapshot: Snapshot) -> None:
        """Have Redis forget everything since `snapshot`, without a moment in between."""
        record, log = self.keys.record(generation), self.keys.log(generation)
        commands: list[Command] = [("DEL", record, log), ("HSET", record, *_flat(snapshot.fields))]
        commands += [("XADD", log, raw_id, *_flat(row)) for raw_id, row in snapshot.entries]
        commands += [("PEXPIRE", key, snapshot.lifetime_ms) for key in (record, log)]
        await self.client.call_all(commands, atomic=True)


def _flat(fields: Mapping[bytes, bytes]) -> list[bytes]:
    return [part for pair in fields.items() for part in pair]
