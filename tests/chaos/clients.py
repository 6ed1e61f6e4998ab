"""Clients that ask, lose their connections at random, come back, and keep what they saw."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tests.chaos.asks import Ask
from tests.support.api_client import ApiClient, Reply, chat_path
from tests.support.fold import CLOSING_TYPES, WIRE_ONLY_TYPES
from tests.support.follower import Follower
from tests.support.sse_reader import Event
from tests.support.wait import wait_until

# Longer than any silence that is allowed: what is too slow is the verdict's to say.
_PATIENCE_S = 40.0
_LONGEST_AWAY_S = 0.4
_LATEST_ARRIVAL_S = 8.0
_EVENTS_PER_CONNECTION = (1, 60)


@dataclass(slots=True)
class Reader:
    """One client's view of one generation, over all its connections."""

    events: list[Event] = field(default_factory=list)
    cursor: str = ""
    connections: int = 0
    has_ended: bool = False
    not_found: int = 0
    """How often it was told that there is no such generation."""
    longest_silence_s: float = 0.0
    """The longest it waited for something to be said, its own absences included."""
    _heard_at: float | None = None

    def listen(self) -> None:
        """From now on it waits."""
        if self._heard_at is None:
            self._heard_at = asyncio.get_running_loop().time()

    def hear(self, event: Event) -> None:
        """Keep one event. A heartbeat says nothing: a stall must not hide behind it."""
        self.events.append(event)
        if event.type in WIRE_ONLY_TYPES:
            return
        now = asyncio.get_running_loop().time()
        self.longest_silence_s = max(self.longest_silence_s, now - (self._heard_at or now))
        self._heard_at = now
        self.has_ended = event.type in CLOSING_TYPES


@dataclass(slots=True)
class Asked:
    """An ask that was accepted, and who reads it."""

    ask: Ask
    generation: str
    readers: list[Reader] = field(default_factory=list)
    cancelled_as: str | None = None
    """The status that the answer to its cancel showed."""


class Clients:
    """All clients of a run; each connection goes to some API process."""

    def __init__(self, addresses: Sequence[str], seed: int) -> None:
        self._addresses = addresses
        self._seed = seed
        self._random = Random(f"{seed}/addresses")
        self.asked: list[Asked] = []
        self.reading: Counter[str] = Counter()
        """How many responses are being read now, by address."""

    async def run(self, ask: Ask) -> Asked:
        """Ask, and read to the end with every reader."""
        if ask.is_chat:
            return await self._run_chat(ask)
        asked = Asked(ask, await self._accepted(ask))
        self.asked.append(asked)
        async with asyncio.TaskGroup() as readers:
            for number in range(ask.readers):
                random = Random(f"{self._seed}/reader/{ask.number}/{number}")
                reader = Reader()
                asked.readers.append(reader)
                readers.create_task(self._read(asked, reader, random, is_first=number == 0))
        return asked

    async def snapshot(self, generation: str) -> Reply:
        """What the API says of a generation in the end."""
        return await ApiClient(self._choose()).call("GET", f"/v1/generations/{generation}")

    def _choose(self) -> str:
        return self._random.choice(self._addresses)

    async def _accepted(self, ask: Ask) -> str:
        reply = await self._insist("/v1/generations", ask.body, ask.key, {202})
        return str(reply.json["id"])

    async def _insist(self, path: str, body: object, key: str | None, statuses: set[int]) -> Reply:
        """Repeat a request until it is answered; only absence and overload are borne with."""
        headers = {"idempotency-key": key} if key is not None else {}

        async def answered() -> Reply | None:
            try:
                reply = await ApiClient(self._choose()).call("POST", path, body, headers)
                assert reply.status in {*statuses, 429, 503}, reply
                if reply.status in statuses and reply.json:
                    return reply
            except (ConnectionError, ValueError):  # away, or torn in the middle of its answer
                pass
            return None

        return await wait_until(answered, f"POST {path} to be answered", _PATIENCE_S)

    async def _read(self, asked: Asked, reader: Reader, random: Random, *, is_first: bool) -> None:
        cancel_after = asked.ask.cancel_after if is_first else None
        if not is_first:
            await _stay_away(random.uniform(0, _LATEST_ARRIVAL_S))
        reader.listen()
        while not reader.has_ended:
            await _stay_away(random.uniform(0, _LONGEST_AWAY_S))
            budget = random.randint(*_EVENTS_PER_CONNECTION)
            if cancel_after is not None:
                budget = max(1, min(budget, cancel_after - len(reader.events)))
            address = self._choose()
            follower = ApiClient(address).follow(
                asked.generation, reader.cursor, timeout_s=_PATIENCE_S
            )
            if await self._read_once(reader, follower, address, random, budget) == 404:
                await self._ask_again(asked, reader)
            elif cancel_after is not None and len(reader.events) >= cancel_after:
                cancel_after = await self._cancel(asked, reader, cancel_after)

    async def _ask_again(self, asked: Asked, reader: Reader) -> None:
        """What a client does whose generation is unknown: the same request with the same key."""
        reader.not_found += 1
        again = await self._accepted(asked.ask)
        assert again == asked.generation, "the same key made another generation"

    async def _cancel(self, asked: Asked, reader: Reader, cancel_after: int) -> int | None:
        path = f"/v1/generations/{asked.generation}/cancel"
        reply = await self._insist(path, None, None, {200, 404})
        if reply.status == 404:
            await self._ask_again(asked, reader)
            return cancel_after
        asked.cancelled_as = str(reply.json["status"])
        return None

    async def _run_chat(self, ask: Ask) -> Asked:
        """One call that creates, streams and resumes, as `EventSource` makes it."""
        random = Random(f"{self._seed}/reader/{ask.number}/0")
        reader, asked = Reader(), None
        reader.listen()
        while not reader.has_ended:
            address = self._choose()
            path = chat_path(ask.prompt, key=ask.key, model=ask.model)
            follower = Follower(address, path, reader.cursor, timeout_s=_PATIENCE_S)
            budget = random.randint(*_EVENTS_PER_CONNECTION)
            status = await self._read_once(reader, follower, address, random, budget)
            if asked is None and reader.cursor:
                asked = Asked(ask, reader.cursor.partition("/")[0], [reader])
                self.asked.append(asked)
            if status == 404:  # `EventSource` gives up for good
                reader.not_found += 1
                reader.has_ended = True
            await _stay_away(random.uniform(0, _LONGEST_AWAY_S))
        assert asked is not None, "a chat ended before it named its generation"
        return asked

    async def _read_once(
        self, reader: Reader, follower: Follower, address: str, random: Random, budget: int
    ) -> int:
        """Read over one connection for a while. Returns its status, 0 if there was none."""
        try:
            async with follower:
                reader.connections += 1
                assert follower.status in (200, 204, 404), follower.status
                reader.has_ended = follower.status == 204
                if follower.status != 200:
                    return follower.status
                self.reading[address] += 1
                try:
                    async for event in follower:
                        reader.hear(event)
                        budget -= 1
                        if reader.has_ended or budget == 0:
                            break
                finally:
                    self.reading[address] -= 1
                    reader.cursor = follower.last_event_id
                if random.random() < 0.5:
                    follower.cut()
        except ConnectionError:
            pass
        return follower.status


async def _stay_away(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    back_at = loop.time() + seconds
    await wait_until(lambda: loop.time() >= back_at, "the client to come back", _PATIENCE_S)
