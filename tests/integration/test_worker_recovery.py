"""Workers that die, freeze, drain, and a Redis that goes away: what the log says afterwards."""

import json
from collections.abc import AsyncIterator

import pytest

from shared.generation import Surface
from shared.ids import GenerationId
from shared.keys import JOB_PREFIX
from tests.support.fold import check_log
from tests.support.processes import Process
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.stack import expected_text, open_model
from tests.support.wait import wait_until
from tests.support.workshop import Workshop, open_workshop

# A lapsed job is taken this long after it was marked; the tests move scores for the rest.
QUICK_MARK = {"mark": "0.3"}

OUTLASTS_A_LEASE = 6
"""Failed renewals, one each 0.2 s, until a lease of 0.6 s has lapsed for long."""


@pytest.fixture
async def shop(valkey: RedisServer) -> AsyncIterator[Workshop]:
    """An empty Redis and a model that was asked nothing yet, without any worker."""
    async with open_model(0) as model, open_workshop(valkey, model) as shop:
        yield shop
        await shop.wait_idle()


async def wait_tokens(shop: Workshop, generation: GenerationId, count: int) -> None:
    """Wait until the log holds that many token entries, whoever wrote them."""

    async def are_there() -> bool:
        return (await shop.types(generation)).count("token") >= count

    await wait_until(are_there, f"{count} tokens in the log")


def logged(worker: Process, event: str) -> list[dict[str, object]]:
    """What the worker logged under that name."""
    lines = [json.loads(line) for line in worker.lines if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def test_a_killed_workers_generation_runs_anew_with_a_reset(shop: Workshop) -> None:
    """The next attempt says other words, and nothing of the first is left in the answer."""
    prompt = "[standin tokens=30 pace=60 vary=1] Again"
    async with shop.open_worker() as victim:
        generation = await shop.accept(prompt)
        await wait_tokens(shop, generation, 3)
        victim.kill()
    async with shop.open_worker(**QUICK_MARK):
        await shop.make_due(generation)
        folded = await shop.ended(generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt, attempt=2))
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh", "restart"]
    assert (await shop.types(generation)).count("reset") == 1


async def test_recovery_needs_nobodys_help_and_keeps_its_bound(shop: Workshop) -> None:
    """After kill -9 another worker starts within lease + mark + 1 s, by itself."""
    async with shop.open_worker() as victim:
        generation = await shop.accept("[standin tokens=200 pace=50] Bound")
        await wait_tokens(shop, generation, 1)
        async with shop.open_worker():
            victim.kill()

            async def is_restarted() -> bool:
                return (await shop.types(generation)).count("started") == 2

            await wait_until(is_restarted, "the second attempt", timeout_s=2 + 1 + 1 + 1)
            await shop.store.cancel(generation)
            await shop.wait_idle()


async def test_a_chat_answer_that_has_begun_fails_with_its_worker(shop: Workshop) -> None:
    """Who cannot be told to forget is told the truth: the text so far stands, and the end."""
    prompt = "[standin tokens=60 pace=30 kind=plain] Chat"
    async with shop.open_worker() as victim:
        generation = await shop.accept(prompt, surface=Surface.CHAT)
        await wait_tokens(shop, generation, 3)
        victim.kill()
    async with shop.open_worker(**QUICK_MARK):
        await shop.make_due(generation)
        folded = await shop.ended(generation)
        await shop.wait_idle()
    assert folded.closing_data is not None
    assert (folded.closing_data["code"], folded.closing_data["retryable"]) == ("worker_lost", True)
    assert folded.text
    assert expected_text(prompt).startswith(folded.text)
    assert len(shop.standin.ledger.entries) == 1


