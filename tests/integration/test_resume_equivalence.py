"""Resume equivalence: whatever was said, and wherever its readers were cut, all hold the log.

The window is so small that readers fall out of it, and some logs are longer than a page of
history and than a read of the hub.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import chain, cycle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.connections import Client
from shared.events import Event, EventType
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, token
from tests.support.fold import check_ids, fold, fold_log
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import Event as Seen
from tests.support.wait import next_turn

WINDOW_BYTES = 1_500

texts = st.lists(
    st.sampled_from(["a", " ", "\n", "\r", "é", "😀", '"', "\\", "\u2028", "\x00", "data: ", ":"]),
    min_size=1,
    max_size=4,
).map("".join)
pieces = st.one_of(
    texts.map(token),
    st.builds(
        lambda kind, text: Event(kind, {"text": text}),
        st.sampled_from([EventType.REASONING, EventType.REFUSAL]),
        texts,
    ),
    st.builds(
        lambda index, text: Event(
            EventType.TOOL_CALL, {"index": index, "name": "f", "arguments": text}
        ),
        st.integers(0, 2),
        texts,
    ),
    st.just(Event(EventType.RETRYING, {"attempt": 1, "reason": "status_429", "delay_ms": 1})),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ownership of the log: whether it makes readers forget, and what it says, in steps."""

    reset: bool
    batches: list[list[Event]]


def long_batch(count: int) -> list[Event]:
    return [token(f"{i} ") for i in range(count)]


batches = st.lists(
    st.one_of(
        st.lists(pieces, min_size=1, max_size=5),
        st.sampled_from([30, 120, 700]).map(long_batch),
    ),
    max_size=4,
)
attempts = st.lists(st.builds(Attempt, st.booleans(), batches), min_size=1, max_size=3)
closings = st.sampled_from([EventType.DONE, EventType.CANCELLED, EventType.FAILED])
cuts = st.lists(st.integers(0, 6), max_size=5)
"""After how many events a reader's connections are cut; then it reads to the end."""


async def write(author: Author, story: list[Attempt], closing: EventType) -> None:
    for attempt in story:
        await author.claim(reset=attempt.reset)
        for batch in attempt.batches:
            await author.say(*batch)
            await next_turn()
    data = {"code": "stall", "message": "It stopped.", "retryable": True}
    await author.close(closing, data if closing is EventType.FAILED else {})


async def read(api: ApiProcess, author: Author, cut_after: list[int]) -> list[Seen]:
    """What one reader sees over all its connections."""
    seen: list[Seen] = []
    cursor = ""
    for count in chain(cut_after, cycle([None])):
        async with api.follow(author.generation, cursor) as follower:
            if follower.status == 204:
                return seen
            assert follower.status == 200
            while count is None or len(follower.events) < count:
                if await anext(follower, None) is None:
                    return [*seen, *follower.events]
            follower.cut()
            seen += follower.events
            cursor = follower.last_event_id
    raise AssertionError("a cycle has no end")


@pytest.fixture
async def narrow_api(valkey: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API that keeps next to nothing of a log in memory."""
    async with open_api(valkey.url, window=WINDOW_BYTES) as api:
        yield api


@given(
    story=attempts,
    closing=closings,
    early=st.lists(cuts, min_size=1, max_size=2),
    late=st.lists(cuts, min_size=1, max_size=2),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_what_a_reader_got_is_the_log_wherever_it_was_cut(
    narrow_api: ApiProcess,
    client: Client,
    story: list[Attempt],
    closing: EventType,
    early: list[list[int]],
    late: list[list[int]],
) -> None:
    """Readers who were there while it was written, and who came after, fold to the log's fold."""
    author = await Author.create(client)
    async with asyncio.TaskGroup() as tasks:
        live = [tasks.create_task(read(narrow_api, author, each)) for each in early]
        await write(author, story, closing)
    seen = [task.result() for task in live]
    seen += [await read(narrow_api, author, each) for each in late]

    said = fold_log(await author.raw())
    for events in seen:
        check_ids([event.last_event_id for event in events])
        assert said == fold(events)
