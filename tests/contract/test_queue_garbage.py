"""What somebody else wrote into the queue's keys costs the one job it belongs to, if that."""

from datetime import timedelta

import pytest

from shared.connections import SyncClient
from shared.errors import StoreUnavailable
from shared.ids import GenerationId, draw_generation_id
from shared.keys import JOB_PREFIX, OWNER_PREFIX, RETRY_PREFIX
from shared.queue import Leased, Renewal
from tests.support.stores import Stores

LIFE = timedelta(hours=1)
LEASE = timedelta(seconds=60)


async def queued(stores: Stores) -> GenerationId:
    """A job that is due now."""
    generation = draw_generation_id()
    await stores.queue.offer(generation, lifetime=LIFE, max_length=10)
    await stores.queue.release(generation, lifetime=LIFE)
    return generation


async def poll(stores: Stores) -> Leased:
    return await stores.queue.lease(10, worker="w", lease=LEASE, mark=LEASE, owner_life=LIFE)


async def make_list(stores: Stores, key: str) -> None:
    """Put a key of another type in the place of ours."""
    await stores.client.call("DEL", key)
    await stores.client.call("RPUSH", key, "garbage")


async def test_an_owner_key_of_another_type_counts_as_none(stores: Stores) -> None:
    """Its job is leased like every other in the same poll, under a token of its own."""
    spoilt, other = await queued(stores), await queued(stores)
    await make_list(stores, OWNER_PREFIX + spoilt)
    leases = {lease.generation: lease for lease in (await poll(stores)).leases}
    assert set(leases) == {spoilt, other}
    assert await stores.owner(spoilt) == leases[spoilt].token


async def test_a_renewal_loses_only_the_lease_whose_owner_key_is_of_another_type(
    stores: Stores, sync_client: SyncClient
) -> None:
    """All others are renewed by the same call."""
    spoilt, other = await queued(stores), await queued(stores)
    leases = (await poll(stores)).leases
    await make_list(stores, OWNER_PREFIX + spoilt)
    await stores.make_due(other)
    assert Renewal(sync_client, stores.keys, LEASE).renew(leases) == {spoilt}
    due_ms = await stores.due_ms(other)
    assert due_ms is not None
    assert due_ms > 0


async def test_who_lost_its_owner_key_to_garbage_lets_go_of_nothing(stores: Stores) -> None:
    """As if another had the job by now."""
    spoilt = await queued(stores)
    (lease,) = (await poll(stores)).leases
    await make_list(stores, OWNER_PREFIX + spoilt)
    assert not await stores.queue.finish(lease)
    assert not await stores.queue.give_back(lease)
    assert await stores.due_ms(spoilt) is not None


@pytest.mark.parametrize("score", ["+inf", "1e300", "1e18"])
async def test_a_job_that_is_due_beyond_all_time_is_never_due(stores: Stores, score: str) -> None:
    """The wait for it is one that a clock can hold, and whatever else is due is leased."""
    await stores.client.call("ZADD", stores.keys.queue, score, draw_generation_id())
    alone = await poll(stores)
    assert alone.leases == []
    assert alone.next_due is not None
    assert alone.next_due > timedelta(hours=1)
    other = await queued(stores)
    assert [lease.generation for lease in (await poll(stores)).leases] == [other]


async def test_a_release_makes_a_job_due_although_nobody_can_be_woken(stores: Stores) -> None:
    """A wake list of another type costs the wake, not the move; and so does one of a give-back."""
    await stores.client.call("SET", stores.keys.wake, "garbage")
    generation = await queued(stores)
    (lease,) = (await poll(stores)).leases
    assert lease.generation == generation
    assert await stores.queue.give_back(lease)
    assert [lease.generation for lease in (await poll(stores)).leases] == [generation]


async def test_a_message_that_cannot_be_left_is_told_as_such(stores: Stores) -> None:
    """A control list of another type: whoever tells goes on, as if Redis were away."""
    await stores.client.call("SET", stores.keys.control("w"), "garbage")
    with pytest.raises(StoreUnavailable):
        await stores.queue.tell("w", "look")


async def test_a_member_that_is_no_text_leaves_nothing_behind(stores: Stores) -> None:
    """It goes from the queue, and with it whatever other keys bear its name."""
    member = b"\xff\xfe"
    await stores.client.call("ZADD", stores.keys.queue, 1, member)
    for prefix in (JOB_PREFIX, RETRY_PREFIX):
        await stores.client.call("SET", prefix.encode() + member, "garbage")
    other = await queued(stores)
    assert [lease.generation for lease in (await poll(stores)).leases] == [other]
    assert await stores.queue.length() == 1
    assert not [key for key in await stores.all_keys() if member in key]


async def test_a_queue_of_another_type_is_as_good_as_away(
    stores: Stores, sync_client: SyncClient
) -> None:
    """Every call says so, touching nothing; all go on once the queue is what it was."""
    generation = await queued(stores)
    (lease,) = (await poll(stores)).leases
    await make_list(stores, stores.keys.queue)
    renewal = Renewal(sync_client, stores.keys, LEASE)
    for call in (
        lambda: poll(stores),
        lambda: stores.queue.renew(lease, LEASE),
        lambda: stores.queue.finish(lease),
        lambda: stores.queue.give_back(lease),
        lambda: stores.queue.length(),
        lambda: stores.queue.offer(generation, lifetime=LIFE, max_length=10),
    ):
        with pytest.raises(StoreUnavailable):
            await call()
    with pytest.raises(StoreUnavailable):
        renewal.renew([lease])
    assert await stores.owner(generation) == lease.token
    await stores.client.call("DEL", stores.keys.queue)
    assert renewal.renew([lease]) == set()
    assert await stores.queue.finish(lease)
    assert await stores.all_keys() == {stores.keys.wake.encode()}
