"""What must not end a worker, nor touch the other generations in it: a Redis that goes and comes
back, requests left half accepted.

What somebody else wrote into our keys is in test_worker_poison.py; what a worker does with a job
that cannot be read, or has no record, in test_worker_queue.py.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from shared.ids import GenerationId, draw_generation_id
from shared.keys import RETRY_PREFIX
from tests.support.neighbour import Neighbour, check_alive, logged
from tests.support.processes import Process
from tests.support.redis_server import open_redis_server
from tests.support.stack import expected_text, open_model, user
from tests.support.stores import ORDER
from tests.support.wait import wait_until
from tests.support.workshop import Workshop, open_workshop

AT_ONCE_S = 2.0
"""Measured as some milliseconds; the rest is slack. Below the five seconds of a promise."""


Own = tuple[Workshop, Process]


@pytest.fixture
async def own() -> AsyncIterator[Own]:
    """A Redis with a file, and a worker, of the test's own."""
    async with (
        open_redis_server(aof=True) as server,
        open_model(0) as model,
        open_workshop(server, model) as shop,
        shop.open_worker() as worker,
    ):
        yield shop, worker
        await shop.wait_idle()
        assert worker.running


# --- Redis goes and comes back --------------------------------------------------------------------


async def kill(shop: Workshop, worker: Process) -> None:
    shop.server.kill()
    await wait_noticed(worker)
    await shop.server.start()


async def end(shop: Workshop, worker: Process) -> None:
    await shop.server.stop()
    await wait_noticed(worker)
    await shop.server.start()


async def demote(shop: Workshop, worker: Process) -> None:
    """As at a fail-over: whoever blocks is sent away, and nothing can be written."""
    await shop.connection.replicaof("127.0.0.1", "1")
    await wait_noticed(worker)
    await shop.connection.replicaof("no", "one")


async def cut(shop: Workshop, worker: Process) -> None:
    """Only the connections: a second try makes that good, and nothing is logged."""
    for client in await shop.connection.client_list():
        if client["name"].startswith("rejoin-"):
            await shop.connection.client_kill_filter(_id=client["id"])


async def wait_noticed(worker: Process) -> None:
    """Wait until a poll failed, after this."""
    before = len(logged(worker, "poll_failed"))
    await wait_until(lambda: len(logged(worker, "poll_failed")) > before, "the poll to fail")


@pytest.mark.parametrize("disturb", [kill, end, demote, cut])
async def test_an_idle_worker_outlives_what_befalls_its_poll(
    own: Own, disturb: Callable[[Workshop, Process], Awaitable[None]]
) -> None:
    """It happens in the middle of a wait for work, twice; and the next job is taken."""
    shop, worker = own
    for _ in range(2):
        await wait_blocked(shop)
        await disturb(shop, worker)
        await check_alive(shop)
        await shop.wait_idle()


async def wait_blocked(shop: Workshop) -> None:
    """Wait until the worker blocks on its wake list."""

    async def is_blocked() -> bool:
        clients = await shop.connection.client_list()
        return any(c["name"] == "rejoin-wake" and c["cmd"] == "blpop" for c in clients)

    await wait_until(is_blocked, "the worker to wait for work")


async def test_generations_outlive_one_restart_after_the_other(own: Own) -> None:
    """Killed, ended in order, killed: the answers go on, exact, and so does what came between."""
    shop, worker = own
    neighbours = [await Neighbour.begin(shop, tokens=150)]
    for disturb in (kill, end, kill):
        await disturb(shop, worker)
        neighbours.append(await Neighbour.begin(shop))
    for neighbour in neighbours:
        await neighbour.check()
    assert len(shop.standin.ledger.entries) == len(neighbours)


# --- half accepted --------------------------------------------------------------------------------


async def accept(shop: Workshop, generation: GenerationId, prompt: str, steps: int = 3) -> None:
    """Go as far as `steps` with accepting a request: promise the job, make the record, release."""
    order = replace(ORDER, request={"messages": user(prompt)})
    await shop.queue.offer(generation, lifetime=order.longest_life, max_length=10)
    if steps > 1:
        await shop.store.create(generation, order)
    if steps > 2:
        await shop.queue.release(generation, lifetime=order.longest_life)


async def test_a_promise_whose_client_comes_back_late_is_kept(shop: Workshop) -> None:
    """The API dies before the record; a worker looks in vain; the client's repeat still runs."""
    prompt, generation = "[standin tokens=3] Late", draw_generation_id()
    await accept(shop, generation, prompt, steps=1)
    await shop.make_due(generation)

    async def was_looked_at() -> bool:
        tries = await shop.connection.get(RETRY_PREFIX + generation)
        return tries == b"1" and await shop.owner(generation) is None

    await wait_until(was_looked_at, "a look at the promise")
    await accept(shop, generation, prompt)
    assert (await shop.closed(generation, AT_ONCE_S)).text == expected_text(prompt)


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_repeat_of_an_accepted_request_runs_once(shop: Workshop, steps: int) -> None:
    """However far the first came, while it runs and when it has ended: the model is asked once."""
    prompt, generation = "[standin tokens=30 pace=60] Once", draw_generation_id()
    await accept(shop, generation, prompt, steps)
    await accept(shop, generation, prompt)
    await shop.wait_type(generation, "token")
    await accept(shop, generation, prompt)
    assert (await shop.closed(generation)).text == expected_text(prompt)
    await accept(shop, generation, prompt)
    await shop.wait_idle()
    assert len(shop.standin.ledger.entries) == 1
