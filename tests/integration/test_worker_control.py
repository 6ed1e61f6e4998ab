"""What reaches a worker from outside while it runs: work, cancels, deletions, deadlines."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.generation import State
from shared.ids import GenerationId
from tests.support.processes import Process
from tests.support.stack import expected_text, expected_tokens
from tests.support.wait import wait_until, within
from tests.support.workshop import SharedWorker, Workshop
from worker.standin import Ledger, Outcome

# DESIGN says at once, measured as some milliseconds; the rest is slack for a busy machine. Far
# below the 30 s of silence after which the worker would give the provider up by itself.
AT_ONCE_S = 1.0


async def accept_silent(shop: Workshop, **options: Any) -> GenerationId:
    """A generation whose model says three tokens and then nothing, for as long as one likes."""
    generation = await shop.accept("[standin tokens=9 stall_after=3] Wait", **options)
    await shop.wait_type(generation, "token")
    return generation


async def wait_provider_closed(shop: Workshop) -> None:
    """Wait, not long, until nobody listens to the model any more."""
    async with within(AT_ONCE_S, lambda: "the call to the provider did not end"):
        await shop.standin.ledger.wait_until(_is_silent)
    assert [entry.outcome for entry in shop.standin.ledger.entries] == [Outcome.CLIENT_CLOSED]


def _is_silent(ledger: Ledger) -> bool:
    return ledger.open == 0


def leased_by(worker: Process, generation: GenerationId) -> str:
    """What made the worker take the job: `wake` or `poll`."""
    events = [json.loads(line) for line in worker.lines if generation in line]
    by: str = next(event["by"] for event in events if event["event"] == "job_leased")
    return by


async def test_a_new_generation_wakes_an_idle_worker(shop: Workshop, worker: SharedWorker) -> None:
    """The wake starts it, not the poll that only bounds what a lost wake costs."""
    for number in range(5):
        generation = await shop.accept(f"[standin tokens=2] Wake {number}")
        await shop.closed(generation)
        await shop.wait_idle()
        await worker.process.wait_logged(generation)
        assert leased_by(worker.process, generation) == "wake"


async def test_a_lost_wake_costs_no_more_than_a_poll(shop: Workshop, worker: SharedWorker) -> None:
    """A job that is due but of which nobody told is found by looking."""
    prompt = "[standin tokens=2] Nobody told"
    generation = await shop.accept(prompt, release=False)
    await shop.connection.zadd(shop.keys.queue, {generation: 1})
    assert (await shop.closed(generation)).text == expected_text(prompt)
    await worker.process.wait_logged(generation)
    assert leased_by(worker.process, generation) == "poll"


async def test_many_generations_run_at_once_and_do_not_mix(shop: Workshop) -> None:
    """Each log holds its own answer and nothing of its neighbours'."""
    prompts = [f"[standin tokens=30 pace=300] Number {number}" for number in range(40)]
    generations = [await shop.accept(prompt) for prompt in prompts]
    folded = [await shop.closed(generation) for generation in generations]
    assert [f.text for f in folded] == [expected_text(prompt) for prompt in prompts]


async def test_a_cancel_closes_the_provider_at_once(shop: Workshop, worker: SharedWorker) -> None:
    """The control message ends the call even while the model is silent; the text so far stands."""
    generation = await accept_silent(shop)
    closed = await shop.store.cancel(generation)
    assert closed.worker == worker.name
    await shop.queue.tell(worker.name, f"cancel {generation}")
    await wait_provider_closed(shop)
    folded = await shop.closed(generation)
    assert folded.closing_type == "cancelled"
    assert folded.text == "".join(expected_tokens("[standin tokens=9] Wait")[:3])


async def test_a_cancel_before_the_first_token_closes_the_provider_too(
    shop: Workshop, worker: SharedWorker
) -> None:
    """It does not matter whether the model's server has sent its headers already."""
    generation = await shop.accept("[standin tokens=9 start_ms=60000] Wait")
    async with within(AT_ONCE_S, lambda: "the provider was not asked"):
        await shop.standin.ledger.wait_until(lambda ledger: ledger.open == 1)
    await shop.store.cancel(generation)
    await shop.queue.tell(worker.name, f"cancel {generation}")
    await wait_provider_closed(shop)
    assert (await shop.closed(generation)).text == ""


async def test_a_cancel_of_which_nobody_told_ends_with_the_next_token(shop: Workshop) -> None:
    """The log refuses what comes after its closing entry, and the worker stops."""
    generation = await shop.accept("[standin tokens=5000 pace=50] Talk")
    await shop.wait_type(generation, "token")
    await shop.store.cancel(generation)
    await wait_provider_closed(shop)
    assert (await shop.closed(generation)).closing_type == "cancelled"


async def test_a_cancel_of_one_leaves_the_others_alone(
    shop: Workshop, worker: SharedWorker
) -> None:
    """Only the generation that is named stops."""
    prompt = "[standin tokens=40 pace=80] Go on"
    other = await shop.accept(prompt)
    generation = await accept_silent(shop)
    await shop.store.cancel(generation)
    await shop.queue.tell(worker.name, f"cancel {generation}")
    assert (await shop.closed(other)).text == expected_text(prompt)


async def test_a_deleted_generation_stops_and_leaves_no_job(
    shop: Workshop, worker: SharedWorker
) -> None:
    """Deleting ends the call to the provider; nothing is retried or left in the queue."""
    generation = await accept_silent(shop)
    assert await shop.store.erase(generation) == worker.name
    await shop.queue.tell(worker.name, f"cancel {generation}")
    await wait_provider_closed(shop)
    assert (await shop.types(generation))[-1] == "cancelled"


async def test_a_deadline_that_passed_in_the_queue_ends_it_unasked(shop: Workshop) -> None:
    """The claim closes it as `queue_timeout`; the model is not paid for an answer nobody awaits."""
    generation = await shop.accept(
        "[standin tokens=3] Too late", queue_timeout=timedelta(milliseconds=50), release=False
    )
    record = await shop.record(generation)
    await wait_until(lambda: record.is_overdue(datetime.now(UTC)), "the deadline")
    await shop.make_due(generation)
    folded = await shop.closed(generation)
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == "queue_timeout"
    assert shop.standin.ledger.entries == ()


async def test_a_generation_that_takes_too_long_is_ended(shop: Workshop) -> None:
    """At its deadline the log is closed as `generation_timeout` and the provider is left."""
    generation = await accept_silent(shop, generation_timeout=timedelta(seconds=0.6))
    folded = await shop.closed(generation)
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == "generation_timeout"
    assert folded.text
    await wait_provider_closed(shop)
    assert (await shop.record(generation)).state is State.FAILED


async def test_noise_on_the_control_list_is_no_reason_to_die(
    shop: Workshop, worker: SharedWorker
) -> None:
    """Messages for a generation that is gone, or that make no sense, are passed over."""
    control = shop.keys.control(worker.name)
    for message in (b"", b"cancel", b"cancel gen_unknown", b"dance", b"cancel \xff\xfe"):
        await shop.connection.lpush(control, message)
    prompt = "[standin tokens=2] Still there"
    generation = await shop.accept(prompt)
    assert (await shop.closed(generation)).text == expected_text(prompt)
