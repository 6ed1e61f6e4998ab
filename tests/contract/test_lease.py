"""Leases: jobs in due order, each to one worker, taken over only after a mark."""

from datetime import timedelta

from shared.connections import SyncClient
from shared.ids import GenerationId, draw_generation_id
from shared.queue import Lease, Leased, Renewal
from tests.support.stores import Stores

LIFE = timedelta(hours=1)
LEASE = timedelta(seconds=60)
MARK = timedelta(seconds=30)
SLACK_MS = 2000


async def queued(stores: Stores) -> GenerationId:
    """A job that is due now."""
    generation = draw_generation_id()
    await stores.queue.offer(generation, lifetime=LIFE, max_length=10_000)
    await stores.queue.release(generation, lifetime=LIFE)
    return generation


async def poll(stores: Stores, worker: str = "w", count: int = 10) -> Leased:
    return await stores.queue.lease(count, worker=worker, lease=LEASE, mark=MARK, owner_life=LIFE)


async def take(stores: Stores, worker: str = "w") -> Lease:
    """The one job there is."""
    (lease,) = (await poll(stores, worker)).leases
    return lease


async def due_within(stores: Stores, generation: GenerationId, bound: timedelta) -> bool:
    due_ms = await stores.due_ms(generation)
    bound_ms = bound // timedelta(milliseconds=1)
    return due_ms is not None and bound_ms - SLACK_MS <= due_ms <= bound_ms


async def test_a_leased_job_is_invisible_until_its_lease_ends(stores: Stores) -> None:
    """It stays in the queue, due when the lease lapses, under the token of who has it."""
    generation = await queued(stores)
    lease = await take(stores)
    assert lease.generation == generation
    assert await stores.owner(generation) == lease.token
    assert await due_within(stores, generation, LEASE)
    assert (await poll(stores, "v")).leases == []


async def test_jobs_are_leased_in_the_order_they_are_due(stores: Stores) -> None:
    """Who waits longest is first, however many a worker takes at once."""
    jobs = [await queued(stores) for _ in range(5)]
    for age, generation in enumerate(jobs):
        await stores.client.call("ZADD", stores.keys.queue, 10_000 - age, generation)
    taken = (await poll(stores, count=2)).leases + (await poll(stores, count=10)).leases
    assert [lease.generation for lease in taken] == jobs[::-1]


async def test_every_lease_has_a_token_of_its_own_that_names_the_worker(stores: Stores) -> None:
    """Of one call, of two, and of the same job again: no token is ever used twice."""
    jobs = [await queued(stores) for _ in range(12)]
    first = (await poll(stores, count=11)).leases
    second = (await poll(stores)).leases
    await stores.queue.give_back(first[0])
    again = (await poll(stores)).leases
    tokens = [lease.token for lease in (*first, *second, *again)]
    assert len(set(tokens)) == len(jobs) + 1
    assert {token.partition("/")[0] for token in tokens} == {"w"}


async def test_no_more_is_taken_than_there_is_room_for(stores: Stores) -> None:
    """A poll for two of five takes two; a poll for none takes none."""
    for _ in range(5):
        await queued(stores)
    assert len((await poll(stores, count=2)).leases) == 2
    assert (await poll(stores, count=0)).leases == []


async def test_a_job_that_is_not_due_is_not_taken(stores: Stores) -> None:
    """A promise whose record may not be there yet waits for its time."""
    await stores.queue.offer(draw_generation_id(), lifetime=LIFE, max_length=10)
    assert (await poll(stores)).leases == []


async def test_a_lapsed_job_is_marked_before_it_is_taken(stores: Stores) -> None:
    """Its owner gets the time of the mark to come back; only then the job has a new one."""
    generation = await queued(stores)
    first = await take(stores, "w")
    await stores.make_due(generation)
    assert (await poll(stores, "v")).leases == []
    assert await stores.owner(generation) == "~" + first.token
    assert await due_within(stores, generation, MARK)
    await stores.make_due(generation)
    second = await take(stores, "v")
    assert second.generation == generation
    assert await stores.owner(generation) == second.token
    assert await due_within(stores, generation, LEASE)


async def test_a_marked_job_is_not_marked_again_before_it_is_due(stores: Stores) -> None:
    """Polling often does not put the take-over off."""
    generation = await queued(stores)
    await take(stores)
    await stores.make_due(generation)
    await poll(stores, "v")
    score = await stores.client.call("ZSCORE", stores.keys.queue, generation)
    await poll(stores, "v")
    assert await stores.client.call("ZSCORE", stores.keys.queue, generation) == score


async def test_jobs_to_mark_do_not_use_up_the_room_for_others(stores: Stores) -> None:
    """A worker with one free slot that meets lapsed jobs still gets the one that waits."""
    lapsed = [await queued(stores) for _ in range(5)]
    await poll(stores)
    for generation in lapsed:
        await stores.make_due(generation)
    waiting = await queued(stores)
    taken = (await poll(stores, "v", count=1)).leases
    assert [lease.generation for lease in taken] == [waiting]


async def test_a_thousand_leased_jobs_do_not_hide_a_queued_one(stores: Stores) -> None:
    """Whatever runs elsewhere, a job that waits is found by the next poll."""
    jobs = [draw_generation_id() for _ in range(1000)]
    now = await stores.now_ms()
    await stores.client.call(
        "ZADD", stores.keys.queue, *(part for job in jobs for part in (now - 1, job))
    )
    assert len((await poll(stores, count=1000)).leases) == 1000
    waiting = await queued(stores)
    (lease,) = (await poll(stores, "v")).leases
    assert lease.generation == waiting


