"""A cancel, from any API process, of what waits, runs, stands still or has lost its worker.

The API writes the end itself: it is in the log when the answer to the POST is there, whatever
became of the worker, which is told and stops its provider. Redis brings word of a cancel twice:
by a message, and by the log itself, at which every owner looks twice a second.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from shared.generation import State
from shared.ids import GenerationId, parse_generation_id
from shared.keys import JOB_PREFIX
from tests.conftest import PrivateServers
from tests.support.api_client import ApiClient, Reply
from tests.support.fold import Folded, fold, fold_log
from tests.support.processes import Process, free_port
from tests.support.redis_server import RedisServer
from tests.support.stack import api_environment, expected_text, open_model
from tests.support.wait import wait_until, wait_until_blocking, within
from tests.support.workshop import Workshop, open_workshop
from worker.standin import Ledger, Outcome

# Measured as some milliseconds; the rest is slack for a busy machine.
AT_ONCE_S = 1.0

LOOKS_WITHIN_S = 2.0
"""An owner looks at a silent log twice a second; the rest is slack."""

LOOKS_SELDOM = {"lease": "60", "renewal": "20"}
"""So that a silent owner can have learnt of a cancel only from its message."""

SETTLES_WITHIN_S = 3.0

DROPS_WITHIN_S = 2 + 1 + 1 + 1
"""Lease, mark, the poll that DESIGN grants, and slack."""

TALKS = "[standin tokens=5000 pace=50] Talk"
IS_SILENT = "[standin tokens=9 stall_after=3] Wait"

Apis = tuple[ApiClient, ApiClient]


@pytest.fixture(scope="module")
def apis(private_servers: PrivateServers) -> Iterator[Apis]:
    """Two API processes over the session's Redis."""
    url = private_servers.emptied("valkey").url
    ports = free_port(), free_port()
    argv = [sys.executable, "-m", "api"]
    processes = [Process(argv, api_environment(url, port, {})) for port in ports]

    def are_serving() -> bool:
        for process in processes:
            assert process.running, f"{process} ended while starting:\n{process.output}"
        return all(_is_listening(port) for port in ports)

    try:
        wait_until_blocking(are_serving, "two APIs to serve", timeout_s=30)
        yield ApiClient(f"http://127.0.0.1:{ports[0]}"), ApiClient(f"http://127.0.0.1:{ports[1]}")
    finally:
        for process in processes:
            process.end()


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def shop(valkey: RedisServer) -> AsyncIterator[Workshop]:
    """An empty Redis and a model that was asked nothing yet, without any worker."""
    async with open_model(0) as model, open_workshop(valkey, model) as shop:
        yield shop
        await shop.wait_idle()


async def begin(shop: Workshop, api: ApiClient, prompt: str) -> GenerationId:
    """A generation that has said something."""
    generation = parse_generation_id(await api.create(prompt))
    await shop.wait_type(generation, "token")
    return generation


async def cancel(shop: Workshop, api: ApiClient, generation: GenerationId) -> Reply:
    """Cancel; when the answer is there the log has its end, and both say the same."""
    reply = await api.cancel(generation)
    log = await shop.log(generation)
    folded, last_id = fold_log(log), log[-1][0].decode()
    assert (reply.status, reply.json["status"]) == (200, "cancelled")
    assert folded.closing_type == "cancelled"
    assert (reply.json["text"], reply.json["last_event_id"]) == (folded.text, last_id)
    return reply


async def wait_provider_closed(shop: Workshop, bound_s: float = AT_ONCE_S) -> None:
    """Wait, not long, until nobody listens to the model any more."""
    async with within(bound_s, lambda: "the call to the provider did not end"):
        await shop.standin.ledger.wait_until(_is_silent)
    assert [entry.outcome for entry in shop.standin.ledger.entries] == [Outcome.CLIENT_CLOSED]


def _is_silent(ledger: Ledger) -> bool:
    return ledger.open == 0


