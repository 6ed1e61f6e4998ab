"""Where a log stands in its provider's answer: noted with the entries, or not at all; and found
again by whoever comes next, after the end too."""

from collections.abc import Awaitable, Callable

import pytest

from shared.event_log import AppendReply
from shared.events import Entry, EventType
from shared.failures import WORKER_LOST
from shared.generation import State, Upstream
from shared.generation_store import ClaimOutcome, Leftover
from shared.ids import EntryId, GenerationId, draw_generation_id
from tests.support.stores import Stores, tokens

RUN = Upstream("resp_1", 7)
NAMED = Upstream("resp_1", None)


async def running(stores: Stores) -> tuple[GenerationId, EntryId]:
    """A generation that `w/1` holds, and the id its next entry stands on."""
    generation = await stores.create()
    return generation, (await stores.claim(generation, "w/1")).last_id


async def append(
    stores: Stores,
    generation: GenerationId,
    last: EntryId,
    *texts: str,
    at: Upstream | None,
    notes: bool = True,
) -> AppendReply:
    """Append behind `last`, noting where that stands; without texts it is a look."""
    entries = tokens(last, *texts)
    command = stores.log.append_command(
        generation, "w/1", last.successor, entries, at, notes_upstream=notes
    )
    (reply,) = await stores.log.send([command])
    assert isinstance(reply, AppendReply), reply
    return reply


async def upstream(stores: Stores, generation: GenerationId) -> Upstream | None:
    return (await stores.store.record(generation)).upstream


async def contents(stores: Stores, generation: GenerationId) -> object:
    now = await stores.snapshot(generation)
    return now.fields, now.entries


# --- noted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [None, 0, 7, 2**53, 10**15])
async def test_an_append_notes_where_it_stands(stores: Stores, at: int | None) -> None:
    """Name and number are read back as they were given; 0 is a number."""
    generation, last = await running(stores)
    assert await upstream(stores, generation) is None
    reply = await append(stores, generation, last, "a", "b", at=Upstream("resp_1", at))
    assert reply == AppendReply(State.RUNNING, True, last.epoch, EntryId(last.epoch, 2))
    assert await upstream(stores, generation) == Upstream("resp_1", at)


async def test_an_append_that_notes_nothing_leaves_what_was_noted(stores: Stores) -> None:
    """Whoever knows of no answer says nothing of one."""
    generation, last = await running(stores)
    reply = await append(stores, generation, last, "a", at=RUN)
    await append(stores, generation, reply.last_id, "b", at=None, notes=False)
    assert await upstream(stores, generation) == RUN


async def test_what_is_over_is_noted_as_nothing(stores: Stores) -> None:
    """There is nothing to go on with any more; a name after that is a new one."""
    generation, last = await running(stores)
    reply = await append(stores, generation, last, "a", at=RUN)
    reply = await append(stores, generation, reply.last_id, at=None)
    assert await upstream(stores, generation) is None
    await append(stores, generation, reply.last_id, at=Upstream("resp_2", None))
    assert await upstream(stores, generation) == Upstream("resp_2", None)


async def test_a_look_notes_and_writes_no_entry(stores: Stores) -> None:
    """An answer is named before its first token."""
    generation, last = await running(stores)
    before = await stores.entries(generation)
    lifetimes = await stores.lifetimes_ms(generation)
    reply = await append(stores, generation, last, at=NAMED)
    assert reply == AppendReply(State.RUNNING, True, last.epoch, last)
    assert await upstream(stores, generation) == NAMED
    assert await stores.entries(generation) == before
    for left, was in zip(await stores.lifetimes_ms(generation), lifetimes, strict=True):
        assert left <= was


async def test_a_look_that_notes_nothing_changes_nothing(stores: Stores) -> None:
    """It only tells."""
    generation, last = await running(stores)
    await append(stores, generation, last, at=NAMED)
    before = await contents(stores, generation)
    reply = await append(stores, generation, last, at=None, notes=False)
    assert reply == AppendReply(State.RUNNING, True, last.epoch, last)
    assert await contents(stores, generation) == before


# --- refused ------------------------------------------------------------------------------------


Happening = Callable[[Stores, GenerationId], Awaitable[None]]


async def _fenced(stores: Stores, generation: GenerationId) -> None:
    await stores.claim(generation, "v/1")


async def _token_of_another(stores: Stores, generation: GenerationId) -> None:
    key = stores.keys.record(generation)
    await stores.client.call("HSET", key, "token", "v/1")


async def _closed(stores: Stores, generation: GenerationId) -> None:
    await stores.store.cancel(generation)


async def _tail_lost(stores: Stores, generation: GenerationId) -> None:
    last_id, _ = (await stores.entries(generation))[-1]
    await stores.client.call("XDEL", stores.keys.log(generation), last_id)


async def _tail_grown(stores: Stores, generation: GenerationId) -> None:
    last = (await stores.log.view(generation)).last_id
    await append(stores, generation, last, "more", at=Upstream("resp_1", 8))


@pytest.mark.parametrize("texts", [(), ("late",)], ids=["look", "append"])
@pytest.mark.parametrize("happens", [_fenced, _token_of_another, _closed, _tail_lost, _tail_grown])
async def test_what_is_refused_notes_nothing(
    stores: Stores, happens: Happening, texts: tuple[str, ...]
) -> None:
    """Neither a zombie nor a repeat, late by a step, moves the position of the log."""
    generation, last = await running(stores)
    last = (await append(stores, generation, last, "a", "b", at=RUN)).last_id
    await happens(stores, generation)
    before = await contents(stores, generation)
    for at in (Upstream("resp_1", 9), Upstream("resp_2", None), None):
        await append(stores, generation, last, *texts, at=at)
        assert await contents(stores, generation) == before


