"""An API, all workers, Redis or the provider are gone: what a client sees, and by when."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from tests.chaos.faults import pause
from tests.support.api_client import ApiClient
from tests.support.fold import fold
from tests.support.processes import free_port, open_process
from tests.support.promises import PROMISES, SLACK
from tests.support.promises_recovery import Watched
from tests.support.stack import api_environment, expected_text, open_stack
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


async def test_a_killed_api_costs_its_followers_one_request() -> None:
    """kill -9 in the middle: the very next request, to another process, goes on by id."""
    prompt = "[standin tokens=60 pace=60] Another"
    async with open_stack() as stack:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        env = api_environment(stack.redis.url, port, {})
        async with open_process("api", env, f"{url}/healthz"):
            generation = await stack.create(prompt)
            async with stack.follow(generation) as follower:
                await follower.read_until("token")
                stack.api.kill()
                await follower.read_to_end()
            rest = ApiClient(url).follow(generation, follower.last_event_id)
            async with rest:
                await rest.read_to_end()
    folded = fold([*follower.events, *rest.events])
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))


async def test_without_any_worker_every_client_is_told_in_time() -> None:
    """Nobody is left to begin or to go on: what waits and what has begun end by their deadlines."""
    env = {"API_QUEUE_TIMEOUT": "2", "API_GENERATION_TIMEOUT": "3"}
    bounds = [
        PROMISES["no worker goes on"].bound.within(env),
        PROMISES["no worker begins"].bound.within(env),
    ]
    async with open_stack(api_env=env) as stack:
        asked_at = [time.time()]
        begun = await stack.create("[standin tokens=200 pace=20] Begun")
        async with stack.follow(begun) as reads_begun:
            await reads_begun.read_until("token")
            stack.workers[0].kill()
            asked_at.append(time.time())
            waiting = await stack.create("[standin tokens=200 pace=20] Never begun")
            async with stack.follow(waiting) as reads_waiting:
                watched = [Watched(), Watched()]
                await asyncio.gather(watched[0].read(reads_begun), watched[1].read(reads_waiting))
    codes = [json.loads(each.events[-1].data)["code"] for each in watched]
    assert codes == ["generation_timeout", "queue_timeout"]
    for each, since, bound in zip(watched, asked_at, bounds, strict=True):
        assert elapsed(since, each.time_of("failed")) <= bound + SLACK


async def test_running_attempts_go_on_in_time_after_a_restart_of_redis() -> None:
    """kill -9, away for longer than leases and marks last, back with its file: a pause, no more."""
    bound = PROMISES["Redis restarted"].bound.within()
    away = PROMISES["worker killed"].bound.within()
    prompt = "[standin tokens=120 pace=25] Outage"
    watched = Watched()
    async with open_stack(aof=True) as stack:
        generation = await stack.create(prompt)
        async with stack.follow(generation) as follower, asyncio.TaskGroup() as tasks:
            tasks.create_task(watched.read(follower))
            await wait_until(lambda: watched.length, "the first token")
            stack.redis.kill()
            await pause(away.total_seconds())
            await stack.redis.start()
            back_at = time.time()
    assert elapsed(back_at, watched.time_of("token", since=back_at)) <= bound + SLACK
    folded = fold(watched.events)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert len(folded.attempts) == 1


async def test_a_provider_that_falls_silent_is_given_up_in_time() -> None:
    """Before its first token or in the middle: the client hears of it, then has the answer."""
    env = {"WORKER_FIRST_TOKEN_TIMEOUT": "1", "WORKER_STALL_TIMEOUT": "0.8"}
    never_begins = PROMISES["provider never begins"].bound.within(env)
    stops = PROMISES["provider stops"].bound.within(env)
    prompts = [
        "[standin tokens=20 first_token_ms=60000 times=1] Never begins",
        "[standin tokens=20 stall_after=9 times=1] Stops",
    ]
    watched = [Watched() for _ in prompts]
    async with open_stack(worker_env=env) as stack, AsyncExitStack() as exits:
        asked_at = time.time()
        reads = [
            await exits.enter_async_context(stack.follow(await stack.create(prompt)))
            for prompt in prompts
        ]
        await asyncio.gather(*(each.read(it) for each, it in zip(watched, reads, strict=True)))
    given_up = [each.time_of("retrying") for each in watched]
    assert elapsed(asked_at, given_up[0]) <= never_begins + SLACK
    assert elapsed(watched[1].time_of("token"), given_up[1]) <= stops + SLACK
    for each, prompt in zip(watched, prompts, strict=True):
        folded = fold(each.events)
        assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
        assert len(folded.attempts) == 2


def elapsed(since: float | None, until: float | None) -> timedelta:
    """From one event to the other, both of which must have come."""
    assert since is not None
    assert until is not None
    return timedelta(seconds=until - since)
