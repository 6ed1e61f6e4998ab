"""What somebody else wrote into our keys must end no worker, nor touch the other generations in it:
the one that it belongs to ends, with a code.
"""

import pytest

from shared.ids import GenerationId
from shared.keys import JOB_PREFIX, OWNER_PREFIX, RETRY_PREFIX
from tests.support.neighbour import Neighbour, check_alive, logged
from tests.support.stack import expected_text
from tests.support.wait import wait_until
from tests.support.workshop import SharedWorker, Workshop

GARBAGE = {
    **{"request": "not JSON", "state": "dancing", "epoch": "x", "deadline": ""},
    **{"attempts": "many", "model": b"\xff\xfe", "reset_at": "no id", "timeout_ms": "long"},
}
FAILS = ("poll_failed", "lease_renewal_failed")
NO_IDS = [b"", b"not an id", b"\x00\n", b"}{*?[", b"x" * 100_000, b"\xff\xfe"]
NOISE = [b"", b"cancel", b"dance", b"\x00\xff\xfe", b"cancel \xff", b"cancel gen_unknown"]
FLOOD = [b"x" * 8_000_000, *NOISE * 200]


async def make_list(shop: Workshop, key: str) -> None:
    """Put a key of another type in the place of ours."""
    await shop.connection.delete(key)
    await shop.connection.lpush(key, "garbage")


async def accept(shop: Workshop, number: int = 0) -> GenerationId:
    """A generation that is promised, and not due yet."""
    return await shop.accept(f"[standin tokens=3] {number}", release=False)


async def is_heard(shop: Workshop, messages: str) -> bool:
    return not await shop.connection.exists(messages)


async def check_failed(shop: Workshop, generation: GenerationId, code: str) -> None:
    """It ended, for that reason, and its job is gone."""
    folded = await shop.ended(generation)
    assert folded.closing_type == "failed"
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == code


# --- of one generation ----------------------------------------------------------------------------


async def test_records_that_cannot_be_read_end_and_harm_no_other(
    shop: Workshop, worker: SharedWorker
) -> None:
    """Garbage of every sort: each ends at the first look, with one line; the neighbour goes on."""
    spoilt = [await accept(shop, number) for number in range(len(GARBAGE) + 1)]
    for generation, (field, value) in zip(spoilt, GARBAGE.items(), strict=False):
        await shop.connection.hset(shop.keys.record(generation), field, value)
    await make_list(shop, shop.keys.record(spoilt[-1]))
    neighbour = await Neighbour.begin(shop)
    for generation in spoilt:
        await shop.make_due(generation)
    for generation in spoilt:
        await check_failed(shop, generation, "record_unreadable")
        assert len(logged(worker.process, "record_unreadable", generation)) == 1
        assert len(logged(worker.process, "job_leased", generation)) == 1
    await neighbour.check()
    await check_alive(shop)
    await shop.connection.delete(shop.keys.record(spoilt[-1]))


async def test_a_log_of_another_type_costs_its_job_and_one_line(
    shop: Workshop, worker: SharedWorker
) -> None:
    """There is nothing that its end could be written to: it is given up at once."""
    generation = await accept(shop)
    await make_list(shop, shop.keys.log(generation))
    await shop.make_due(generation)
    await shop.wait_idle()
    (line,) = logged(worker.process, "record_unreadable", generation)
    assert line["is_ended"] is False
    assert len(logged(worker.process, "job_leased", generation)) == 1
    await check_alive(shop)
    await shop.connection.delete(shop.keys.log(generation))


@pytest.mark.parametrize("field", ["state", "epoch"])
async def test_a_record_that_is_garbled_under_its_writer_ends_only_that(
    shop: Workshop, field: str
) -> None:
    """In the middle of an answer: what was said stands, the call ends, the neighbour goes on."""
    neighbour = await Neighbour.begin(shop)
    victim = await Neighbour.begin(shop, tokens=500)
    await shop.connection.hset(shop.keys.record(victim.generation), field, "x")
    await check_failed(shop, victim.generation, "record_unreadable")
    await neighbour.check()


@pytest.mark.parametrize("prefix", [JOB_PREFIX, RETRY_PREFIX])
async def test_a_job_key_of_another_type_is_a_job_that_cannot_be_read(
    shop: Workshop, worker: SharedWorker, prefix: str
) -> None:
    """Its client hears of it at once, and none of its keys is left."""
    generation = await accept(shop)
    await make_list(shop, prefix + generation)
    await shop.make_due(generation)
    await check_failed(shop, generation, "job_undecodable")
    await shop.wait_idle()
    assert not await shop.connection.exists(RETRY_PREFIX + generation)
    assert logged(worker.process, "job_crashed", generation) == []


