"""The leak checks complain about what was left behind, and about nothing else."""

import asyncio

import pytest
import redis.asyncio

from tests.support.leaks import check_children, check_keys, check_tasks, child_processes
from tests.support.process_table import process_state
from tests.support.processes import Process
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until


async def test_pending_task_is_reported() -> None:
    """A task that waits for ever is named."""
    forever = asyncio.create_task(asyncio.Event().wait(), name="the forgotten one")
    with pytest.raises(AssertionError, match="the forgotten one"):
        await check_tasks(settling_s=0.01)
    forever.cancel()
    await check_tasks()


async def test_child_process_is_reported_running_or_not_reaped() -> None:
    """A child we did not have before is named with its command; after its end it is not."""
    before = {row.pid for row in child_processes()}
    process = Process(["/bin/sleep", "600"])
    with pytest.raises(AssertionError, match="sleep 600"):
        await check_children(before, settling_s=0.01)
    process.end()
    await check_children(before)

    unreaped = Process(["/bin/echo"])
    await wait_until(lambda: process_state(unreaped.pid) == "Z", "its end")
    with pytest.raises(AssertionError, match=f"pid={unreaped.pid}"):
        await check_children(before, settling_s=0.01)
    unreaped.end()
    await check_children(before)


async def test_key_without_a_lifetime_is_reported(
    valkey: RedisServer, valkey_client: redis.asyncio.Redis
) -> None:
    """Only arq's queue and the wake and control lists may stay, under any prefix."""
    await valkey_client.zadd("tenant:arq:queue", {"job": 1})
    await valkey_client.lpush("x:wake", "job")  # type: ignore[misc]
    await valkey_client.lpush("control:worker-1", "cancel")  # type: ignore[misc]
    await valkey_client.set("gen:{a}", "lives a minute", ex=60)
    check_keys(valkey)
    await valkey_client.xadd("gen:{a}:log", {"t": "queued"}, id="1-0")
    await valkey_client.set("control", "not a list")
    with pytest.raises(AssertionError, match=r"control \(string\)', 'gen:\{a\}:log \(stream\)'"):
        check_keys(valkey)
    await valkey_client.delete("gen:{a}:log", "control")


def test_checks_are_on_for_integration_tests(request: pytest.FixtureRequest) -> None:
    """A test in this folder is checked without asking for it."""
    assert request.getfixturevalue("_leak_checks_of_integration_tests") is None
    assert "nothing_left_behind" in request._fixture_defs
