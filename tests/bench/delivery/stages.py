"""What the load is put on: Rejoin's API and three baselines, each with everything it needs.

Every turn gets a fresh stage, so that nobody inherits anything: a server process on the core that
is kept for it, the Redis behind it if it has one, and whoever writes for it.
"""

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.bench.baselines import timed_api, xread_api
from tests.bench.delivery.load import (
    FROM_THE_BEGINNING,
    Ask,
    Place,
    Program,
    open_program,
    open_writer,
    write_at_once,
)
from tests.bench.delivery.logs import Log, make_logs
from tests.bench.delivery.node import NodeProject
from tests.bench.delivery.programs import Programs
from tests.bench.process_cost import Cores, pin
from tests.support.processes import Process, free_port, open_process
from tests.support.redis_server import RedisServer, open_redis_server

_OPENED_A_SECOND: Final = 250
"""Connections that the slowest of the servers takes; it must have all before its model speaks."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is written, and how many read it."""

    logs: int
    pace: float
    """Tokens a second of each log."""
    tokens: int
    """Of each log, in the end."""
    followers_each: int = 1
    history: int = 0
    """Tokens that each log has before anybody follows it; counted in `tokens`."""

    @property
    def fresh(self) -> int:
        """Tokens of each log that are written while it is followed."""
        return self.tokens - self.history

    @property
    def followers(self) -> int:
        """All of them."""
        return self.logs * self.followers_each


@dataclass(frozen=True, slots=True)
class Bench:
    """What every stage needs."""

    cores: Cores
    programs: Programs
    node: NodeProject | None
    """None where there is no Node."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A server that is ready, and what it is asked."""

    server: Process
    port: int
    paths: Sequence[str]
    """Of the logs."""
    behind: Callable[[int, int], Place]
    """The place in one of `paths`, by its position, of who has its tokens up to a number."""
    write: Callable[[], AbstractAsyncContextManager[Program | None]]
    """Begin to write; None where the server itself does."""
    begins_at_us: int | None = None
    """When the server itself begins to write, by the monotonic clock."""
    redis: RedisServer | None = None
    has_own_writer: bool = False
    """Whether what writes belongs to the arm, so that its limits are the arm's own."""

    def asks(self, load: Load, after_cut: Callable[[], int] | None = None) -> list[Ask]:
        """What the followers ask for: all that is to come.

        Once cut, each comes back with the tokens up to a number that `after_cut` draws.
        """
        asks = []
        for number, path in enumerate(self.paths):
            place = self.behind(number, load.history) if load.history else FROM_THE_BEGINNING
            for _ in range(load.followers_each):
                back = self.behind(number, after_cut()) if after_cut else place
                asks.append(Ask(path, place, back))
        return asks


OpenStage = Callable[[Bench, Load], AbstractAsyncContextManager[Stage]]


@asynccontextmanager
async def _open_log_reader(module: str, bench: Bench, load: Load) -> AsyncIterator[Stage]:
    """Start a server that reads our logs, and make the logs."""
    port = free_port()
    async with open_redis_server() as redis:
        environment = {"REDIS_URL": redis.url, "API_PORT": str(port), "PORT": str(port)}
        ready = f"http://127.0.0.1:{port}/healthz"
        async with open_process(module, environment, ready) as server:
            pin(server, bench.cores.tested)
            logs = await make_logs(redis, load.logs)
            if load.history:
                await write_at_once(bench.programs, redis.port, logs, last=load.history)
            write = partial(
                open_writer,
                *(bench.programs, redis.port, logs),
                pace=load.pace,
                first=load.history + 1,
                last=load.tokens,
            )
            paths = [log.path for log in logs]
            behind = partial(_behind, logs)
            yield Stage(server, port, paths, behind, write, redis=redis)


def _behind(logs: Sequence[Log], log: int, number: int) -> Place:
    return logs[log].behind(number)


@asynccontextmanager
async def _open_timed(bench: Bench, load: Load) -> AsyncIterator[Stage]:
    """Start the endpoint whose model is a timer. Every stream begins by the same clock."""
    port = free_port()
    ready = f"http://127.0.0.1:{port}/healthz"
    async with open_process(timed_api.__name__, {"PORT": str(port)}, ready) as server:
        pin(server, bench.cores.tested)
        patience_s = 2 + load.followers / _OPENED_A_SECOND
        begin_us = math.ceil((time.monotonic() + patience_s) * 1e6)
        query = f"of={load.logs}&begin_us={begin_us}&pace={load.pace}&tokens={load.tokens}"
        paths = [f"/answers/{number}?{query}" for number in range(load.logs)]
        yield Stage(server, port, paths, _never_behind, _write_nothing, begins_at_us=begin_us)


def _never_behind(log: int, number: int) -> Place:
    raise AssertionError("nothing can be resumed here")


@asynccontextmanager
async def _write_nothing() -> AsyncIterator[None]:
    yield None


@asynccontextmanager
async def _open_resumable(bench: Bench, load: Load) -> AsyncIterator[Stage]:
    """Start `resumable-stream`'s producer, which holds the streams, and the server to resume at."""
    assert bench.node is not None, "this stage needs Node"
    node = bench.node
    port = free_port()
    async with AsyncExitStack() as exits:
        redis = await exits.enter_async_context(open_redis_server())
        streams = {
            **{"STREAMS": str(load.logs), "PACE": str(load.pace)},
            **{"FIRST": str(load.history + 1), "LAST": str(load.tokens)},
        }
        producer = exits.enter_context(
            open_program(node.command("produce"), {"REDIS_URL": redis.url, **streams})
        )
        token_size = (await producer.wait_said("made"))["token_size"]
        serve = {"REDIS_URL": redis.url, "PORT": str(port)}
        server = exits.enter_context(open_program(node.command("serve"), serve)).process
        await server.wait_serving(f"http://127.0.0.1:{port}/healthz")
        pin(server, bench.cores.tested)
        paths = [f"/s{number}" for number in range(load.logs)]
        behind, write = partial(_behind_characters, token_size), partial(_tell_to_write, producer)
        yield Stage(server, port, paths, behind, write, redis=redis, has_own_writer=True)


def _behind_characters(token_size: int, log: int, number: int) -> Place:
    """Its cursor is the number of characters that the client has."""
    return Place(str(number * token_size), number + 1)


@asynccontextmanager
async def _tell_to_write(producer: Program) -> AsyncIterator[Program]:
    producer.begin()
    yield producer


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to deliver."""

    name: str
    open: OpenStage
    needs_node: bool = False


REJOIN: Final = Arm("**Rejoin**", partial(_open_log_reader, "api"))
XREAD: Final = Arm("one blocking XREAD per client", partial(_open_log_reader, xread_api.__name__))
TIMED: Final = Arm("direct: no queue, no Redis, the model a timer", _open_timed)
RESUMABLE: Final = Arm("`resumable-stream` on Node", _open_resumable, needs_node=True)
