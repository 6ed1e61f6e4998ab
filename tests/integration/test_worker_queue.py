"""The worker at arq's door: jobs without a record, unreadable ones, and what is relied on."""

import inspect
import json
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import arq.worker
import pytest

from shared.ids import GenerationId, draw_generation_id
from shared.keys import JOB_PREFIX, OWNER_PREFIX, RETRY_PREFIX
from tests.support.stack import expected_text
from tests.support.wait import wait_until
from tests.support.workshop import SharedWorker, Workshop
from worker.settings import WorkerSettings


async def fail_job(shop: Workshop, job: bytes | None) -> dict[str, Any]:
    """Have a worker meet `job` (None: no job at all) in place of the right one; its failure."""
    generation = await shop.accept("[standin tokens=3] Unreadable", release=False)
    if job is None:
        await shop.connection.delete(JOB_PREFIX + generation)
    else:
        await shop.connection.set(JOB_PREFIX + generation, job, px=60_000)
    await shop.make_due(generation)
    folded = await shop.closed(generation)
    assert folded.closing_type == "failed"
    assert folded.closing_data is not None
    return folded.closing_data


async def check_alive(shop: Workshop) -> None:
    """The worker does the next job as if nothing had been."""
    prompt = "[standin tokens=3] Still alive"
    assert (await shop.closed(await shop.accept(prompt))).text == expected_text(prompt)


async def test_the_job_in_redis_is_json(shop: Workshop) -> None:
    """Nothing is pickled: a job is readable JSON whose only argument is the generation's id."""
    generation = await shop.accept("[standin tokens=3] Look", release=False)
    job = json.loads(await shop.connection.get(JOB_PREFIX + generation))
    assert (job["f"], job["a"], job["k"]) == ("generate", [generation], {})
    await shop.make_due(generation)
    await shop.closed(generation)


