"""What operators and accidents do to containers, one at a time."""

import time
from collections.abc import Awaitable, Callable, Collection, Set
from dataclasses import dataclass

from tests.support.compose.stack import Stack, pause
from tests.support.compose.verdict import Verdict
from tests.support.wait import wait_until

Hurt = Callable[[Stack, Verdict, Set[str]], Awaitable[Collection[str]]]
"""Given the generations under way, which of them a worker must begin anew afterwards."""

# A worker's drain and the grace period of its container are 30 s and 35 s.
STOPPED_S = 33.0
# Longer than a lease and its mark: nobody may take that for the death of a worker.
REDIS_AWAY_S = 5.0
# 10 s old is too old, and then it takes two looks, one every 5 s.
UNHEALTHY_S = 30.0


@dataclass(frozen=True, slots=True)
class Round:
    """Something that happens while clients follow."""

    name: str
    hurt: Hurt
    silence_s: float
    """A reader may be left without anything new for so long."""
    cuts: bool = False
    """Whether some clients must have lost their connection, or the round hurt nobody."""


async def kill_api(stack: Stack, _verdict: Verdict, _generations: Set[str]) -> Collection[str]:
    await stack.run("docker", "kill", "--signal", "KILL", await stack.first("api"))
    return ()


async def stop_worker(stack: Stack, verdict: Verdict, generations: Set[str]) -> Collection[str]:
    """As `compose stop`, an update or a smaller scale does it."""
    worker, running = await stack.busiest_worker(generations)
    began = time.monotonic()
    await stack.run("docker", "stop", "--time", "35", worker)
    took_s = time.monotonic() - began
    states = [each["State"] for each in await stack.containers("worker") if each["Id"] == worker]
    codes = [state["ExitCode"] for state in states if not state["Running"]]
    verdict.check(
        took_s < STOPPED_S and codes == [0],
        "the worker told to stop drained and ended by itself",
        f"{len(running)} under way, {took_s:.1f} s, exit codes {codes}",
    )
    return ()


async def kill_worker(stack: Stack, _verdict: Verdict, generations: Set[str]) -> Collection[str]:
    worker, running = await stack.busiest_worker(generations)
    await stack.run("docker", "kill", "--signal", "KILL", worker)
    return running


async def freeze_worker(stack: Stack, verdict: Verdict, generations: Set[str]) -> Collection[str]:
    """It wakes up again when others have long taken its work."""
    worker, running = await stack.busiest_worker(generations)
    began = time.monotonic()
    await stack.run("docker", "exec", worker, "sh", "-c", "kill -STOP -1")

    async def health() -> str:
        return str((await stack.health())[worker])

    async def unhealthy() -> bool:
        return await health() == "unhealthy"

    try:
        await wait_until(unhealthy, "the frozen worker to be called unhealthy", UNHEALTHY_S)
    except AssertionError as error:
        verdict.check(False, "a frozen worker is called unhealthy", error)
    else:
        seconds = f"after {time.monotonic() - began:.1f} s"
        verdict.check(True, "a frozen worker is called unhealthy", seconds)
    await stack.run("docker", "exec", worker, "sh", "-c", "kill -CONT -1")
    return running


async def restart_redis(stack: Stack, verdict: Verdict, _generations: Set[str]) -> Collection[str]:
    redis = await stack.first("redis")
    await stack.run("docker", "kill", "--signal", "KILL", redis)
    await pause(REDIS_AWAY_S)
    workers = {c["Id"] for c in await stack.containers("worker")}
    states = {state for id_, state in (await stack.health()).items() if id_ in workers}
    verdict.check(states == {"healthy"}, "no worker is called unhealthy for want of Redis", states)
    await stack.run("docker", "start", redis)
    return ()


ROUNDS = (
    # The API has told them to come back after a second; one more goes by until nginx gives it up.
    Round("an API replica is killed", kill_api, 3.0, cuts=True),
    Round("a worker is told to stop", stop_worker, 1.0),
    # Lease, mark, and a second.
    Round("a worker is killed", kill_worker, 4.0),
    Round("a worker freezes, and thaws late", freeze_worker, 4.0),
    # Two seconds beyond its own absence, in which docker starts it.
    Round("Redis is killed and comes back", restart_redis, REDIS_AWAY_S + 1.0 + 2.0),
)
