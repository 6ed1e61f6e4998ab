"""Offering and releasing jobs: promised before the record, due when it is there, never twice."""

from datetime import timedelta

import pytest

from shared.errors import NotAdmitted
from shared.ids import GenerationId, draw_generation_id
from shared.keys import JOB_PREFIX, RETRY_PREFIX
from shared.queue import OFFER_DELAY, WAKE_LENGTH, Lease, decode_json
from tests.support.stores import Stores

LIFE = timedelta(hours=1)
SLACK_MS = 2000


async def offered(stores: Stores) -> GenerationId:
    generation = draw_generation_id()
    await stores.queue.offer(generation, lifetime=LIFE, max_length=10_000)
    return generation


async def released(stores: Stores) -> GenerationId:
    generation = await offered(stores)
    await stores.queue.release(generation, lifetime=LIFE)
    return generation


async def take_one(stores: Stores) -> Lease:
    (lease,) = (
        await stores.queue.lease(
            1,
            worker="w",
            lease=timedelta(seconds=60),
            mark=timedelta(seconds=30),
            owner_life=LIFE,
        )
    ).leases
    return lease


async def wakes(stores: Stores) -> list[str]:
    return [raw.decode() for raw in await stores.client.call("LRANGE", stores.keys.wake, 0, -1)]


async def test_an_offered_job_waits_for_its_record(stores: Stores) -> None:
    """It is queued with its data and a lifetime, due after the delay, and nobody is woken."""
    generation = await offered(stores)
    due_ms = await stores.due_ms(generation)
    assert due_ms is not None
    assert OFFER_DELAY / timedelta(milliseconds=1) - SLACK_MS < due_ms
    assert due_ms <= OFFER_DELAY / timedelta(milliseconds=1)
    job = decode_json(await stores.client.call("GET", JOB_PREFIX + generation))
    assert (job["f"], job["a"]) == ("generate", [generation])
    assert await stores.client.call("PTTL", JOB_PREFIX + generation) > 0
    assert await wakes(stores) == []


async def test_an_offer_of_what_is_queued_changes_nothing(stores: Stores) -> None:
    """A repeated request neither delays nor hastens a job that is there."""
    generation = await released(stores)
    score = await stores.client.call("ZSCORE", stores.keys.queue, generation)
    await stores.queue.offer(generation, lifetime=LIFE, max_length=10_000)
    assert await stores.client.call("ZSCORE", stores.keys.queue, generation) == score
    assert await stores.queue.length() == 1


async def test_an_offer_does_not_push_back_a_lease(stores: Stores) -> None:
    """A job that runs keeps the end of its lease."""
    generation = await released(stores)
    await take_one(stores)
    score = await stores.client.call("ZSCORE", stores.keys.queue, generation)
    await stores.queue.offer(generation, lifetime=LIFE, max_length=10_000)
    assert await stores.client.call("ZSCORE", stores.keys.queue, generation) == score


async def test_a_full_queue_admits_nothing_new_but_knows_what_it_has(stores: Stores) -> None:
    """The refused leave nothing behind; a repeat of an admitted one is not refused."""
    known = [await offered(stores) for _ in range(3)]
    generation = draw_generation_id()
    before = await stores.all_keys()
    with pytest.raises(NotAdmitted) as refusal:
        await stores.queue.offer(generation, lifetime=LIFE, max_length=3)
    assert refusal.value.retry_after > timedelta(0)
    assert await stores.all_keys() == before
    await stores.queue.offer(known[0], lifetime=LIFE, max_length=3)
    assert await stores.queue.length() == 3
    await stores.queue.offer(generation, lifetime=LIFE, max_length=4)


async def test_a_released_job_is_due_and_wakes_a_worker(stores: Stores) -> None:
    """From the delay to now, with one message to whoever is idle."""
    generation = await released(stores)
    due_ms = await stores.due_ms(generation)
    assert due_ms is not None
    assert due_ms <= 0
    assert await wakes(stores) == [generation]


async def test_release_restores_a_job_that_was_lost_on_the_way(stores: Stores) -> None:
    """After a crash between the steps the repeat of the request makes good what is missing."""
    generation = draw_generation_id()
    await stores.queue.release(generation, lifetime=LIFE)
    assert await stores.client.call("EXISTS", JOB_PREFIX + generation) == 1
    assert await stores.client.call("PTTL", JOB_PREFIX + generation) > 0
    lease = await take_one(stores)
    assert lease.generation == generation


async def test_release_does_not_give_up_a_place_in_the_line(stores: Stores) -> None:
    """A repeat of a request that waits since long ago is not put behind those that came later."""
    generation = await released(stores)
    await stores.client.call("ZADD", stores.keys.queue, 1000, generation)
    await stores.queue.release(generation, lifetime=LIFE)
    assert int(await stores.client.call("ZSCORE", stores.keys.queue, generation)) == 1000


