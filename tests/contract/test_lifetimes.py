"""No key of a generation stays for ever: lifetimes are set at its creation and at its end."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from shared.events import Entry, EventType
from shared.failures import Failure
from shared.ids import GenerationId
from tests.support.stores import ORDER, Stores, tokens

SLACK_MS = 60_000
"""What a slow machine may take; everything below is hours apart."""

HOURS = {"queue_timeout": 2, "generation_timeout": 3, "retention": 24}


def ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def roughly(expected: timedelta, actual_ms: int) -> bool:
    return ms(expected) - SLACK_MS <= actual_ms <= ms(expected)


async def long_lived(stores: Stores) -> GenerationId:
    """One whose time-outs and retention differ by hours."""
    return await stores.create(**{name: timedelta(hours=h) for name, h in HOURS.items()})


async def test_a_new_generation_lives_as_long_as_it_may_wait_run_and_be_kept(
    stores: Stores,
) -> None:
    """Record and log get the same lifetime, once."""
    generation = await stores.create()
    record_ms, log_ms = await stores.lifetimes_ms(generation)
    assert roughly(ORDER.longest_life, record_ms)
    assert roughly(ORDER.longest_life, log_ms)


async def test_neither_claim_nor_append_changes_a_lifetime(stores: Stores) -> None:
    """A refresh would wake every follower of the log."""
    generation = await stores.create()
    for key in (stores.keys.record(generation), stores.keys.log(generation)):
        await stores.client.call("PEXPIRE", key, 7 * SLACK_MS)
    claim = await stores.claim(generation, "w/1", reset=True)
    entries = tokens(claim.last_id, "a")
    await stores.append(generation, "w/1", entries)
    await stores.append(generation, "w/1", entries)
    await stores.append(generation, "w/1", tokens(entries[-1].id, "b"))
    for left_ms in await stores.lifetimes_ms(generation):
        assert 6 * SLACK_MS < left_ms <= 7 * SLACK_MS


async def _close(stores: Stores, generation: GenerationId) -> None:
    last = (await stores.claim(generation, "w/1")).last_id
    await stores.close(generation, "w/1", Entry(last.successor, EventType.DONE, b"{}"))


async def _cancel(stores: Stores, generation: GenerationId) -> None:
    await stores.store.cancel(generation)


async def _expire(stores: Stores, generation: GenerationId) -> None:
    await stores.pass_deadline(generation)
    await stores.store.expire(generation)


async def _fail(stores: Stores, generation: GenerationId) -> None:
    await stores.store.fail(generation, Failure("x", "x", False))


@pytest.mark.parametrize("end", [_close, _cancel, _expire, _fail])
async def test_every_end_starts_the_retention(
    stores: Stores, end: Callable[[Stores, GenerationId], Awaitable[None]]
) -> None:
    """From the closing entry on record and log are kept for the retention, not longer."""
    generation = await long_lived(stores)
    await end(stores, generation)
    for left_ms in await stores.lifetimes_ms(generation):
        assert roughly(timedelta(hours=HOURS["retention"]), left_ms)


async def test_a_repeated_end_does_not_prolong_the_retention(stores: Stores) -> None:
    """Asking again, in any way, keeps nothing alive."""
    generation = await long_lived(stores)
    last = (await stores.claim(generation, "w/1")).last_id
    done = Entry(last.successor, EventType.DONE, b"{}")
    await stores.close(generation, "w/1", done)
    for key in (stores.keys.record(generation), stores.keys.log(generation)):
        await stores.client.call("PEXPIRE", key, SLACK_MS)
    await stores.close(generation, "w/1", done)
    await stores.store.cancel(generation)
    await stores.store.expire(generation)
    for left_ms in await stores.lifetimes_ms(generation):
        assert 0 < left_ms <= SLACK_MS


async def test_all_a_generation_leaves_in_redis_has_a_lifetime(stores: Stores) -> None:
    """After a whole life only the queue and the wake list, which are shared, stay."""
    generation = await stores.create()
    await stores.queue.offer(generation, lifetime=timedelta(hours=1), max_length=10)
    await stores.queue.release(generation, lifetime=timedelta(hours=1))
    await stores.queue.lease(
        1,
        worker="w",
        lease=timedelta(seconds=2),
        mark=timedelta(seconds=1),
        owner_life=timedelta(days=1),
    )
    await stores.queue.tell("w", "look")
    await stores.store.secret(timedelta(hours=1))
    await stores.claim(generation, "w/1")
    await stores.store.cancel(generation)
    names = sorted(await stores.all_keys())
    left = await stores.client.call_all(("PTTL", name) for name in names)
    forever = {name.decode() for name, left_ms in zip(names, left, strict=True) if left_ms == -1}
    assert forever == {stores.keys.queue, stores.keys.wake}
