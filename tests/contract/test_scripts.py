"""Scripts reach a server that does not know them, and the shared secret is one."""

from datetime import timedelta

import redis.asyncio

from shared.connections import SyncClient
from shared.event_log import AppendReply
from shared.queue import Renewal
from tests.support.fold import check_log
from tests.support.stores import Stores, tokens

LIFE = timedelta(hours=1)


async def forget_scripts(stores: Stores) -> None:
    """What a restart or a fail-over does."""
    await stores.client.call("SCRIPT", "FLUSH")


async def test_moves_go_on_after_the_server_forgot_their_scripts(stores: Stores) -> None:
    """Every single move teaches the server its script when it has to."""
    generation = await stores.create()
    await forget_scripts(stores)
    claim = await stores.claim(generation, "w/1")
    await forget_scripts(stores)
    await stores.append(generation, "w/1", tokens(claim.last_id, "a"))
    await forget_scripts(stores)
    await stores.store.cancel(generation)
    assert await stores.kinds(generation) == ["queued", "started", "token", "cancelled"]
    check_log(await stores.entries(generation))


async def test_a_pipeline_to_a_server_without_scripts_is_taken_whole_and_once(
    stores: Stores,
) -> None:
    """Commands that met no script are sent again, in order, and answered in their places."""
    held = []
    for _ in range(3):
        generation = await stores.create()
        held.append((generation, (await stores.claim(generation, "w/1")).last_id))
    await forget_scripts(stores)
    commands = []
    for generation, last in held:
        first, second = tokens(last, "a", "b")
        commands.append(stores.log.append_command(generation, "w/1", first.id, [first]))
        commands.append(stores.log.append_command(generation, "w/1", second.id, [second]))
    replies = await stores.log.send(commands)
    ends = [reply.last_id for reply in replies if isinstance(reply, AppendReply)]
    assert ends == [end for _, last in held for end in (last.successor, last.successor.successor)]
    for generation, last in held:
        assert await stores.log.read(generation, last) == tokens(last, "a", "b")


async def test_the_queue_and_its_renewal_go_on_too(stores: Stores, sync_client: SyncClient) -> None:
    """Offer, lease, renew and finish each survive a server that forgot."""
    generation = await stores.create()
    await forget_scripts(stores)
    await stores.queue.offer(generation, lifetime=LIFE, max_length=10)
    await stores.make_due(generation)
    await forget_scripts(stores)
    leased = await stores.queue.lease(
        1, worker="w", lease=timedelta(seconds=2), mark=timedelta(seconds=1), owner_life=LIFE
    )
    await forget_scripts(stores)
    assert Renewal(sync_client, stores.keys, timedelta(seconds=2)).renew(leased.leases) == set()
    await forget_scripts(stores)
    assert await stores.queue.finish(leased.leases[0])


async def test_two_processes_agree_on_the_secret(
    stores: Stores, redis_client: redis.asyncio.Redis
) -> None:
    """Whoever comes first draws it; all others, and every later call, get the same."""
    other = Stores(redis_client)
    first = await stores.store.secret(LIFE)
    assert await other.store.secret(LIFE) == first
    assert await stores.store.secret(LIFE) == first
    assert len(first) >= 32


async def test_each_deployment_has_a_secret_of_its_own(stores: Stores) -> None:
    """It is drawn, not built in: an emptied Redis gets another."""
    first = await stores.store.secret(LIFE)
    await stores.client.call("DEL", stores.keys.secret)
    assert await stores.store.secret(LIFE) != first


async def test_the_secret_outlives_its_last_use(stores: Stores) -> None:
    """Every use starts its lifetime anew."""
    await stores.store.secret(timedelta(seconds=10))
    await stores.store.secret(LIFE)
    left_ms = await stores.client.call("PTTL", stores.keys.secret)
    assert LIFE - timedelta(minutes=1) < timedelta(milliseconds=left_ms) <= LIFE
