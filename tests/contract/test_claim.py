"""Claiming a log: compare-and-set on the epoch that the claimer saw."""

import json
from datetime import timedelta

import pytest

from shared.errors import GenerationUnknown
from shared.events import Entry, EventType
from shared.failures import WORKER_LOST
from shared.generation import State
from shared.generation_store import Claim, ClaimOutcome, Closed
from shared.ids import BEGINNING, EntryId, GenerationId, draw_generation_id
from tests.support.fold import check_log
from tests.support.stores import ORDER, Stores, tokens

STARTED = {"attempt": 1, "model": "m", "resume": "fresh"}


async def claim(
    stores: Stores, generation: GenerationId, seen: int, token: str, *, reset: bool = False
) -> Claim:
    return await stores.store.claim(
        generation, seen_epoch=seen, token=token, started=STARTED, reset=reset
    )


async def test_a_claim_opens_an_epoch_that_names_what_it_stands_on(stores: Stores) -> None:
    """`started` has the id `<epoch>-0`, what the claimer said, and `prev`."""
    generation = await stores.create()
    queued = (await stores.log.view(generation)).last_id
    claimed = await stores.claim(generation, "w/1")
    assert claimed.outcome is ClaimOutcome.CLAIMED
    (_, started) = await stores.log.read(generation, BEGINNING)
    assert (started.id, started.type) == (claimed.last_id, EventType.STARTED)
    assert started.id.seq == 0
    assert json.loads(started.data) == {**STARTED, "prev": str(queued)}


async def test_a_claim_makes_the_claimer_the_owner(stores: Stores) -> None:
    """State, epoch, token, model, start and attempts change in the same step."""
    generation = await stores.create()
    claimed = await stores.claim(generation, "w/1")
    record = await stores.store.record(generation)
    assert record.state is State.RUNNING
    assert (record.epoch, record.token, record.worker) == (claimed.last_id.epoch, "w/1", "w")
    assert (record.attempts, record.model) == (1, "m")
    assert record.started_at is not None
    assert record.deadline - record.started_at == ORDER.generation_timeout


async def test_a_claim_learns_the_time_it_has(stores: Stores) -> None:
    """From the first claim on the generation's own time-out counts, by Redis' clock."""
    generation = await stores.create()
    first = await stores.claim(generation, "w/1")
    assert first.time_left == ORDER.generation_timeout
    second = await stores.claim(generation, "w/2")
    assert timedelta(0) < second.time_left <= first.time_left


async def test_a_later_claim_does_not_move_start_or_deadline(stores: Stores) -> None:
    """However often it is taken over, a generation ends in time."""
    generation = await stores.create()
    await stores.claim(generation, "w/1")
    before = await stores.store.record(generation)
    await stores.claim(generation, "w/2")
    after = await stores.store.record(generation)
    assert (after.started_at, after.deadline) == (before.started_at, before.deadline)
    assert after.attempts == 2


async def test_of_two_claimers_that_saw_the_same_epoch_one_wins(stores: Stores) -> None:
    """The epoch moved under the second one: it learns so, and nothing changes."""
    generation = await stores.create()
    seen = (await stores.store.record(generation)).epoch
    winner = await claim(stores, generation, seen, "w/1")
    before = await stores.snapshot(generation)
    loser = await claim(stores, generation, seen, "v/1")
    assert (winner.outcome, loser.outcome) == (ClaimOutcome.CLAIMED, ClaimOutcome.MOVED)
    after = await stores.snapshot(generation)
    assert (before.fields, before.entries) == (after.fields, after.entries)


async def test_a_claim_sent_twice_is_one_claim(stores: Stores) -> None:
    """The same token gets the same answer, and no second epoch, attempt or entry."""
    for reset in (False, True):
        generation = await stores.create()
        seen = (await stores.store.record(generation)).epoch
        first = await claim(stores, generation, seen, "w/1", reset=reset)
        before = await stores.snapshot(generation)
        again = await claim(stores, generation, seen, "w/1", reset=reset)
        assert (again.outcome, again.last_id) == (first.outcome, first.last_id)
        after = await stores.snapshot(generation)
        assert (before.fields, before.entries) == (after.fields, after.entries)


async def test_a_closed_log_is_not_claimed(stores: Stores) -> None:
    """After the closing entry comes nothing, whoever asks."""
    generation = await stores.create()
    await stores.store.cancel(generation)
    record = await stores.store.record(generation)
    refused = await claim(stores, generation, record.epoch, "w/1")
    assert refused.outcome is ClaimOutcome.CLOSED
    check_log(await stores.entries(generation))


async def test_an_owner_that_repeats_its_claim_learns_that_it_was_cancelled(stores: Stores) -> None:
    """Closed comes before mine: a token that was granted once opens nothing again."""
    generation = await stores.create()
    seen = (await stores.store.record(generation)).epoch
    await claim(stores, generation, seen, "w/1")
    await stores.store.cancel(generation)
    assert (await claim(stores, generation, seen, "w/1")).outcome is ClaimOutcome.CLOSED