async def wait_estimate(api: ApiClient, generation: GenerationId) -> dict[str, Any]:
    """What the snapshot says it cost, once it says so."""

    async def is_settled() -> Any:
        return (await api.snapshot(generation))["usage"]

    usage: dict[str, Any] = await wait_until(is_settled, "the usage", SETTLES_WITHIN_S)
    return usage


async def read_on(api: ApiClient, generation: GenerationId) -> Folded:
    """Everything, to the end, as somebody who comes now reads it."""
    async with api.follow(generation) as follower:
        return fold(await follower.read_to_end())


@pytest.mark.parametrize("by", [0, 1])
async def test_a_queued_generation_is_cancelled_and_never_asked(
    shop: Workshop, apis: Apis, by: int
) -> None:
    """No worker is needed for the end; one that comes later only clears the job away."""
    generation = parse_generation_id(await apis[0].create("[standin tokens=9] Never"))
    async with apis[1 - by].follow(generation) as follower:
        await follower.read_until("queued")
        await cancel(shop, apis[by], generation)
        assert fold(await follower.read_to_end()).closing_type == "cancelled"
    async with shop.open_worker():
        await shop.wait_idle()
    assert shop.standin.ledger.entries == ()
    assert await shop.types(generation) == ["queued", "cancelled"]
    assert (await apis[by].snapshot(generation))["usage"] is None


@pytest.mark.parametrize("prompt", [TALKS, IS_SILENT])
@pytest.mark.parametrize("by", [0, 1])
async def test_a_running_generation_is_cancelled_and_its_provider_closed(
    shop: Workshop, apis: Apis, by: int, prompt: str
) -> None:
    """Whichever process is asked: follower, log and answer agree, and nobody pays any longer."""
    async with shop.open_worker(**LOOKS_SELDOM):
        generation = await begin(shop, apis[0], prompt)
        async with apis[1 - by].follow(generation) as follower:
            events = await follower.read_until("token")
            reply = await cancel(shop, apis[by], generation)
            await wait_provider_closed(shop)
            folded = fold([*events, *await follower.read_to_end()])
        assert (folded.closing_type, folded.text) == ("cancelled", reply.json["text"])
        assert folded.text
        assert expected_text(prompt.replace(" stall_after=3", "")).startswith(folded.text)
        await shop.wait_idle()
    assert fold_log(await shop.log(generation)).text == folded.text


async def test_cancels_of_both_processes_at_once_are_one(shop: Workshop, apis: Apis) -> None:
    """However many ask, there is one end, and everybody is told the same."""
    async with shop.open_worker():
        generation = await begin(shop, apis[0], TALKS)
        replies = await asyncio.gather(*(api.cancel(generation) for api in apis * 5))
        await wait_provider_closed(shop)
        await shop.wait_idle()
    assert {reply.status for reply in replies} == {200}
    assert len({(reply.json["text"], reply.json["last_event_id"]) for reply in replies}) == 1
    assert fold_log(await shop.log(generation)).closing_type == "cancelled"


async def test_a_cancel_that_meets_the_end_tells_which_of_the_two_it_was(
    shop: Workshop, apis: Apis
) -> None:
    """An answer that ends while it is cancelled is done or cancelled, the same for everybody."""
    async with shop.open_worker():

        async def cancel_near_the_end(number: int) -> str:
            prompt = f"[standin tokens={number} pace=500] Race"
            generation = parse_generation_id(await apis[0].create(prompt))
            await shop.wait_type(generation, "token")
            reply = await apis[number % 2].cancel(generation)
            folded = fold_log(await shop.log(generation))
            assert reply.json["status"] == folded.closing_type
            assert reply.json["text"] == folded.text
            return str(folded.closing_type)

        ends = await asyncio.gather(*(cancel_near_the_end(number) for number in range(1, 31)))
        await shop.wait_idle()
    assert set(ends) <= {"done", "cancelled"}