async def test_a_poll_says_when_the_next_job_is_due(stores: Stores) -> None:
    """None for an empty queue, else the time until the earliest score, leases included."""
    assert (await poll(stores)).next_due is None
    generation = await queued(stores)
    leased = await poll(stores)
    assert leased.next_due == LEASE
    await stores.queue.offer(draw_generation_id(), lifetime=LIFE, max_length=10)
    after_offer = (await poll(stores)).next_due
    assert after_offer is not None
    assert timedelta(seconds=3) < after_offer <= timedelta(seconds=5)
    await stores.make_due(generation)
    full = (await poll(stores, count=0)).next_due
    assert full == timedelta(0)


# --- renewal ------------------------------------------------------------------------------------


def renewal(stores: Stores, sync_client: SyncClient) -> Renewal:
    return Renewal(sync_client, stores.keys, LEASE)


async def test_a_renewal_extends_the_lease(stores: Stores, sync_client: SyncClient) -> None:
    """From now on by its whole length; the token stays."""
    generation = await queued(stores)
    lease = await take(stores)
    await stores.make_due(generation)
    assert renewal(stores, sync_client).renew([lease]) == set()
    assert await due_within(stores, generation, LEASE)
    assert await stores.owner(generation) == lease.token
    assert (await poll(stores, "v")).leases == []


async def test_a_renewal_takes_a_mark_back(stores: Stores, sync_client: SyncClient) -> None:
    """An owner that comes back in time keeps its job; it must be marked anew to be taken."""
    generation = await queued(stores)
    lease = await take(stores)
    await stores.make_due(generation)
    await poll(stores, "v")
    assert renewal(stores, sync_client).renew([lease]) == set()
    assert await stores.owner(generation) == lease.token
    await stores.make_due(generation)
    assert (await poll(stores, "v")).leases == []


async def test_a_renewal_with_an_old_token_is_told_and_changes_nothing(
    stores: Stores, sync_client: SyncClient
) -> None:
    """A thawed owner learns that the job is another's, whose lease is not touched."""
    generation = await queued(stores)
    old = await take(stores, "w")
    await stores.queue.give_back(old)
    new = await take(stores, "v")
    await stores.client.call("ZADD", stores.keys.queue, 5, generation)
    assert renewal(stores, sync_client).renew([old]) == {generation}
    assert await stores.owner(generation) == new.token
    assert int(await stores.client.call("ZSCORE", stores.keys.queue, generation)) == 5


async def test_a_renewal_of_a_finished_job_does_not_bring_it_back(
    stores: Stores, sync_client: SyncClient
) -> None:
    """It is lost; neither queue nor owner is made anew."""
    generation = await queued(stores)
    lease = await take(stores)
    await stores.queue.finish(lease)
    assert renewal(stores, sync_client).renew([lease]) == {generation}
    assert await stores.due_ms(generation) is None
    assert await stores.owner(generation) is None


async def test_one_renewal_covers_many_and_names_only_the_lost(
    stores: Stores, sync_client: SyncClient
) -> None:
    """Of twenty leases two that were taken over come back; the rest are extended."""
    jobs = [await queued(stores) for _ in range(20)]
    leases = (await poll(stores, count=20)).leases
    lost = leases[3], leases[11]
    for lease in lost:
        await stores.queue.give_back(lease)
    await poll(stores, "v")
    for generation in jobs:
        await stores.make_due(generation)
    assert renewal(stores, sync_client).renew(leases) == {lease.generation for lease in lost}
    extended = [await due_within(stores, generation, LEASE) for generation in jobs]
    assert extended.count(False) == len(lost)


async def test_a_renewal_keeps_the_owner_keys_lifetime(
    stores: Stores, sync_client: SyncClient
) -> None:
    """Neither mark nor renewal makes an owner immortal."""
    generation = await queued(stores)
    lease = await take(stores)
    await stores.make_due(generation)
    await poll(stores, "v")
    renewal(stores, sync_client).renew([lease])
    left_ms = await stores.client.call("PTTL", f"arq:in-progress:{generation}")
    assert 0 < left_ms <= LIFE / timedelta(milliseconds=1)


async def test_an_old_token_neither_finishes_nor_gives_back(stores: Stores) -> None:
    """A zombie that thaws after the take-over touches nothing of the new owner's."""
    generation = await queued(stores)
    old = await take(stores, "w")
    await stores.make_due(generation)
    await poll(stores, "v")
    await stores.make_due(generation)
    new = await take(stores, "v")
    keys = await stores.all_keys()
    score = await stores.client.call("ZSCORE", stores.keys.queue, generation)
    wakes = await stores.client.call("LLEN", stores.keys.wake)
    assert not await stores.queue.finish(old)
    assert not await stores.queue.give_back(old)
    assert not await stores.queue.give_back(old, timedelta(seconds=1))
    assert await stores.all_keys() == keys
    assert await stores.client.call("ZSCORE", stores.keys.queue, generation) == score
    assert await stores.client.call("LLEN", stores.keys.wake) == wakes
    assert await stores.owner(generation) == new.token


async def test_the_owner_of_a_marked_job_may_still_let_go_of_it(stores: Stores) -> None:
    """A mark is a warning, not a loss: finishing in its time is finishing."""
    generation = await queued(stores)
    lease = await take(stores)
    await stores.make_due(generation)
    await poll(stores, "v")
    assert await stores.queue.finish(lease)
    assert await stores.due_ms(generation) is None