async def test_a_chat_answer_that_has_not_begun_runs_anew_unnoticed(shop: Workshop) -> None:
    """Before the first token there is nothing to forget: no reset, and the whole answer."""
    prompt = "[standin tokens=20 start_ms=60000 times=1 vary=1] Chat"
    async with shop.open_worker() as victim:
        generation = await shop.accept(prompt, surface=Surface.CHAT)
        await wait_until(lambda: shop.standin.ledger.open == 1, "the model to be asked")
        victim.kill()
    async with shop.open_worker(**QUICK_MARK):
        await shop.make_due(generation)
        folded = await shop.ended(generation)
    expected = expected_text(prompt, attempt=2).replace("\r\n", "\n").replace("\r", "\n")
    assert (folded.closing_type, folded.text) == ("done", expected)
    assert "reset" not in await shop.types(generation)


async def test_attempts_are_bounded(shop: Workshop) -> None:
    """A generation that takes its workers down is given up, and its client is told."""
    async with shop.open_worker() as victim:
        generation = await shop.accept("[standin tokens=60 pace=30] Poison")
        await wait_tokens(shop, generation, 1)
        victim.kill()
    async with shop.open_worker(max_deaths="0", **QUICK_MARK):
        await shop.make_due(generation)
        folded = await shop.ended(generation)
        await shop.wait_idle()
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == "worker_lost"
    assert len(shop.standin.ledger.entries) == 1


async def test_a_thawed_zombie_touches_nothing_of_the_new_owners(shop: Workshop) -> None:
    """Frozen past its lease and back: it can neither write, nor close, nor delete the job."""
    prompt = "[standin tokens=120 pace=40 vary=1] Zombie"
    async with shop.open_worker() as zombie:
        generation = await shop.accept(prompt)
        await wait_tokens(shop, generation, 3)
        zombie.freeze()
        async with shop.open_worker(**QUICK_MARK):
            await shop.make_due(generation)

            async def is_taken_over() -> bool:
                return (await shop.types(generation))[-1:] == ["token"] and (
                    await shop.types(generation)
                ).count("started") == 2

            await wait_until(is_taken_over, "the new owner's first token")
            owner = await shop.owner(generation)
            zombie.thaw()
            # Told by the log or by its lease, whichever comes first.
            await zombie.wait_logged("attempt_stopped")
            await wait_until(lambda: shop.standin.ledger.open == 1, "the zombie's call to end")
            assert await shop.owner(generation) == owner
            assert await shop.connection.exists(JOB_PREFIX + generation) == 1
            folded = await shop.ended(generation)
            assert (folded.closing_type, folded.text) == ("done", expected_text(prompt, attempt=2))
            await shop.wait_idle()
        assert zombie.running


async def test_a_zombie_that_thaws_after_the_end_changes_nothing(shop: Workshop) -> None:
    """Even with all its tokens still in its socket it finds the log closed, and lives on."""
    prompt = "[standin tokens=30 pace=60 vary=1] Late zombie"
    async with shop.open_worker() as zombie:
        generation = await shop.accept(prompt)
        await wait_tokens(shop, generation, 2)
        zombie.freeze()
        async with shop.open_worker(**QUICK_MARK):
            await shop.make_due(generation)
            await shop.ended(generation)
            await wait_until(lambda: shop.standin.ledger.open == 0, "both answers to be sent")
        log = await shop.log(generation)
        zombie.thaw()
        again = "[standin tokens=5] Alive"
        assert (await shop.ended(await shop.accept(again))).text == expected_text(again)
        await shop.wait_idle()
        assert await shop.log(generation) == log
        check_log(log)


async def test_a_draining_worker_finishes_what_can_finish_and_hands_the_rest_over(
    shop: Workshop,
) -> None:
    """SIGTERM: the short answer ends undisturbed, the long one is another worker's at once."""
    short = "[standin tokens=20 pace=40] Short"
    long = "[standin tokens=50 pace=25 vary=1] Long"
    async with shop.open_worker(drain="1") as leaving, shop.open_worker() as staying:
        staying.freeze()
        short_id, long_id = await shop.accept(short), await shop.accept(long)
        await wait_tokens(shop, short_id, 1)
        await wait_tokens(shop, long_id, 1)
        staying.thaw()
        leaving.terminate()
        await leaving.wait_logged("worker_draining")
        refused = await shop.accept("[standin tokens=2] Not by the one that leaves")
        assert await leaving.wait() == 0
        assert logged(leaving, "worker_drained")[0]["handed_over"] == 1
        assert not [e for e in logged(leaving, "job_leased") if e["generation"] == refused]
        folded = await shop.ended(short_id)
        assert (folded.text, len(folded.attempts)) == (expected_text(short), 1)
        folded = await shop.ended(long_id)
        assert folded.text == expected_text(long, attempt=2)
        assert [attempt["resume"] for attempt in folded.attempts] == ["fresh", "restart"]
        await shop.ended(refused)