async def test_an_erased_generation_counts_as_closed(stores: Stores) -> None:
    """Its job can go."""
    generation = await stores.create()
    record = await stores.store.record(generation)
    await stores.store.erase(generation)
    assert (await claim(stores, generation, record.epoch, "w/1")).outcome is ClaimOutcome.CLOSED


async def test_a_claim_of_nothing_creates_nothing(stores: Stores) -> None:
    """A generation that is not there is absent, and stays so."""
    refused = await claim(stores, draw_generation_id(), 1, "w/1")
    assert refused.outcome is ClaimOutcome.ABSENT
    assert await stores.all_keys() == set()


async def test_a_record_without_its_log_is_absent(stores: Stores) -> None:
    """Where something evicted the log, nothing is claimed, ended or begun anew; it can go."""
    generation = await stores.create()
    record = await stores.store.record(generation)
    await stores.client.call("DEL", stores.keys.log(generation))
    before = await stores.fields(generation)
    assert (await claim(stores, generation, record.epoch, "w/1")).outcome is ClaimOutcome.ABSENT
    with pytest.raises(GenerationUnknown):
        await stores.store.cancel(generation)
    assert await stores.fields(generation) == before
    await stores.store.erase(generation)
    assert await stores.all_keys() == {stores.keys.record(generation).encode()}
    with pytest.raises(GenerationUnknown):
        await stores.store.record(generation)


async def test_a_claim_may_make_clients_forget_in_the_same_step(stores: Stores) -> None:
    """`started` and `reset` come together; the record says where a late reader starts."""
    generation = await stores.create()
    first = await stores.claim(generation, "w/1")
    await stores.append(generation, "w/1", tokens(first.last_id, "lost"))
    second = await stores.claim(generation, "w/2", reset=True)
    assert await stores.kinds(generation) == ["queued", "started", "token", "started", "reset"]
    assert second.last_id.seq == 1
    assert (await stores.store.record(generation)).reset_at == second.last_id
    check_log(await stores.entries(generation), closed=False)


async def test_a_new_owner_writes_right_after_its_claim(stores: Stores) -> None:
    """The id the claim answers with is the one its first entry stands on, with reset or without."""
    for reset in (False, True):
        generation = await stores.create()
        claimed = await stores.claim(generation, "w/1", reset=reset)
        entries = tokens(claimed.last_id, "a")
        reply = await stores.append(generation, "w/1", entries)
        assert reply.last_id == entries[-1].id
        check_log(await stores.entries(generation), closed=False)


async def test_epochs_always_rise(stores: Stores) -> None:
    """Twenty owners and a cancel, within one millisecond or not, leave rising epochs."""
    generation = await stores.create()
    for number in range(20):
        await stores.claim(generation, f"w/{number}")
    await stores.store.cancel(generation)
    epochs = [int(raw_id.partition(b"-")[0]) for raw_id, _ in await stores.entries(generation)]
    assert epochs == sorted(set(epochs))
    check_log(await stores.entries(generation))


async def test_epochs_rise_even_when_redis_clock_goes_back(stores: Stores) -> None:
    """A held epoch of the far future is still surpassed, in full precision."""
    generation = await stores.create()
    far = 2**52 + 1
    key, log = stores.keys.record(generation), stores.keys.log(generation)
    await stores.client.call("HSET", key, "epoch", far)
    await stores.client.call("XADD", log, f"{far}-0", "t", "started", "d", '{"prev":"x"}')
    claimed = await stores.claim(generation, "w/1")
    assert far < claimed.last_id.epoch <= far + 1000
    started = (await stores.log.read(generation, EntryId(far, 0)))[0]
    assert json.loads(started.data)["prev"] == f"{far}-0"
    assert (await stores.store.record(generation)).epoch == claimed.last_id.epoch


async def test_data_of_started_may_hold_any_text(stores: Stores) -> None:
    """`prev` is added to whatever JSON the claimer gave."""
    generation = await stores.create()
    record = await stores.store.record(generation)
    started = {"attempt": 1, "model": 'a "b" \\ é {}', "resume": "fresh"}
    await stores.store.claim(
        generation, seen_epoch=record.epoch, token="w/1", started=started, reset=False
    )
    entry: Entry = (await stores.log.read(generation, BEGINNING))[-1]
    assert json.loads(entry.data)["model"] == started["model"]
    assert (await stores.store.record(generation)).model == started["model"]


async def test_a_failure_is_refused_once_somebody_claimed_it_since(stores: Stores) -> None:
    """Compare and set, as the claim: who has it now may well go on."""
    generation = await stores.create()
    await stores.claim(generation, "w/1")
    seen = (await stores.store.record(generation)).epoch
    await stores.claim(generation, "w/2")
    refused = await stores.store.fail(generation, WORKER_LOST, seen_epoch=seen)
    assert refused == Closed(State.RUNNING, "w")
    assert await stores.kinds(generation) == ["queued", "started", "started"]
    held = (await stores.store.record(generation)).epoch
    assert (await stores.store.fail(generation, WORKER_LOST, seen_epoch=held)).state is State.FAILED
    check_log(await stores.entries(generation))
