"""A random walk of append, claim, roll-back, repair and visits: no reader is ever silently wrong.

Visits are short: a reader comes with its cursor, reads some of what there is, and is cut. What it
did not see happen while it was away is where a resume goes wrong.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.connections import Client
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, Past, token
from tests.support.fold import fold, fold_log
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import Event

READERS = 3
WINDOW_BYTES = 1_500


@dataclass(frozen=True, slots=True)
class Say:
    count: int


@dataclass(frozen=True, slots=True)
class Claim:
    reset: bool


@dataclass(frozen=True, slots=True)
class Visit:
    reader: int
    events: int


@dataclass(frozen=True, slots=True)
class LoseWrites:
    """Go back over some steps; a visit later, the owner repairs, or somebody else claims."""

    steps: int
    visit_between: Visit | None
    repair: bool


visits = st.builds(Visit, st.integers(0, READERS - 1), st.integers(0, 8))
steps = st.lists(
    st.one_of(
        st.builds(Say, st.integers(1, 3)),
        st.builds(Claim, st.booleans()),
        visits,
        st.builds(LoseWrites, st.integers(1, 4), st.none() | visits, st.booleans()),
    ),
    min_size=3,
    max_size=25,
)


@dataclass(slots=True)
class Walk:
    """One log, its readers, and the states that Redis can fall back to."""

    api: ApiProcess
    author: Author
    seen: list[list[Event]] = field(default_factory=lambda: [[] for _ in range(READERS)])
    cursors: list[str] = field(default_factory=lambda: [""] * READERS)
    pasts: list[Past] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)
    words: int = 0

    async def take(self, step: Say | Claim | Visit | LoseWrites) -> None:
        match step:
            case Visit():
                await self.visit(step)
                return
            case LoseWrites():
                await self.lose_writes(step)
            case Say(count):
                await self.say(count)
            case Claim(reset):
                await self.claim(reset)
        self.pasts.append(await self.author.remember())

    async def say(self, count: int) -> None:
        """Never the same word twice, so that nothing lost or doubled can look right."""
        words = range(self.words, self.words + count)
        self.words += count
        await self.author.say(*[token(f"{word}\n") for word in words])

    async def claim(self, reset: bool) -> None:
        """Once more where an epoch that Redis lost was drawn again.

        Outside of tests a restart takes longer than the second over which epochs are drawn.
        """
        await self.author.claim(reset=reset)
        while self.author.epoch in self.epochs:
            await self.author.claim(reset=reset)
        self.epochs.add(self.author.epoch)

    async def lose_writes(self, step: LoseWrites) -> None:
        kept = max(len(self.pasts) - step.steps, 1)
        del self.pasts[kept:]
        await self.author.roll_back(self.pasts[-1])
        if step.visit_between is not None:
            await self.visit(step.visit_between)
        if step.repair and await self.author.holds():
            await self.author.repair()
        else:
            await self.claim(reset=False)

    async def visit(self, step: Visit) -> None:
        (last_id, _) = (await self.author.raw())[-1]
        follower = self.api.follow(self.author.generation, self.cursors[step.reader])
        async with follower:
            assert follower.status == 200
            while len(follower.events) < step.events and follower.last_event_id != last_id.decode():
                assert await anext(follower, None) is not None
            follower.cut()
        self.seen[step.reader] += follower.events
        self.cursors[step.reader] = follower.last_event_id

    async def end(self) -> None:
        """Close the log; every reader comes once more and reads to the end."""
        await self.author.close()
        for i, cursor in enumerate(self.cursors):
            async with self.api.follow(self.author.generation, cursor) as follower:
                self.seen[i] += await follower.read_to_end()


@pytest.fixture
async def narrow_api(valkey: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API that remembers next to nothing of a log and waits for a repair only a moment."""
    wait = timedelta(milliseconds=20)
    async with open_api(valkey.url, window=WINDOW_BYTES, repair_wait=wait) as api:
        yield api


@given(steps=steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_no_reader_is_silently_wrong_whatever_redis_lost(
    narrow_api: ApiProcess, client: Client, steps: list[Say | Claim | Visit | LoseWrites]
) -> None:
    """After any walk, what each reader was told, folded, is what the log says in the end."""
    walk = Walk(narrow_api, await Author.create(client))
    await walk.claim(False)
    walk.pasts.append(await walk.author.remember())
    for step in steps:
        await walk.take(step)
    await walk.end()

    said = fold_log(await walk.author.raw())
    for seen in walk.seen:
        assert fold(seen) == said
