"""What a test may have left behind: tasks, child processes, keys without a lifetime."""

import asyncio
import os
from typing import cast

import redis

from tests.support.process_table import ProcessRow, children_of
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

# What closes itself a moment after it was told to, such as a transport, is not a leak.
_SETTLING_S = 1.0

_QUEUE_KEY = b"arq:queue"
_LASTING_LISTS = (b"wake", b"control")


def may_last(key: bytes, kind: bytes) -> bool:
    """Whether a key may be without a lifetime: arq's queue, and the wake and control lists."""
    if kind == b"zset":
        return key.endswith(_QUEUE_KEY)
    return kind == b"list" and any(word in key for word in _LASTING_LISTS)


def lasting_keys(client: redis.Redis) -> list[str]:
    """The keys without a lifetime that should have one, sorted, each with its type."""
    found = []
    for key in client.scan_iter(count=1_000):
        kind = cast(bytes, client.type(key))
        if client.pttl(key) == -1 and not may_last(key, kind):
            found.append(f"{key.decode(errors='replace')} ({kind.decode()})")
    return sorted(found)


def pending_tasks() -> list[asyncio.Task[object]]:
    """Every unfinished task of the running loop but the one that asks."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def child_processes() -> set[ProcessRow]:
    """Our direct children, those that ended but were not reaped included."""
    return set(children_of(os.getpid()))


async def check_tasks(settling_s: float = _SETTLING_S) -> None:
    """Raises AssertionError if a task is still pending once things had time to settle."""
    try:
        await wait_until(lambda: not pending_tasks(), "tasks to end", settling_s)
    except AssertionError:
        left = "\n".join(repr(task) for task in pending_tasks())
        raise AssertionError(f"the test left asyncio tasks behind:\n{left}") from None


async def check_children(allowed_pids: set[int], settling_s: float = _SETTLING_S) -> None:
    """Raises AssertionError if a child process is there that was not there before."""

    def left() -> list[ProcessRow]:
        return [row for row in child_processes() if row.pid not in allowed_pids]

    try:
        await wait_until(lambda: not left(), "child processes to end", settling_s)
    except AssertionError:
        rows = "\n".join(repr(row) for row in left())
        raise AssertionError(f"the test left child processes behind:\n{rows}") from None


def check_keys(server: RedisServer) -> None:
    """Raises AssertionError if a key would stay in this server for ever."""
    with server.blocking_client() as client:
        left = lasting_keys(client)
    assert left == [], f"keys without a lifetime on {server}: {left}"
