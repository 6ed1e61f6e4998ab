"""What the guard of an append costs Redis, beside a bare XADD.

Server time only: what the commands took (`INFO commandstats`), and the processor time of the whole
server process for the same, with parsing and sockets. Every command goes to another log than the
one before, in pipelines, as a worker with many generations sends them.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from shared.connections import Client
from shared.event_log import AppendReply, EventLog
from shared.events import Entry, EventType, encode_data
from shared.generation import Order, Surface
from shared.generation_store import GenerationStore
from shared.ids import EntryId, GenerationId, draw_generation_id
from shared.keys import Keys
from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.process_cost import Cores, pin, processor_seconds, share_out_cores
from tests.bench.table import cell
from tests.support.redis_server import Kind, RedisServer, open_redis_server, server_binary
from tests.support.stack import user

LOGS = 64
"""Commands in a pipeline, each for a log of its own."""

JOINED = 8
"""Entries of one generation that gathered while the last pipeline was in flight."""

_ENTRIES = 400_000
_ENTRIES_QUICK = 64_000

_TEXT = encode_data({"text": " lighthouse"})
_HOUR = timedelta(hours=1)

Pour = Callable[[int], Awaitable[None]]
"""Add one command's entries to every log; given how many each has by now."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of Redis for one entry."""

    command: float
    """In the command, scripts with all they call."""
    process: float
    """Of the server's process."""


class Logs:
    """Claimed logs and bare streams on one server."""

    def __init__(self, server: RedisServer, connection: Any) -> None:
        self.server = server
        self._connection = connection
        self._client = Client(connection)
        self._keys = Keys()
        self._log = EventLog(self._client, self._keys)
        self._claimed: list[tuple[GenerationId, str, EntryId]] = []

    async def claim(self) -> None:
        """Make fresh logs, as a worker owns them."""
        store = GenerationStore(self._client, self._keys)
        self._claimed = []
        for number in range(LOGS):
            generation = draw_generation_id()
            request = {"messages": user("How much is an append?")}
            await store.create(
                generation, Order(request, "default", Surface.NATIVE, _HOUR, _HOUR, _HOUR)
            )
            seen = (await store.record(generation)).epoch
            token = f"bench/{number}"
            started = {"attempt": 1, "model": "standin", "resume": "fresh"}
            claim = await store.claim(
                generation, seen_epoch=seen, token=token, started=started, reset=False
            )
            self._claimed.append((generation, token, claim.last_id))

    async def pour_bare(self, before: int) -> None:
        """One XADD for each stream; the ids are chosen here too, and nothing is guarded."""
        commands = [
            ("XADD", f"bare:{generation}", f"{last.epoch}-{before + 1}", "t", "token", "d", _TEXT)
            for generation, _, last in self._claimed
        ]
        await self._client.call_all(commands)

    def pour_guarded(self, count: int) -> Pour:
        """One guarded append of `count` entries for each log."""

        async def pour(before: int) -> None:
            commands, ends = [], []
            for generation, token, last in self._claimed:
                ids = [EntryId(last.epoch, last.seq + before + n + 1) for n in range(count)]
                entries = [Entry(entry_id, EventType.TOKEN, _TEXT) for entry_id in ids]
                commands.append(self._log.append_command(generation, token, ids[0], entries))
                ends.append(ids[-1])
            for reply, end in zip(await self._log.send(commands), ends, strict=True):
                if not isinstance(reply, AppendReply) or reply.last_id != end:
                    raise AssertionError(f"the log was to end with {end}: {reply}")

        return pour

    async def measure(self, pour: Pour, command: str, count: int, entries: int) -> Cost:
        """Pour `entries` into fresh logs, `count` a command."""
        await self.claim()
        await pour(0)  # the server learns the script, the allocator the sizes
        spent, busy = await self._spent(command), processor_seconds(self.server.pid)
        rounds = max(1, entries // (LOGS * count))
        for done in range(1, rounds + 1):
            await pour(done * count)
        busy = processor_seconds(self.server.pid) - busy
        spent = await self._spent(command) - spent
        await self._connection.flushall()
        poured = rounds * LOGS * count
        return Cost(spent / poured, busy / poured * 1e6)

    async def _spent(self, command: str) -> int:
        """Microseconds that all calls of a command took so far, what they call included."""
        stats = await self._connection.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {"usec": 0})["usec"])


@asynccontextmanager
async def _open_logs(kind: Kind, cores: frozenset[int]) -> AsyncIterator[Logs]:
    async with open_redis_server(kind) as server:
        pin(server.process, cores)
        connection: Redis
        async with server.client(single_connection_client=True) as connection:
            yield Logs(server, connection)


async def _measure_server(kind: Kind, cores: Cores, scale: Scale) -> dict[str, list[Cost]]:
    """Every way, alternating."""
    entries = _ENTRIES if scale == FULL else _ENTRIES_QUICK
    async with _open_logs(kind, cores.tested) as logs:
        ways: list[tuple[str, Pour, str, int]] = [
            ("bare XADD", logs.pour_bare, "xadd", 1),
            ("guarded, 1 entry a command", logs.pour_guarded(1), "evalsha", 1),
            (f"guarded, {JOINED} entries", logs.pour_guarded(JOINED), "evalsha", JOINED),
        ]
        costs: dict[str, list[Cost]] = {name: [] for name, *_ in ways}
        for _ in range(scale.runs):
            for name, pour, command, count in ways:
                costs[name].append(await logs.measure(pour, command, count, entries))
    return costs


async def measure(scale: Scale) -> Result:
    """Append in three ways on every kind of server there is."""
    kinds: list[Kind] = ["valkey"]
    if shutil.which("redis-server") is not None:
        kinds.append("redis")
    with share_out_cores() as cores:
        servers = {_name(kind): await _measure_server(kind, cores, scale) for kind in kinds}
    ways = list(next(iter(servers.values())))
    notes = [
        "In each cell: in the command itself / of the whole server process, parsing and sockets"
        f" included; the median over {scale.runs} runs (least to most).",
        f"Pipelines of {LOGS} commands, each for another log; an entry is one token of"
        f" {len(_TEXT)} bytes of JSON.",
    ]
    if "redis" not in kinds:
        notes.append("Debian's redis-server is not installed here: not measured.")
    return Result(
        columns=["µs of Redis for one entry", *ways],
        rows=[[server, *(_cell(costs[way]) for way in ways)] for server, costs in servers.items()],
        notes=notes,
        data={
            "servers": {
                server: {way: [asdict(cost) for cost in runs] for way, runs in costs.items()}
                for server, costs in servers.items()
            }
        },
    )


def _name(kind: Kind) -> str:
    """What the server says of its version: `Valkey server v=9.1.2 …`, the first three words."""
    said = subprocess.run(
        [server_binary(kind), "--version"], capture_output=True, text=True, check=True
    )
    return " ".join(said.stdout.split()[:3])


def _cell(runs: Sequence[Cost]) -> str:
    command = cell([cost.command for cost in runs], ".1f")
    return f"{command} / {cell([cost.process for cost in runs], '.1f')}"


LINE = Line("append-cost", "What does the guard of an append cost Redis?", measure)
