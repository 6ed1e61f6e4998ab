"""What must not end a worker, nor touch the other generations in it: a Redis that goes and comes
back, records and keys that hold garbage, noise where it listens, requests left half accepted.

What a worker does with a job that cannot be read, or has no record, is in test_worker_queue.py.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Self

import pytest

from shared.ids import GenerationId, draw_generation_id
from shared.keys import JOB_PREFIX, OWNER_PREFIX, RETRY_PREFIX
from tests.conftest import PrivateServers
from tests.support.processes import Process
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.stack import expected_text, open_model, user
from tests.support.stores import ORDER
from tests.support.wait import wait_until
from tests.support.workshop import SharedWorker, Workshop, open_workshop, run_worker

AT_ONCE_S = 2.0
"""Measured as some milliseconds; the rest is slack. Below the five seconds of a promise."""

SHORTEST_PAUSE_S = 0.9
"""What raises is tried again after a second, by a clock that may differ a little."""

GARBAGE = {
    **{"request": "not JSON", "state": "dancing", "epoch": "x", "deadline": ""},
    **{"attempts": "many", "model": b"\xff\xfe", "reset_at": "no id"},
}
NO_IDS = [b"", b"not an id", b"\x00\n", b"}{*?[", b"x" * 100_000, b"\xff\xfe"]
NOISE = [b"", b"cancel", b"dance", b"\x00\xff\xfe", b"cancel \xff", b"cancel gen_unknown"]
FLOOD = [b"x" * 8_000_000, *NOISE * 200]


@pytest.fixture(scope="module")
def worker(private_servers: PrivateServers) -> Iterator[SharedWorker]:
    """One worker for all tests here that leave their Redis alive."""
    with run_worker(private_servers.emptied("valkey").url) as worker:
        yield worker


@pytest.fixture
async def shop(valkey: RedisServer, worker: SharedWorker) -> AsyncIterator[Workshop]:
    """That worker over an empty Redis, with a model that was asked nothing yet."""
    async with open_model(worker.model_port) as model, open_workshop(valkey, model) as shop:
        yield shop
        await shop.wait_idle()
    assert worker.process.running, worker.process.output


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


def logged(worker: Process, event: str, text: str = "") -> list[dict[str, Any]]:
    """What the worker logged under that name, in lines that hold `text`."""
    lines = [json.loads(line) for line in worker.lines if line.startswith("{") and text in line]
    return [line for line in lines if line["event"] == event]


async def check_alive(shop: Workshop) -> None:
    """The worker does the next job as if nothing had been."""
    prompt = "[standin tokens=3] Still alive"
    assert (await shop.closed(await shop.accept(prompt))).text == expected_text(prompt)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A generation that runs beside what goes wrong, and must not notice."""

    shop: Workshop
    generation: GenerationId
    prompt: str

    @classmethod
    async def begin(cls, shop: Workshop, tokens: int = 50) -> Self:
        prompt = f"[standin tokens={tokens} pace=30 vary=1] {len(shop.standin.ledger.entries)}"
        generation = await shop.accept(prompt)
        await shop.wait_type(generation, "token")
        return cls(shop, generation, prompt)

    async def check(self) -> None:
        """It ends as it should, in the one attempt in which it began."""
        folded = await self.shop.closed(self.generation)
        assert (folded.closing_type, folded.text) == ("done", expected_text(self.prompt))
        assert [attempt["resume"] for attempt in folded.attempts] == ["fresh"]


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


# --- garbage --------------------------------------------------------------------------------------


async def accept_spoilt(shop: Workshop) -> list[GenerationId]:
    """Generations whose record or keys hold garbage, one of every sort; none of them due yet."""
    keys = (shop.keys.record, shop.keys.log, JOB_PREFIX.__add__, RETRY_PREFIX.__add__)
    prompts = [f"[standin tokens=3] {number}" for number in range(len(GARBAGE) + len(keys))]
    spoilt = [await shop.accept(prompt, release=False) for prompt in prompts]
    for generation, (field, value) in zip(spoilt, GARBAGE.items(), strict=False):
        await shop.connection.hset(shop.keys.record(generation), field, value)
    for generation, key in zip(spoilt[len(GARBAGE) :], keys, strict=True):
        await shop.connection.delete(key(generation))
        await shop.connection.lpush(key(generation), "garbage")
    return spoilt


async def test_what_cannot_be_read_harms_no_other_and_is_tried_with_pauses(
    shop: Workshop, worker: SharedWorker
) -> None:
    """Records and keys of all sorts of garbage: the neighbour ends undisturbed, nothing spins."""
    spoilt = await accept_spoilt(shop)
    neighbour = await Neighbour.begin(shop, tokens=90)
    for generation in spoilt:
        await shop.make_due(generation)
    await neighbour.check()
    await check_alive(shop)
    for generation in spoilt:
        tries = logged(worker.process, "job_leased", generation)
        assert tries
        at = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in tries]
        assert [b - a for a, b in pairwise(at) if b - a < SHORTEST_PAUSE_S] == []
    for generation in spoilt:
        # As retention does; what is left of the job then ends by itself.
        keys = (shop.keys.record(generation), shop.keys.log(generation))
        await shop.connection.delete(*keys, JOB_PREFIX + generation, RETRY_PREFIX + generation)
        await shop.make_due(generation)


@pytest.mark.parametrize("score", ["1", "-inf"])
async def test_members_of_the_queue_that_are_no_ids_just_go(shop: Workshop, score: str) -> None:
    """Whoever put them there, they are looked at once; what is queued and what runs goes on."""
    neighbour = await Neighbour.begin(shop, tokens=20)
    await shop.connection.zadd(shop.keys.queue, dict.fromkeys(NO_IDS, score))
    await check_alive(shop)
    await neighbour.check()
    # Of what is not even text only this is left, for the day that an owner is remembered.
    await shop.connection.delete(*(OWNER_PREFIX.encode() + member for member in NO_IDS))
    await shop.wait_idle()


@pytest.mark.parametrize("name", ["wake", "control"])
async def test_a_list_of_another_type_only_costs_the_wake(
    shop: Workshop, worker: SharedWorker, name: str
) -> None:
    """Where the worker cannot listen it looks instead: work is found, what runs goes on."""
    key = shop.keys.wake if name == "wake" else shop.keys.control(worker.name)
    neighbour = await Neighbour.begin(shop)
    await shop.connection.set(key, "garbage")
    prompt = "[standin tokens=3] Found by looking"
    generation = await shop.accept(prompt, release=False)
    await shop.connection.zadd(shop.keys.queue, {generation: 1})
    assert (await shop.closed(generation)).text == expected_text(prompt)
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
    await wait_until(lambda: is_heard(shop, worker), "all messages to be heard")


async def is_heard(shop: Workshop, worker: SharedWorker) -> bool:
    return not await shop.connection.exists(shop.keys.control(worker.name))


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
