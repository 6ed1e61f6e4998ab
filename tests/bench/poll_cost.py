"""What one poll of the queue costs Redis, by its own account, however many jobs are leased."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import median
from typing import Any

from shared.connections import Client
from shared.ids import draw_generation_id
from shared.keys import OWNER_PREFIX, Keys
from shared.queue import Leased, Queue
from tests.support.redis_server import open_redis_server

SIZES = (0, 1_000, 10_000)
"""Jobs that are leased."""

POLLS = 2_000
_LEASED_TOGETHER = 500
_LONG = timedelta(hours=1)
"""No lease ends while this is measured."""

_KEYS = Keys()

Costs = Mapping[int, Sequence[float]]
"""Microseconds a poll for each size, one figure a run."""


async def measure_costs(runs: int, *, finds: bool) -> Costs:
    """Poll a quiet server; `finds`: each poll finds one job that is due, and leases it."""
    costs: dict[int, list[float]] = {size: [] for size in SIZES}
    async with open_redis_server() as server, server.client() as connection:
        for _ in range(runs):
            for size in SIZES:
                await connection.flushall()
                queue = Queue(Client(connection), _KEYS)
                await _fill(connection, queue, size)
                await connection.config_resetstat()
                for _ in range(POLLS):
                    await _poll_once(connection, queue, finds=finds)
                costs[size].append(await _cost(connection))
    return costs


def in_words(costs: Costs) -> str:
    """The medians, in the order of the sizes."""
    return ", ".join(f"{median(costs[size]):.1f} with {size:,}" for size in SIZES)


async def _fill(connection: Any, queue: Queue, count: int) -> None:
    if count:
        await connection.zadd(_KEYS.queue, {draw_generation_id(): 1 for _ in range(count)})
    leased = 0
    while leased < count:
        leased += len((await _lease(queue, _LEASED_TOGETHER)).leases)


async def _poll_once(connection: Any, queue: Queue, *, finds: bool) -> None:
    if not finds:
        assert not (await _lease(queue, 1)).leases
        return
    job = draw_generation_id()
    await connection.zadd(_KEYS.queue, {job: 1})
    (lease,) = (await _lease(queue, 1)).leases
    assert lease.generation == job
    await connection.zrem(_KEYS.queue, job)
    await connection.delete(OWNER_PREFIX + job)


async def _lease(queue: Queue, count: int) -> Leased:
    return await queue.lease(count, worker="w", lease=_LONG, mark=_LONG, owner_life=_LONG)


async def _cost(connection: Any) -> float:
    """Of one script since the statistics were reset; what it calls is within it."""
    told = (await connection.info("commandstats"))["cmdstat_evalsha"]
    assert told["calls"] == POLLS, told
    return float(told["usec_per_call"])
