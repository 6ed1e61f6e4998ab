"""Ending a log whoever holds it: cancel, deadline, failure, deletion; and what it had cost."""

import json

import pytest

from shared.errors import GenerationUnknown
from shared.events import Entry, EventType
from shared.failures import GENERATION_TIMEOUT, QUEUE_TIMEOUT, Failure
from shared.generation import State
from shared.generation_store import ERASED_VISIBLE, Closed
from shared.ids import BEGINNING, EntryId, GenerationId, draw_generation_id
from tests.support.fold import check_log
from tests.support.stores import Stores, tokens

BROKEN = Failure("broken", 'It said "no".', False)


async def last_entry(stores: Stores, generation: GenerationId) -> Entry:
    return (await stores.log.read(generation, BEGINNING))[-1]


async def held(stores: Stores, state: str) -> tuple[GenerationId, EntryId]:
    """A queued generation, or one that `w/1` runs and has written to; and its last id."""
    generation = await stores.create()
    if state == "running":
        claim = await stores.claim(generation, "w/1")
        await stores.append(generation, "w/1", tokens(claim.last_id, "half an ans"))
    return generation, (await stores.log.view(generation)).last_id


BOTH = pytest.mark.parametrize(("state", "worker"), [("queued", None), ("running", "w")])


@BOTH
async def test_cancel_closes_in_an_epoch_of_its_own(
    stores: Stores, state: str, worker: str | None
) -> None:
    """One entry, `<newer epoch>-0`, names what it stands on; the caller learns who wrote."""
    generation, last = await held(stores, state)
    assert await stores.store.cancel(generation) == Closed(State.CANCELLED, worker)
    closing = await last_entry(stores, generation)
    assert closing.type is EventType.CANCELLED
    assert json.loads(closing.data) == {"prev": str(last)}
    assert (closing.id.epoch > last.epoch, closing.id.seq) == (True, 0)
    record = await stores.store.record(generation)
    assert (record.state, record.epoch) == (State.CANCELLED, closing.id.epoch)
    assert record.finished_at is not None
    check_log(await stores.entries(generation))


@BOTH
async def test_a_second_cancel_leaves_it(stores: Stores, state: str, worker: str | None) -> None:
    """It answers as the first did and changes nothing."""
    generation, _ = await held(stores, state)
    first = await stores.store.cancel(generation)
    before = await stores.snapshot(generation)
    assert await stores.store.cancel(generation) == first == Closed(State.CANCELLED, worker)
    after = await stores.snapshot(generation)
    assert (before.fields, before.entries) == (after.fields, after.entries)


async def test_cancel_of_a_finished_one_leaves_it_as_it_is(stores: Stores) -> None:
    """Done stays done."""
    generation, last = await held(stores, "running")
    await stores.close(generation, "w/1", Entry(last.successor, EventType.DONE, b"{}"))
    assert await stores.store.cancel(generation) == Closed(State.DONE, "w")
    assert (await last_entry(stores, generation)).type is EventType.DONE
    check_log(await stores.entries(generation))


@BOTH
async def test_before_its_deadline_nothing_expires(
    stores: Stores, state: str, worker: str | None
) -> None:
    """Whoever thinks that the time is over is corrected by Redis' clock."""
    generation, _ = await held(stores, state)
    before = await stores.snapshot(generation)
    assert await stores.store.expire(generation) == Closed(State(state), worker)
    after = await stores.snapshot(generation)
    assert (before.fields, before.entries) == (after.fields, after.entries)


@pytest.mark.parametrize(
    ("state", "failure"), [("queued", QUEUE_TIMEOUT), ("running", GENERATION_TIMEOUT)]
)
async def test_past_its_deadline_it_fails_by_name(
    stores: Stores, state: str, failure: Failure
) -> None:
    """A generation that no worker took says so, one that ran too long says that."""
    generation, last = await held(stores, state)
    await stores.pass_deadline(generation)
    assert (await stores.store.expire(generation)).state is State.FAILED
    closing = await last_entry(stores, generation)
    assert closing.type is EventType.FAILED
    assert json.loads(closing.data) == {**failure.data, "prev": str(last)}
    check_log(await stores.entries(generation))


