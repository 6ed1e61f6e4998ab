"""A Redis that lost its last writes: what its owners may write again, and what they may not."""

from shared.events import Entry, EventType
from shared.generation import State
from shared.generation_store import ClaimOutcome
from tests.support.fold import check_log
from tests.support.stores import Stores, tokens


async def test_the_owner_appends_what_was_lost_again_under_the_same_ids(stores: Stores) -> None:
    """The reply to its next append tells where the log ends; from there on it is taken again."""
    generation = await stores.create()
    last = (await stores.claim(generation, "w/1")).last_id
    entries = tokens(last, *"abcde")
    await stores.append(generation, "w/1", entries[:2])
    moment = await stores.snapshot(generation)
    await stores.append(generation, "w/1", entries[2:4])
    await stores.roll_back(generation, moment)
    told = await stores.append(generation, "w/1", entries[4:])
    assert (told.mine, told.epoch, told.last_id) == (True, last.epoch, entries[1].id)
    assert await stores.log.read(generation, last) == entries[:2]
    await stores.append(generation, "w/1", entries[2:])
    assert await stores.log.read(generation, last) == entries
    check_log(await stores.entries(generation), closed=False)


async def test_the_owner_closes_again_what_was_open_again(stores: Stores) -> None:
    """A lost closing entry is written once more, under its id."""
    generation = await stores.create()
    last = (await stores.claim(generation, "w/1")).last_id
    moment = await stores.snapshot(generation)
    done = Entry(last.successor, EventType.DONE, b"{}")
    await stores.close(generation, "w/1", done)
    await stores.roll_back(generation, moment)
    assert (await stores.store.record(generation)).state is State.RUNNING
    assert (await stores.close(generation, "w/1", done)).last_id == done.id
    check_log(await stores.entries(generation))


async def test_an_owner_whose_claim_was_lost_is_told_an_older_epoch(stores: Stores) -> None:
    """The record's epoch is smaller than its own: it may write nothing any more."""
    generation = await stores.create()
    moment = await stores.snapshot(generation)
    queued = (await stores.log.view(generation)).last_id
    last = (await stores.claim(generation, "w/1")).last_id
    await stores.roll_back(generation, moment)
    reply = await stores.append(generation, "w/1", tokens(last, "a"))
    assert (reply.state, reply.mine, reply.last_id) == (State.QUEUED, False, queued)
    assert reply.epoch < last.epoch
    assert await stores.kinds(generation) == ["queued"]


async def test_a_lost_claim_may_be_taken_by_another(stores: Stores) -> None:
    """Whoever claims then owns the log; the first owner stays shut out by its token."""
    generation = await stores.create()
    seen = (await stores.store.record(generation)).epoch
    moment = await stores.snapshot(generation)
    lost = (await stores.claim(generation, "w/1")).last_id
    await stores.roll_back(generation, moment)
    started = {"attempt": 1, "model": "m", "resume": "fresh"}
    taken = await stores.store.claim(
        generation, seen_epoch=seen, token="v/1", started=started, reset=False
    )
    assert taken.outcome is ClaimOutcome.CLAIMED
    for base in (lost, taken.last_id):
        assert not (await stores.append(generation, "w/1", tokens(base, "z"))).mine
    assert await stores.log.read(generation, taken.last_id) == []
    check_log(await stores.entries(generation), closed=False)


async def test_even_an_epoch_issued_twice_does_not_let_the_first_owner_in(stores: Stores) -> None:
    """Where chance gives a new owner the epoch that was lost, the token still keeps them apart."""
    generation = await stores.create()
    moment = await stores.snapshot(generation)
    lost = (await stores.claim(generation, "w/1")).last_id
    await stores.roll_back(generation, moment)
    record, log = stores.keys.record(generation), stores.keys.log(generation)
    await stores.client.call_all(
        [
            ("HSET", record, "state", "running", "epoch", lost.epoch, "token", "v/1"),
            ("XADD", log, str(lost), "t", "started", "d", '{"prev":"x"}'),
        ]
    )
    reply = await stores.append(generation, "w/1", tokens(lost, "z"))
    assert (reply.mine, reply.epoch, reply.last_id) == (False, lost.epoch, lost)
    closed = await stores.close(generation, "w/1", Entry(lost.successor, EventType.DONE, b"{}"))
    assert closed.state is State.RUNNING
    assert await stores.kinds(generation) == ["queued", "started"]