class Bomb:
    """Something that a reader of pickles would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


async def test_a_pickled_job_is_refused_and_not_run(shop: Workshop, tmp_path: Path) -> None:
    """Whoever can write to Redis still cannot make a worker run code."""
    fuse = tmp_path / "fuse"
    job = pickle.dumps({"t": None, "f": "generate", "a": (Bomb(fuse),), "k": {}, "et": 0})
    failure = await fail_job(shop, job)
    assert (failure["code"], failure["retryable"]) == ("job_undecodable", False)
    assert not fuse.exists()
    await check_alive(shop)


@pytest.mark.parametrize(
    "job",
    [
        b"\x80\xff\x00 not JSON",
        b"",
        b"[]",
        b"{}",
        b'{"t":null,"f":"dance","a":[],"k":{},"et":0}',
    ],
)
async def test_a_job_that_cannot_be_read_fails_its_generation(shop: Workshop, job: bytes) -> None:
    """Its client hears of it at once, and the worker lives on."""
    assert (await fail_job(shop, job))["code"] == "job_undecodable"
    await check_alive(shop)


@pytest.mark.parametrize("arguments", [[], ["gen_" + "a" * 32], [1], ["x", "y"]])
async def test_a_job_with_wrong_arguments_does_not_run_for_ever(
    shop: Workshop, arguments: list[object]
) -> None:
    """A job of which every run raises is not run again and again without a pause."""
    job: dict[str, Any] = {"t": None, "f": "generate", "a": arguments, "k": {}, "et": 0}
    assert (await fail_job(shop, json.dumps(job).encode()))["code"] == "job_undecodable"
    await check_alive(shop)


async def test_a_job_that_expired_fails_its_generation(shop: Workshop) -> None:
    """A queue entry whose job is gone still tells the client the end."""
    failure = await fail_job(shop, None)
    assert (failure["code"], failure["retryable"]) == ("job_expired", True)
    await check_alive(shop)


async def test_a_job_without_a_record_is_given_back_once_and_then_dropped(shop: Workshop) -> None:
    """A crash of the API between promise and record costs two looks, and leaves nothing."""
    generation = draw_generation_id()
    await shop.queue.offer(generation, lifetime=timedelta(seconds=60), max_length=10)
    await shop.make_due(generation)

    async def was_given_back() -> bool:
        tries = await shop.connection.get(RETRY_PREFIX + generation)
        return tries == b"1" and await shop.owner(generation) is None

    await wait_until(was_given_back, "the job to be given back")
    seconds, micros = await shop.connection.time()
    due_ms = await shop.connection.zscore(shop.keys.queue, generation)
    assert 0 < due_ms / 1000 - seconds - micros / 1e6 <= 5
    await shop.make_due(generation)
    await shop.wait_idle()
    assert await shop.connection.exists(RETRY_PREFIX + generation) == 0


async def test_a_job_of_a_generation_that_has_ended_just_goes(shop: Workshop) -> None:
    """A repeat of the promise after the end runs nothing."""
    generation = await shop.accept("[standin tokens=3] Once", release=False)
    await shop.store.cancel(generation)
    await shop.make_due(generation)
    await shop.wait_idle()
    assert shop.standin.ledger.entries == ()
    assert await shop.types(generation) == ["queued", "cancelled"]


async def let_lapse_and_be_marked(shop: Workshop, generation: GenerationId) -> None:
    """Put the job where it is when its lease lapsed, somebody marked it, and then died."""
    owner = await shop.owner(generation)
    assert owner is not None
    pipe = shop.connection.pipeline(transaction=True)
    pipe.set(OWNER_PREFIX + generation, b"~" + owner.removeprefix(b"~"), keepttl=True)
    pipe.zadd(shop.keys.queue, {generation: 1})
    pipe.lpush(shop.keys.wake, generation)
    await pipe.execute()


async def test_a_worker_that_takes_its_own_lapsed_job_again_goes_on(
    shop: Workshop, worker: SharedWorker
) -> None:
    """After a freeze a worker may meet its own job: the answer goes on, nothing runs twice."""
    prompt = "[standin tokens=60 pace=30] Mine"
    generation = await shop.accept(prompt)
    await shop.wait_type(generation, "token")
    for _ in range(3):
        before = await shop.owner(generation)
        await let_lapse_and_be_marked(shop, generation)

        async def has_new_lease(before: bytes | None = before) -> bool:
            owner = await shop.owner(generation)
            return owner is not None and not owner.startswith(b"~") and owner != before

        await wait_until(has_new_lease, "the job to be leased anew")
    folded = await shop.closed(generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh"]
    await shop.wait_idle()
    assert not any("job_crashed" in line for line in worker.process.lines)


def parameters(method: str) -> list[str]:
    return list(inspect.signature(getattr(arq.worker.Worker, method)).parameters)


def test_arqs_private_names_are_what_the_worker_relies_on() -> None:
    """A release of arq that renames what is overridden fails here and not in production."""
    assert parameters("main") == ["self"]
    assert parameters("_poll_iteration") == ["self"]
    assert parameters("run_job") == ["self", "job_id", "score"]
    assert parameters("finish_failed_job") == ["self", "job_id", "result_data"]
    assert parameters("finish_job") == [
        *("self", "job_id", "finish", "result_data", "result_timeout_s"),
        *("keep_result_forever", "incr_score", "keep_in_progress"),
    ]
    for name in ("main", "_poll_iteration", "run_job", "finish_job", "finish_failed_job"):
        assert inspect.iscoroutinefunction(getattr(arq.worker.Worker, name))


async def test_every_slot_has_a_call_to_the_model(shop: Workshop) -> None:
    """Nothing beneath the worker bounds them: what it says it runs, it runs."""
    slots = WorkerSettings.model_fields["max_generations"].default
    told = "[standin tokens=2 first_token_ms=50000]"
    generations = [await shop.accept(f"{told} {number}") for number in range(slots)]
    await wait_until(lambda: shop.standin.ledger.open == slots, f"{slots} calls at once")
    for generation in generations:
        await shop.cancel(generation)
    await wait_until(lambda: shop.standin.ledger.open == 0, "all calls to be closed")