async def test_a_job_and_a_record_that_cannot_be_read_end_too(shop: Workshop) -> None:
    """Whichever is found first."""
    generation = await accept(shop)
    await make_list(shop, JOB_PREFIX + generation)
    await shop.connection.hset(shop.keys.record(generation), "epoch", "x")
    await shop.make_due(generation)
    await check_failed(shop, generation, "record_unreadable")


async def test_an_owner_key_of_another_type_costs_its_owner_the_lease(
    shop: Workshop, worker: SharedWorker
) -> None:
    """Its answer begins anew; all others are polled and renewed as ever."""
    neighbour, waiting = await Neighbour.begin(shop), await accept(shop)
    prompt = "[standin tokens=60 pace=30] Robbed"
    robbed = await shop.accept(prompt)
    await shop.wait_type(robbed, "token")
    for generation in (robbed, waiting):
        await make_list(shop, OWNER_PREFIX + generation)
    await shop.make_due(waiting)
    assert (await shop.closed(waiting)).closing_type == "done"
    await check_alive(shop)
    await neighbour.check()
    assert (await shop.closed(robbed)).text == expected_text(prompt)


@pytest.mark.parametrize("score", ["+inf", "1e300", "1e18"])
async def test_a_score_beyond_all_time_ends_no_idle_worker(shop: Workshop, score: str) -> None:
    """It is the earliest of all, so that the worker would sleep for that long."""
    generation = await accept(shop)
    await shop.connection.zadd(shop.keys.queue, {generation: score})
    for _ in range(2):  # it has slept in between
        await shop.connection.lpush(shop.keys.wake, "look")
        await wait_until(lambda: is_heard(shop, shop.keys.wake), "a look")
    await check_alive(shop)
    await shop.make_due(generation)
    assert (await shop.closed(generation)).closing_type == "done"


# --- of all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["1", "-inf"])
async def test_members_of_the_queue_that_are_no_ids_just_go(shop: Workshop, score: str) -> None:
    """Whoever put them there, they are looked at once; what is queued and what runs goes on."""
    neighbour = await Neighbour.begin(shop, tokens=20)
    await shop.connection.zadd(shop.keys.queue, dict.fromkeys(NO_IDS, score))
    await check_alive(shop)
    await neighbour.check()
    await shop.wait_idle()


async def test_a_queue_of_another_type_only_costs_time(
    shop: Workshop, worker: SharedWorker
) -> None:
    """Neither poll nor renewal ends what runs; both say so once, and go on when it is right."""
    neighbour = await Neighbour.begin(shop)
    polls, renewals = (len(logged(worker.process, name)) for name in FAILS)
    await shop.connection.rename(shop.keys.queue, "aside")
    await shop.connection.lpush(shop.keys.queue, "garbage")
    wrong = "WRONGTYPE"
    await wait_until(
        lambda: (
            len(logged(worker.process, FAILS[0], wrong)) > polls
            and len(logged(worker.process, FAILS[1], wrong)) > renewals
        ),
        "poll and renewal to fail",
    )
    await shop.connection.rename("aside", shop.keys.queue)
    await neighbour.check()
    await check_alive(shop)


@pytest.mark.parametrize("name", ["wake", "control"])
async def test_a_list_of_another_type_only_costs_the_wake(
    shop: Workshop, worker: SharedWorker, name: str
) -> None:
    """Where the worker cannot listen it looks instead: work is found, what runs goes on."""
    key = shop.keys.wake if name == "wake" else shop.keys.control(worker.name)
    neighbour = await Neighbour.begin(shop)
    await shop.connection.set(key, "garbage")
    await check_alive(shop)
    await shop.connection.delete(key)
    await neighbour.check()
    await check_alive(shop)


async def test_a_flood_of_noise_hides_no_cancel(shop: Workshop, worker: SharedWorker) -> None:
    """Behind hundreds of messages without a sense, one of them huge, the real one is heard."""
    neighbour = await Neighbour.begin(shop)
    generation = await shop.accept("[standin tokens=9 stall_after=3] Wait")
    await shop.wait_type(generation, "token")
    await shop.store.cancel(generation)
    await shop.connection.lpush(shop.keys.control(worker.name), f"cancel {generation}", *FLOOD)
    await wait_until(lambda: shop.standin.ledger.open == 1, "the call to the provider to end")
    await neighbour.check()
    control = shop.keys.control(worker.name)
    await wait_until(lambda: is_heard(shop, control), "all messages to be heard")