async def test_a_repeat_of_an_older_append_does_not_take_the_position_back(
    stores: Stores,
) -> None:
    """A request that was sent twice may arrive long after the first."""
    generation, last = await running(stores)
    reply = await append(stores, generation, last, "a", at=RUN)
    await append(stores, generation, reply.last_id, "b", at=Upstream("resp_1", 8))
    await append(stores, generation, last, "a", at=RUN)
    assert await upstream(stores, generation) == Upstream("resp_1", 8)


@pytest.mark.parametrize("texts", [(), ("a",)], ids=["look", "append"])
async def test_nothing_is_noted_of_what_is_gone(stores: Stores, texts: tuple[str, ...]) -> None:
    """Its keys do not come back by it, neither by half nor whole."""
    generation, last = await running(stores)
    await stores.client.call("DEL", stores.keys.record(generation), stores.keys.log(generation))
    reply = await append(stores, generation, last, *texts, at=RUN)
    assert reply.state is None
    assert await stores.all_keys() == set()


async def test_the_position_is_lost_and_restored_with_the_entries(stores: Stores) -> None:
    """A roll-back takes both; the same append, sent again, brings both."""
    generation, last = await running(stores)
    last = (await append(stores, generation, last, "a", at=RUN)).last_id
    before = await stores.snapshot(generation)
    await append(stores, generation, last, "b", at=Upstream("resp_1", 8))
    whole = await contents(stores, generation)
    await stores.roll_back(generation, before)
    assert await upstream(stores, generation) == RUN
    await append(stores, generation, last, "b", at=Upstream("resp_1", 8))
    assert await contents(stores, generation) == whole


# --- found --------------------------------------------------------------------------------------


async def test_a_claim_tells_where_the_last_owner_stood(stores: Stores) -> None:
    """In the same step, and to a repeat of it too; the record keeps it for the one after that."""
    generation, last = await running(stores)
    assert (await stores.claim(generation, "v/0")).upstream is None
    last = (await stores.claim(generation, "w/1")).last_id
    await append(stores, generation, last, "a", at=RUN)
    record = await stores.store.record(generation)
    started = {"attempt": 9, "model": "m", "resume": "reattach"}
    for _ in range(2):
        claim = await stores.store.claim(
            generation, seen_epoch=record.epoch, token="v/1", started=started, reset=False
        )
        assert (claim.outcome, claim.upstream) == (ClaimOutcome.CLAIMED, RUN)
    assert await upstream(stores, generation) == RUN


async def test_one_that_runs_has_left_nothing(stores: Stores) -> None:
    """Nor has one that waits: what they have is their owner's."""
    generation = await stores.create()
    assert await stores.store.leftover(generation) is None
    last = (await stores.claim(generation, "w/1")).last_id
    await append(stores, generation, last, at=RUN)
    assert await stores.store.leftover(generation) is None


async def test_what_is_not_there_has_left_nothing(stores: Stores) -> None:
    """And does not come into being by the question."""
    assert await stores.store.leftover(draw_generation_id()) is None
    assert await stores.all_keys() == set()


@pytest.mark.parametrize("run", [RUN, NAMED, None])
@pytest.mark.parametrize("end", ["cancelled", "failed", "erased"])
async def test_one_that_another_ended_tells_what_its_owner_left(
    stores: Stores, end: str, run: Upstream | None
) -> None:
    """The answer that may still be going on, and the token that may settle its cost."""
    generation, last = await running(stores)
    if run is not None:
        await append(stores, generation, last, "a", at=run)
    match end:
        case "cancelled":
            await stores.store.cancel(generation)
        case "failed":
            await stores.store.fail(generation, WORKER_LOST)
        case _:
            await stores.store.erase(generation)
    state = State.FAILED if end == "failed" else State.CANCELLED
    is_erased = end == "erased"
    left = await stores.store.leftover(generation)
    assert left == Leftover(state, "w/1", run, has_usage=False, is_erased=is_erased)
    assert await stores.store.settle(generation, "w/1", {"n": 1}, is_estimate=False)
    left = await stores.store.leftover(generation)
    assert left == Leftover(state, "w/1", run, has_usage=True, is_erased=is_erased)


async def test_one_that_nobody_took_has_no_owner(stores: Stores) -> None:
    """Cancelled while it waited."""
    generation = await stores.create()
    await stores.store.cancel(generation)
    left = await stores.store.leftover(generation)
    assert left == Leftover(State.CANCELLED, "", None, has_usage=False, is_erased=False)


@pytest.mark.parametrize("usage", [b"", b'{"n":2}'])
async def test_one_that_was_done_says_so_when_it_is_erased_too(
    stores: Stores, usage: bytes
) -> None:
    """Its owner has seen to everything."""
    generation, last = await running(stores)
    await append(stores, generation, last, at=RUN)
    await stores.close(generation, "w/1", Entry(last.successor, EventType.DONE, b"{}"), usage)
    left = await stores.store.leftover(generation)
    assert left == Leftover(State.DONE, "w/1", RUN, has_usage=bool(usage), is_erased=False)
    await stores.store.erase(generation)
    left = await stores.store.leftover(generation)
    assert left == Leftover(State.DONE, "w/1", RUN, has_usage=bool(usage), is_erased=True)