async def test_an_idle_worker_ends_at_once_and_in_order(shop: Workshop) -> None:
    """Without work there is nothing to wait for: SIGTERM is exit status 0, without a complaint."""
    async with shop.open_worker() as worker:
        worker.terminate()
        assert await worker.wait(timeout_s=3) == 0
    assert not [line for line in worker.lines if "Traceback" in line]


async def test_a_worker_that_is_told_to_end_while_redis_is_away_ends() -> None:
    """It cannot hand over, so its leases lapse: it does not wait for a Redis that may be gone."""
    async with (
        open_redis_server() as server,
        open_model(0) as model,
        open_workshop(server, model) as shop,
        shop.open_worker(drain="0.2") as worker,
    ):
        generation = await shop.accept("[standin tokens=9 stall_after=3] Alone")
        await shop.wait_type(generation, "token")
        server.kill()
        worker.terminate()
        assert await worker.wait(timeout_s=8) == 0
        await wait_until(lambda: model.ledger.open == 0, "the call to the provider to end")


async def test_servers_without_a_finish_reason_can_be_allowed(shop: Workshop) -> None:
    """Where the operator says so, a clean end is the end; a torn one still is not."""
    ends, torn = "[standin tokens=20 end_after=9] A", "[standin tokens=20 cut_after=9] B"
    async with shop.open_worker(require_finish_reason="false"):
        folded = await shop.ended(await shop.accept(ends))
        assert (folded.closing_type, folded.closing_data) == (
            "done",
            {"finish_reason": None, "usage": None},
        )
        folded = await shop.ended(await shop.accept(torn))
        assert folded.closing_data is not None
        assert folded.closing_data["code"] == "provider_truncated"


async def test_slots_bound_what_runs_at_once(shop: Workshop) -> None:
    """Beyond `WORKER_MAX_GENERATIONS` jobs wait, and a slot that becomes free is used."""
    prompts = [f"[standin tokens=10 pace=100] Slot {number}" for number in range(6)]
    async with shop.open_worker(max_generations="2"):
        generations = [await shop.accept(prompt) for prompt in prompts]
        for generation, prompt in zip(generations, prompts, strict=True):
            assert (await shop.ended(generation)).text == expected_text(prompt)
    calls = [(e.received_at, e.ended_at or 0.0) for e in shop.standin.ledger.entries]
    assert max(sum(a <= at < b for a, b in calls) for at, _ in calls) == 2


async def test_running_generations_outlive_a_restart_of_redis() -> None:
    """kill -9, away for longer than a lease, back with its file: every answer goes on, exact."""
    prompts = [f"[standin tokens=120 pace=40] Outage {number}" for number in range(4)]
    async with (
        open_redis_server(aof=True) as server,
        open_model(0) as model,
        open_workshop(server, model) as shop,
        shop.open_worker(lease="0.6", renewal="0.2") as worker,
    ):
        generations = [await shop.accept(prompt) for prompt in prompts]
        for generation in generations:
            await wait_tokens(shop, generation, 5)
        server.kill()
        await wait_until(
            lambda: len(logged(worker, "lease_renewal_failed")) >= OUTLASTS_A_LEASE,
            "the outage to outlast the leases",
        )
        await server.start()
        for generation, prompt in zip(generations, prompts, strict=True):
            folded = await shop.ended(generation)
            assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
            assert [attempt["resume"] for attempt in folded.attempts] == ["fresh"]
        await shop.wait_idle()
        assert worker.running
        assert len(model.ledger.entries) == len(prompts)
