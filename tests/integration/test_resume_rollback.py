"""Redis lost its last writes: every reader gets the repaired rest, or `reset` and all of it."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from api.sse import CHAT, NATIVE, Dialect
from shared.connections import Client
from shared.events import EventType
from shared.generation import Surface
from shared.ids import BEGINNING
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, token
from tests.support.fold import RESET_ID, fold, fold_log
from tests.support.fold_chat import fold_chat
from tests.support.follower import End
from tests.support.reading import Reading
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseReader
from tests.support.wait import wait_until

REPAIR_WAIT = timedelta(seconds=0.3)
TOO_LONG = timedelta(minutes=5)
"""A wait for a repair that no test survives."""


@pytest.fixture
async def api(valkey: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API that waits a moment for a repair."""
    async with open_api(valkey.url, repair_wait=REPAIR_WAIT) as api:
        yield api


@pytest.fixture
async def patient_api(valkey: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API that waits for ever for a repair: a reset that comes was sent at once."""
    async with open_api(valkey.url, repair_wait=TOO_LONG) as api:
        yield api


async def cut_hub(api: ApiProcess, client: Client) -> None:
    """End the hub's connection, as a restart of Redis does; it comes back by itself."""
    rows = (await client.call("CLIENT", "LIST", "TYPE", "normal")).decode().splitlines()
    (hub,) = [row for row in rows if " name=rejoin-hub " in row]
    await client.call("CLIENT", "KILL", "ID", hub.split()[0].removeprefix("id="))
    await wait_until(lambda: not api.held.hub.is_tracking, "the hub to lose its connection")
    await wait_until(lambda: api.held.hub.is_tracking, "the hub to track again")


async def test_a_resumed_reader_ahead_of_its_owner_goes_on_after_the_repair(
    patient_api: ApiProcess, client: Client
) -> None:
    """The owner appends the same entries again: the reader waits, forgets nothing, goes on."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("a"))
    past = await author.remember()
    await author.say(token("b"), token("c"))
    cursor = author.last_id
    await author.roll_back(past)
    async with patient_api.follow(author.generation, cursor) as follower:
        await wait_until(lambda: patient_api.held.hub.followed == 1, "the reader to wait")
        await author.repair()
        await author.say(token("d"))
        await author.close()
        events = await follower.read_to_end()

    assert [event.type for event in events] == ["token", "done"]
    assert events[0].data == '{"text":"d"}'


async def test_a_resumed_reader_whose_owner_is_gone_hears_all_of_it_anew(
    api: ApiProcess, client: Client
) -> None:
    """Nobody repairs within lease and mark: the reader is told to forget."""
    author = await Author.create(client)
    await author.claim()
    past = await author.remember()
    await author.say(token("lost"))
    cursor = author.last_id
    await author.roll_back(past)
    async with api.follow(author.generation, cursor) as follower:
        events = await follower.read_n(3)

    assert [event.type for event in events] == ["reset", "queued", "started"]
    assert events[0].last_event_id == RESET_ID


async def test_a_resumed_reader_of_another_epoch_hears_all_of_it_anew_at_once(
    patient_api: ApiProcess, client: Client
) -> None:
    """Only the owner of the cursor's own epoch could repair, and it is not the owner now."""
    author = await Author.create(client)
    past = await author.remember()
    await author.claim()
    await author.say(token("lost"))
    cursor = f"{author.epoch + 10_000}-1"
    await author.roll_back(past)
    await author.claim()
    async with patient_api.follow(author.generation, cursor) as follower:
        assert [event.type for event in await follower.read_n(2)] == ["reset", "queued"]


async def test_a_resumed_reader_whose_end_was_replaced_hears_all_of_it_anew_at_once(
    patient_api: ApiProcess, client: Client
) -> None:
    """The next epoch does not stand on what the reader has: never a silent mixture."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("a"))
    past = await author.remember()
    await author.say(token("lost"))
    cursor = author.last_id
    await author.roll_back(past)
    await author.claim()
    await author.say(token("b"))
    await author.close()
    async with patient_api.follow(author.generation, cursor) as follower:
        reset, *events = await follower.read_to_end()

    assert reset.last_event_id == RESET_ID
    assert fold(events) == fold_log(await author.raw())


async def test_a_connected_reader_does_not_notice_a_repair(
    patient_api: ApiProcess, client: Client
) -> None:
    """Rolled back behind its back and repaired, through a restart of the hub: it just goes on."""
    author = await Author.create(client)
    await author.claim()
    past = await author.remember()
    await author.say(token("a"))
    async with patient_api.follow(author.generation) as follower:
        events = await follower.read_until("token")
        await author.roll_back(past)
        await cut_hub(patient_api, client)
        await author.repair()
        await author.say(token("b"))
        await author.close()
        events += await follower.read_to_end()

    assert "reset" not in [event.type for event in events]
    assert fold(events) == fold_log(await author.raw())


async def test_a_connected_reader_whose_end_was_replaced_hears_all_of_it_anew(
    api: ApiProcess, client: Client
) -> None:
    """Rolled back behind its back and claimed by another, it is told to forget."""
    author = await Author.create(client)
    await author.claim()
    past = await author.remember()
    await author.say(token("lost"))
    async with api.follow(author.generation) as follower:
        events = await follower.read_until("token")
        await author.roll_back(past)
        await author.claim()
        await author.say(token("found"))
        await author.close()
        events += await follower.read_to_end()

    assert fold(events) == fold_log(await author.raw())


async def test_a_connected_reader_is_told_when_redis_comes_back_shorter(
    api: ApiProcess, client: Client
) -> None:
    """The hub compares as it reconnects: the reset comes after the wait for a repair, no later."""
    author = await Author.create(client)
    await author.claim()
    past = await author.remember()
    await author.say(token("lost"))
    async with api.follow(author.generation, timeout_s=2.0) as follower:
        await follower.read_until("token")
        await author.roll_back(past)
        await cut_hub(api, client)
        events = await follower.read_n(2)

    assert [event.type for event in events] == ["reset", "queued"]


async def test_a_connected_reader_is_told_within_a_sweep_if_nothing_else_happens(
    api: ApiProcess, client: Client
) -> None:
    """Both keys went back, and no connection was lost: the sweep compares, every five seconds."""
    author = await Author.create(client)
    await author.claim()
    past = await author.remember()
    await author.say(token("lost"))
    async with api.follow(author.generation, timeout_s=8.0) as follower:
        await follower.read_until("token")
        await author.roll_back(past)
        events = await follower.read_n(2)

    assert [event.type for event in events] == ["reset", "queued"]


async def test_who_joins_after_a_roll_back_hides_it_from_nobody(
    api: ApiProcess, client: Client
) -> None:
    """The process learns of it from the one that joins, before any sweep compares."""
    author = await Author.create(client)
    await author.claim()
    past = await author.remember()
    await author.say(token("lost"))
    async with api.follow(author.generation, timeout_s=8.0) as follower:
        await follower.read_until("token")
        await author.roll_back(past)
        async with api.follow(author.generation) as other:
            await other.read_until("started")
            events = await follower.read_n(2)

    assert [event.type for event in events] == ["reset", "queued"]


async def test_the_response_ends_when_record_and_log_are_gone(
    api: ApiProcess, client: Client
) -> None:
    """What can never be continued is not held open by heartbeats."""
    author = await Author.create(client)
    await author.claim()
    async with api.follow(author.generation, timeout_s=8.0) as follower:
        await follower.read_until("started")
        await author.delete()
        assert await follower.read_to_end() == []
        assert follower.end is End.CLEAN
    async with api.follow(author.generation, follower.last_event_id) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("dialect", "surface"), [(NATIVE, Surface.NATIVE), (CHAT, Surface.CHAT)], ids=["native", "chat"]
)
async def test_a_slow_reader_is_not_given_what_redis_lost(
    api: ApiProcess, client: Client, dialect: Dialect, surface: Surface
) -> None:
    """What the process still remembers of a lost end is not put before what replaced it."""
    author = await Author.create(client, surface)
    await author.claim()
    await author.say(token("a"))
    past = await author.remember()
    reading = Reading(author, surface)
    async with reading.open(api.api_url) as witness:
        await witness.read_until("token")
        view = await api.held.view(author.generation, BEGINNING)
        slow = api.held.tail(author.generation, dialect).frames(view, BEGINNING)
        got = [await anext(slow), await anext(slow)]
        await author.say(token("lost"))
        await witness.read_until("token")
        await author.roll_back(past)
        await author.claim()
        await author.close(EventType.CANCELLED)
        await witness.read_until("reset", "failed")
        got += [piece async for piece in slow]

    events = SseReader().feed(b"".join(got))
    read = fold(events) if surface is Surface.NATIVE else fold_chat(events)
    if read.closing_type == "cancelled":
        assert read.text == fold_log(await author.raw()).text
    else:
        assert [event.data for event in events][-1].startswith('{"code":"cursor_lost"')


async def test_a_chat_reader_that_cannot_go_on_is_told_that_it_failed(
    patient_api: ApiProcess, client: Client
) -> None:
    """This surface cannot say forget: `failed` with the code `cursor_lost`, and the end."""
    author = await Author.create(client, Surface.CHAT)
    await author.claim()
    await author.say(token("a"))
    await author.close()
    reading = Reading(author, Surface.CHAT)
    async with reading.open(patient_api.api_url, f"{author.generation}/{author.epoch}-9") as lost:
        events = await lost.read_to_end()
        assert b"event: failed\ndata:{" in lost.body

    assert [event.type for event in events] == ["failed"]
    assert '"code":"cursor_lost"' in events[0].data