async def test_a_claim_ends_the_queue_deadline(stores: Stores) -> None:
    """One whose time to wait is nearly over when it is taken still has its time to run."""
    generation = await stores.create()
    await stores.pass_deadline(generation)
    claim = await stores.claim(generation, "w/1")
    assert claim.time_left.total_seconds() > 0
    assert (await stores.store.expire(generation)).state is State.RUNNING


async def test_a_closed_one_does_not_expire(stores: Stores) -> None:
    """The deadline of a finished generation means nothing."""
    generation, _ = await held(stores, "running")
    await stores.store.cancel(generation)
    await stores.pass_deadline(generation)
    assert (await stores.store.expire(generation)).state is State.CANCELLED
    check_log(await stores.entries(generation))


@BOTH
async def test_fail_ends_it_with_the_given_reason(
    stores: Stores, state: str, worker: str | None
) -> None:
    """Code, message and retryable reach the client, beside `prev`."""
    generation, last = await held(stores, state)
    assert await stores.store.fail(generation, BROKEN) == Closed(State.FAILED, worker)
    closing = await last_entry(stores, generation)
    assert json.loads(closing.data) == {**BROKEN.data, "prev": str(last)}
    check_log(await stores.entries(generation))


async def test_what_is_not_there_cannot_be_ended(stores: Stores) -> None:
    """Unknown generations are an error for every way of ending, and none creates a key."""
    generation = draw_generation_id()
    for end in (stores.store.cancel, stores.store.expire, stores.store.erase):
        with pytest.raises(GenerationUnknown):
            await end(generation)
    with pytest.raises(GenerationUnknown):
        await stores.store.fail(generation, BROKEN)
    assert await stores.all_keys() == set()


# --- settle -------------------------------------------------------------------------------------


async def test_the_real_usage_of_a_cancelled_one_is_settled_by_who_knows_it(stores: Stores) -> None:
    """The attempt that was cut off writes what it cost into the record, never into the log."""
    generation, _ = await held(stores, "running")
    await stores.store.cancel(generation)
    before = await stores.entries(generation)
    assert await stores.store.settle(generation, "w/1", {"completion_tokens": 7}, is_estimate=False)
    assert (await stores.store.record(generation)).usage == {"completion_tokens": 7}
    assert await stores.entries(generation) == before


async def test_nothing_is_settled_while_it_runs_or_after_it_is_done(stores: Stores) -> None:
    """Open ones have no cost yet; a done one knows its own."""
    generation, last = await held(stores, "running")
    assert not await stores.store.settle(generation, "w/1", {"n": 1}, is_estimate=False)
    done = Entry(last.successor, EventType.DONE, b"{}")
    await stores.close(generation, "w/1", done, b'{"n":2}')
    assert not await stores.store.settle(generation, "w/1", {"n": 1}, is_estimate=False)
    assert (await stores.store.record(generation)).usage == {"n": 2}


async def test_an_attempt_that_was_taken_over_settles_nothing(stores: Stores) -> None:
    """The cost of an older attempt is not written over that of the last one."""
    generation, _ = await held(stores, "running")
    await stores.claim(generation, "v/1")
    await stores.store.cancel(generation)
    assert not await stores.store.settle(generation, "w/1", {"n": 1}, is_estimate=False)
    assert await stores.store.settle(generation, "v/1", {"n": 2}, is_estimate=False)


@pytest.mark.parametrize("end", ["cancel", "fail"])
async def test_an_estimate_gives_way_to_a_figure_and_never_the_other_way(
    stores: Stores, end: str
) -> None:
    """Whoever comes first: what its provider says it cost is what stands at the end."""
    generation, _ = await held(stores, "running")
    if end == "cancel":
        await stores.store.cancel(generation)
    else:
        await stores.store.fail(generation, BROKEN)
    guess, other_guess = {"n": 1, "estimated": True}, {"n": 2, "estimated": True}
    settle = stores.store.settle
    assert await settle(generation, "w/1", guess, is_estimate=True)
    assert not await settle(generation, "w/1", other_guess, is_estimate=True)
    assert (await stores.store.record(generation)).usage == guess
    assert await settle(generation, "w/1", {"n": 3}, is_estimate=False)
    assert not await settle(generation, "w/1", guess, is_estimate=True)
    assert (await stores.store.record(generation)).usage == {"n": 3}