async def test_a_frozen_worker_says_nothing_more_when_it_thaws(shop: Workshop, apis: Apis) -> None:
    """The end does not wait for it; running again it leaves the provider and adds nothing."""
    async with shop.open_worker() as worker:
        generation = await begin(shop, apis[0], TALKS)
        worker.freeze()
        reply = await cancel(shop, apis[1], generation)
        assert shop.standin.ledger.open == 1
        worker.thaw()
        await wait_provider_closed(shop)
        await shop.wait_idle()
        assert worker.running
    folded = await read_on(apis[0], generation)
    assert (folded.closing_type, folded.text) == ("cancelled", reply.json["text"])


async def test_a_frozen_workers_job_is_cleared_away_by_another(shop: Workshop, apis: Apis) -> None:
    """The job goes after lease and mark; the zombie finds nothing to do and does nothing."""
    async with shop.open_worker() as frozen:
        generation = await begin(shop, apis[0], TALKS)
        frozen.freeze()
        await cancel(shop, apis[1], generation)
        log = await shop.log(generation)
        async with shop.open_worker():
            await wait_job_gone(shop, generation)
            frozen.thaw()
            await wait_provider_closed(shop)
            await shop.wait_idle()
        assert frozen.running
    assert await shop.log(generation) == log


async def test_a_cancelled_generation_whose_worker_died_is_cleared_away(
    shop: Workshop, apis: Apis
) -> None:
    """Nobody asks the model again; the text so far stands, and what it cost is estimated."""
    async with shop.open_worker() as victim:
        generation = await begin(shop, apis[0], TALKS)
        async with shop.open_worker():
            victim.kill()
            reply = await cancel(shop, apis[1], generation)
            await wait_job_gone(shop, generation)
            usage = await wait_estimate(apis[0], generation)
    assert len(shop.standin.ledger.entries) == 1
    assert usage["estimated"] is True
    folded = await read_on(apis[0], generation)
    assert (folded.closing_type, folded.text) == ("cancelled", reply.json["text"])
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh"]


async def wait_job_gone(shop: Workshop, generation: GenerationId) -> None:
    async def is_gone() -> bool:
        return not await shop.connection.exists(JOB_PREFIX + generation)

    await wait_until(is_gone, "the job to go", DROPS_WITHIN_S)


async def test_the_owner_learns_by_itself_of_a_cancel_that_nobody_told(shop: Workshop) -> None:
    """Even while the model is silent, and nothing is written: the log itself is looked at."""
    async with shop.open_worker():
        generation = await shop.accept(IS_SILENT)
        await shop.wait_type(generation, "token")
        assert (await shop.store.cancel(generation)).state is State.CANCELLED
        await wait_provider_closed(shop, LOOKS_WITHIN_S)
        await shop.wait_idle()


async def test_a_message_that_got_lost_is_made_good(shop: Workshop, apis: Apis) -> None:
    """The worker's connection breaks, and Redis forgets what it was told: it costs a moment."""
    async with shop.open_worker(name="deaf") as worker:
        generation = await begin(shop, apis[0], IS_SILENT)
        worker.freeze()
        for client in await shop.connection.client_list():
            if client["name"] == "rejoin-wake":
                await shop.connection.client_kill_filter(_id=client["id"])
        await cancel(shop, apis[1], generation)
        assert await shop.connection.delete(shop.keys.control("deaf")) == 1
        worker.thaw()
        await wait_provider_closed(shop, LOOKS_WITHIN_S)
        await shop.wait_idle()


@pytest.mark.parametrize("prompt", [TALKS, IS_SILENT])
async def test_what_a_cancelled_answer_cost_is_estimated(
    shop: Workshop, apis: Apis, prompt: str
) -> None:
    """The provider sends its usage last, so here never: the record has an estimate that says so."""
    async with shop.open_worker():
        generation = await begin(shop, apis[0], prompt)
        await cancel(shop, apis[1], generation)
        usage = await wait_estimate(apis[0], generation)
        await shop.wait_idle()
    assert usage["estimated"] is True
    assert min(usage["prompt_tokens"], usage["completion_tokens"]) > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (await shop.record(generation)).usage == usage
