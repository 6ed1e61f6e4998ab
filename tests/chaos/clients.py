"""Clients that ask, lose their connections at random, come back, and keep what they saw."""

import asyncio
from dataclasses import dataclass, field
from random import Random

from tests.chaos.asks import Ask
from tests.support.api_client import ApiClient, Reply
from tests.support.fold import CLOSING_TYPES
from tests.support.sse_reader import Event
from tests.support.wait import wait_until

# Longer than any stall that is allowed: what is too slow is the verdict's to say.
_PATIENCE_S = 30.0
_LONGEST_AWAY_S = 0.4
_EVENTS_PER_CONNECTION = (1, 60)


@dataclass(slots=True)
class Reader:
    """One client's view of one generation, over all its connections."""

    events: list[Event] = field(default_factory=list)
    connections: int = 0
    has_ended: bool = False


@dataclass(slots=True)
class Asked:
    """An ask that was accepted, and who reads it."""

    ask: Ask
    generation: str
    readers: list[Reader] = field(default_factory=list)


class Clients:
    """All clients of a run, at one address."""

    def __init__(self, api_url: str, seed: int) -> None:
        self._api = ApiClient(api_url)
        self._seed = seed
        self.asked: list[Asked] = []
        self.reading = 0
        """How many responses are being read now."""

    async def run(self, ask: Ask) -> None:
        """Ask, and read to the end with every reader."""
        accepted = await self._insist("/v1/generations", {"prompt": ask.prompt}, ask.key, 202)
        asked = Asked(ask, accepted.json["id"])
        self.asked.append(asked)
        async with asyncio.TaskGroup() as readers:
            for number in range(ask.readers):
                random = Random(f"{self._seed}/reader/{ask.number}/{number}")
                reader = Reader()
                asked.readers.append(reader)
                cancel_after = ask.cancel_after if number == 0 else None
                readers.create_task(self._read(asked.generation, reader, random, cancel_after))

    async def snapshot(self, generation: str) -> Reply:
        """What the API says of a generation in the end."""
        return await self._api.call("GET", f"/v1/generations/{generation}")

    async def _insist(self, path: str, body: object, key: str | None, status: int) -> Reply:
        """Repeat a request until it is answered; only absence and overload are borne with."""
        headers = {"idempotency-key": key} if key is not None else {}

        async def answered() -> Reply | None:
            try:
                reply = await self._api.call("POST", path, body, headers)
                assert reply.status in (status, 429, 503), reply
                if reply.status == status and reply.json:
                    return reply
            except (ConnectionError, ValueError):  # away, or torn in the middle of its answer
                pass
            return None

        return await wait_until(answered, f"POST {path} to be answered", _PATIENCE_S)

    async def _read(
        self, generation: str, reader: Reader, random: Random, cancel_after: int | None
    ) -> None:
        cursor = ""
        while not reader.has_ended:
            await _stay_away(random.uniform(0, _LONGEST_AWAY_S))
            budget = random.randint(*_EVENTS_PER_CONNECTION)
            follower = self._api.follow(generation, cursor, timeout_s=_PATIENCE_S)
            try:
                async with follower:
                    reader.connections += 1
                    assert follower.status in (200, 204), follower.status
                    reader.has_ended = follower.status == 204
                    self.reading += 1
                    try:
                        async for event in follower:
                            reader.events.append(event)
                            reader.has_ended = event.type in CLOSING_TYPES
                            budget -= 1
                            if reader.has_ended or budget == 0 or cancel_after is not None:
                                break
                    finally:
                        self.reading -= 1
                    cursor = follower.last_event_id
                    if random.random() < 0.5:
                        follower.cut()
            except ConnectionError:
                continue
            if cancel_after is not None and len(reader.events) >= cancel_after:
                await self._insist(f"/v1/generations/{generation}/cancel", None, None, 200)
                cancel_after = None


async def _stay_away(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    back_at = loop.time() + seconds
    await wait_until(lambda: loop.time() >= back_at, "the client to come back", _PATIENCE_S)