async def test_an_estimate_is_written_where_a_figure_would_be_and_nowhere_else(
    stores: Stores,
) -> None:
    """Not while it runs, not for who was taken over, not where nothing is."""
    generation, last = await held(stores, "running")
    settle = stores.store.settle
    assert not await settle(generation, "w/1", {"n": 1}, is_estimate=True)
    await stores.claim(generation, "v/1")
    await stores.store.cancel(generation)
    assert not await settle(generation, "w/1", {"n": 1}, is_estimate=True)
    assert (await stores.store.record(generation)).usage is None
    done, last = await held(stores, "running")
    await stores.close(done, "w/1", Entry(last.successor, EventType.DONE, b"{}"))
    assert not await settle(done, "w/1", {"n": 1}, is_estimate=True)
    assert not await settle(draw_generation_id(), "w/1", {"n": 1}, is_estimate=True)


async def test_a_failure_of_its_owner_keeps_the_cost_that_was_written_with_it(
    stores: Stores,
) -> None:
    """An estimate that came with the end stays until there is a figure."""
    generation, last = await held(stores, "running")
    failed = Entry(last.successor, EventType.FAILED, b"{}")
    await stores.close(generation, "w/1", failed, b'{"n":2,"estimated":true}')
    assert not await stores.store.settle(generation, "w/1", {"n": 1}, is_estimate=True)
    assert await stores.store.settle(generation, "w/1", {"n": 3}, is_estimate=False)
    assert (await stores.store.record(generation)).usage == {"n": 3}


async def test_settling_what_is_gone_creates_nothing(stores: Stores) -> None:
    """After its retention a generation stays away."""
    assert not await stores.store.settle(draw_generation_id(), "w/1", {"n": 1}, is_estimate=False)
    assert await stores.all_keys() == set()


# --- erase --------------------------------------------------------------------------------------


@BOTH
async def test_an_erased_one_is_hidden_at_once(
    stores: Stores, state: str, worker: str | None
) -> None:
    """Nobody finds, cancels, expires or erases it again; the caller learns who wrote."""
    generation, _ = await held(stores, state)
    assert await stores.store.erase(generation) == worker
    for look in (
        stores.store.record,
        stores.store.cancel,
        stores.store.expire,
        stores.store.erase,
    ):
        with pytest.raises(GenerationUnknown):
            await look(generation)
    assert (await stores.log.view(generation)).record is None


@BOTH
async def test_followers_of_an_erased_one_see_its_end(
    stores: Stores, state: str, worker: str | None
) -> None:
    """Its log stays readable for a moment and ends like every other, with `cancelled`."""
    generation, last = await held(stores, state)
    await stores.store.erase(generation)
    closing = await last_entry(stores, generation)
    assert closing.type is EventType.CANCELLED
    assert json.loads(closing.data) == {"prev": str(last)}
    check_log(await stores.entries(generation))
    for left_ms in await stores.lifetimes_ms(generation):
        assert 0 < left_ms <= ERASED_VISIBLE.total_seconds() * 1000


async def test_erasing_a_finished_one_adds_no_second_end(stores: Stores) -> None:
    """The log of a done generation stays as it is until it goes."""
    generation, last = await held(stores, "running")
    await stores.close(generation, "w/1", Entry(last.successor, EventType.DONE, b"{}"))
    before = await stores.entries(generation)
    await stores.store.erase(generation)
    assert await stores.entries(generation) == before


async def test_what_was_asked_is_erased_at_once(stores: Stores) -> None:
    """The prompt does not wait for the keys to go."""
    generation, _ = await held(stores, "running")
    await stores.store.erase(generation)
    assert b"request" not in await stores.fields(generation)
    assert b"Hello" not in b"".join((await stores.fields(generation)).values())


async def test_the_writer_of_an_erased_one_is_shut_out(stores: Stores) -> None:
    """It is told that the log is closed, and the keys get no longer life by that."""
    generation, last = await held(stores, "running")
    await stores.store.erase(generation)
    reply = await stores.append(generation, "w/1", tokens(last, "late"))
    assert reply.state is State.CANCELLED
    assert reply.epoch > last.epoch
    await stores.close(generation, "w/1", Entry(last.successor, EventType.DONE, b"{}"))
    await stores.store.settle(generation, "w/1", {"n": 1}, is_estimate=False)
    for left_ms in await stores.lifetimes_ms(generation):
        assert 0 < left_ms <= ERASED_VISIBLE.total_seconds() * 1000
    check_log(await stores.entries(generation))