async def test_recall_makes_a_job_due_that_waits_for_its_time(stores: Stores) -> None:
    """Its generation has ended: what is left to clear up is not left until then."""
    generation = await released(stores)
    lease = await take_one(stores)
    await stores.queue.give_back(lease, timedelta(minutes=10))
    await stores.client.call("DEL", stores.keys.wake)
    await stores.queue.recall(generation, "w")
    assert await wakes(stores) == [generation]
    assert (await take_one(stores)).generation == generation


async def test_recall_makes_no_job(stores: Stores) -> None:
    """One that was finished, or that somebody owns, stays as it is; its worker is told."""
    finished, owned = await released(stores), await released(stores)
    first, second = await take_one(stores), await take_one(stores)
    await stores.queue.finish(first if first.generation == finished else second)
    await stores.client.call("DEL", stores.keys.wake)
    score = await stores.client.call("ZSCORE", stores.keys.queue, owned)
    for generation in (finished, owned):
        await stores.queue.recall(generation, "w")
    assert await stores.queue.length() == 1
    assert await stores.client.call("EXISTS", JOB_PREFIX + finished) == 0
    assert await stores.client.call("ZSCORE", stores.keys.queue, owned) == score
    assert await wakes(stores) == []
    told = await stores.client.call("LRANGE", stores.keys.control("w"), 0, -1)
    assert told == [f"cancel {owned}".encode(), f"cancel {finished}".encode()]


@pytest.mark.parametrize("marked", [False, True])
async def test_release_never_touches_an_owned_job(stores: Stores, marked: bool) -> None:
    """Neither its lease nor its owner changes, marked or not, and nobody is woken for it."""
    generation = await released(stores)
    lease = await take_one(stores)
    if marked:
        await stores.make_due(generation)
        await stores.queue.lease(
            1, worker="v", lease=LIFE, mark=timedelta(seconds=30), owner_life=LIFE
        )
    await stores.client.call("DEL", stores.keys.wake)
    score = await stores.client.call("ZSCORE", stores.keys.queue, generation)
    await stores.queue.release(generation, lifetime=LIFE)
    assert await stores.client.call("ZSCORE", stores.keys.queue, generation) == score
    assert await stores.owner(generation) == ("~" if marked else "") + lease.token
    assert await wakes(stores) == []


async def test_the_wake_list_is_bounded(stores: Stores) -> None:
    """While every worker is busy, wakes do not pile up for ever."""
    await stores.client.call("LPUSH", stores.keys.wake, *("x" for _ in range(WAKE_LENGTH)))
    generation = await released(stores)
    assert await stores.client.call("LLEN", stores.keys.wake) == WAKE_LENGTH
    assert (await wakes(stores))[0] == generation


async def test_a_finished_job_leaves_nothing_behind(stores: Stores) -> None:
    """Queue, owner, job and arq's own counter are gone."""
    generation = await released(stores)
    lease = await take_one(stores)
    await stores.client.call("SET", RETRY_PREFIX + generation, 1)
    assert await stores.queue.finish(lease)
    assert await stores.all_keys() == {stores.keys.wake.encode()}


async def test_finishing_twice_is_told_and_harmless(stores: Stores) -> None:
    """The second time it is not mine any more, and a job made anew since stays."""
    generation = await released(stores)
    lease = await take_one(stores)
    await stores.queue.finish(lease)
    await stores.queue.offer(generation, lifetime=LIFE, max_length=10)
    assert not await stores.queue.finish(lease)
    assert await stores.due_ms(generation) is not None


async def test_a_job_given_back_is_due_for_another_at_once(stores: Stores) -> None:
    """Without a delay it is due now, without an owner, and a worker is woken."""
    generation = await released(stores)
    lease = await take_one(stores)
    await stores.client.call("DEL", stores.keys.wake)
    assert await stores.queue.give_back(lease)
    assert await wakes(stores) == [generation]
    assert await stores.owner(generation) is None
    again = await take_one(stores)
    assert again.generation == generation
    assert again.token != lease.token


async def test_a_job_given_back_with_a_delay_waits(stores: Stores) -> None:
    """It is not due before, and nobody is woken for it now."""
    generation = await released(stores)
    lease = await take_one(stores)
    await stores.client.call("DEL", stores.keys.wake)
    await stores.queue.give_back(lease, timedelta(seconds=40))
    due_ms = await stores.due_ms(generation)
    assert due_ms is not None
    assert 40_000 - SLACK_MS < due_ms <= 40_000
    assert await wakes(stores) == []


async def test_messages_for_a_worker_wait_for_it_and_vanish_when_it_is_gone(stores: Stores) -> None:
    """They are kept in order of arrival for a blocking pop, and not for ever."""
    await stores.queue.tell("w", "cancel a")
    await stores.queue.tell("w", "cancel b")
    control = stores.keys.control("w")
    assert await stores.client.call("LRANGE", control, 0, -1) == [b"cancel b", b"cancel a"]
    assert 0 < await stores.client.call("PTTL", control) <= 60_000
