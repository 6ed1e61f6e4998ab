"""A running Rejoin for the tests of this tier.

stack       the session's API and worker processes and Redis, emptied; the test's own stand-in
api         an API inside this process over `valkey`, with default settings
worker      a worker for all tests of a module
shop        that worker over an emptied Redis, with a stand-in of the test's own
client      our own client of `valkey`, for `tests.support.author`, which writes logs by hand

Others are opened by the test: `tests.support.stack.open_stack`, to kill, freeze and configure;
`tests.support.api_process.open_api`, with settings.
"""

import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from shared.connections import Client, open_connection
from shared.settings import RedisSettings
from tests.conftest import PrivateServers
from tests.support.api_process import ApiProcess, open_api
from tests.support.leaks import check_keys
from tests.support.processes import Process, free_port
from tests.support.redis_server import RedisServer
from tests.support.stack import (
    SHORT_WATCH,
    WORKER_IS_UP,
    Stack,
    api_environment,
    open_model,
    worker_environment,
)
from tests.support.wait import wait_until_blocking
from tests.support.workshop import PROVIDER_KEY, SharedWorker, Workshop, open_workshop, run_worker

_START_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Session:
    """What all tests with `stack` share. None of them may kill or freeze it."""

    redis: RedisServer
    api: Process
    api_port: int
    worker: Process
    model_port: int


def _is_listening(process: Process, port: int) -> bool:
    assert process.running, f"{process} ended while starting:\n{process.output}"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_up(worker: Process) -> bool:
    assert worker.running, f"{worker} ended while starting:\n{worker.output}"
    return any(WORKER_IS_UP in line for line in worker.lines)


# Plain, without an event loop: it must outlive the loop of each single test.
@pytest.fixture(scope="session")
def session_stack() -> Iterator[Session]:
    """One Redis, one API and one worker for the whole session."""
    redis = RedisServer("valkey")
    processes: list[Process] = []

    def start(module: str, env: dict[str, str]) -> Process:
        processes.append(Process([sys.executable, "-m", module], env))
        return processes[-1]

    try:
        redis.start_blocking()
        api_port, model_port = free_port(), free_port()
        api = start("api", api_environment(redis.url, api_port, {}))
        base_url = f"http://127.0.0.1:{model_port}/v1"
        worker = start("worker", worker_environment(redis.url, base_url, SHORT_WATCH))
        wait_until_blocking(lambda: _is_listening(api, api_port), "the API", _START_TIMEOUT_S)
        wait_until_blocking(lambda: _is_up(worker), "the worker", _START_TIMEOUT_S)
        yield Session(redis, api, api_port, worker, model_port)
    finally:
        for process in processes:
            process.end()
        redis.close()


@pytest.fixture
async def stack(session_stack: Session) -> AsyncIterator[Stack]:
    """A whole Rejoin with empty hands: no keys, no requests in the stand-in's ledger."""
    session_stack.redis.flush()
    async with open_model(session_stack.model_port) as standin:
        stack = Stack(
            f"http://127.0.0.1:{session_stack.api_port}",
            session_stack.redis,
            standin,
            session_stack.api,
            [session_stack.worker],
        )
        yield stack
        await stack.wait_model_silent()
    for process in (session_stack.api, session_stack.worker):
        assert process.running, f"{process} is shared; it ended:\n{process.output}"
    check_keys(session_stack.redis)


@pytest.fixture
async def client(valkey: RedisServer) -> AsyncIterator[Client]:
    """Our client of the session's private valkey-server."""
    settings = RedisSettings(url=SecretStr(valkey.url))
    async with open_connection(settings, "test") as connection:
        yield Client(connection)


@pytest.fixture
async def api(valkey: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API in this process, over the session's private valkey-server."""
    async with open_api(valkey.url) as api:
        yield api


@pytest.fixture(scope="module")
def worker(private_servers: PrivateServers) -> Iterator[SharedWorker]:
    """One worker for all tests of a module, with default settings unless the module has its own."""
    with run_worker(private_servers.emptied("valkey").url) as worker:
        yield worker


@pytest.fixture
async def shop(valkey: RedisServer, worker: SharedWorker) -> AsyncIterator[Workshop]:
    """That worker over an empty Redis, with a model that was asked nothing yet."""
    async with open_model(worker.model_port) as model, open_workshop(valkey, model) as shop:
        yield shop
        await shop.wait_idle()
    assert worker.process.running, worker.process.output
    assert not any(PROVIDER_KEY in line for line in worker.process.lines)
