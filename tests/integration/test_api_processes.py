"""`python -m api --processes 2`: one port, two processes, and nobody sees which one serves."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from uvicorn.config import STARTUP_FAILURE

from api.processes import PAUSE_S, Address, claim
from shared.connections import Client
from shared.generation import Surface
from tests.conftest import PrivateServers
from tests.support.api_client import ApiClient, Reply
from tests.support.follower import End, Follower
from tests.support.process_table import children_of, process_state
from tests.support.processes import Process, free_port, open_process
from tests.support.reading import Reading
from tests.support.redis_server import RedisServer
from tests.support.socket_table import (
    ESTABLISHED,
    LISTENING,
    connect,
    count_sockets,
    count_waiting,
)
from tests.support.stack import api_environment
from tests.support.wait import wait_until, within

pytestmark = pytest.mark.linux

TWO = ("--processes", "2")
TAKEN = "ddress already in use"


class Pair:
    """A parent with its two processes."""

    def __init__(self, parent: Process, port: int) -> None:
        self.parent, self.port = parent, port
        self.api = ApiClient(f"http://127.0.0.1:{port}")

    def listening(self) -> list[int]:
        """The processes that accept, oldest first."""
        pids = sorted(row.pid for row in children_of(self.parent.pid) if row.state != "Z")
        counts = count_sockets(self.port, pids, LISTENING)
        return [pid for pid in pids if counts[pid]]

    async def wait_both(self) -> list[int]:
        """Wait until two processes accept."""

        def both() -> list[int] | None:
            return pids if len(pids := self.listening()) == 2 else None

        return await wait_until(both, "two processes to listen")

    async def wait_spread(self, connections: int) -> list[int]:
        """Wait until so many connections were accepted; how many by each process."""

        def accepted() -> list[int] | None:
            counts = count_sockets(self.port, self.listening(), ESTABLISHED)
            return list(counts.values()) if counts.total() == connections else None

        return await wait_until(accepted, f"{connections} connections to be accepted")


@pytest.fixture(scope="module")
def shared_parent(private_servers: PrivateServers) -> Iterator[tuple[Process, int]]:
    """What the tests share that end no parent. Plain: it outlives the loop of each of them."""
    port = free_port()
    env = api_environment(private_servers.emptied("valkey").url, port, {})
    parent = Process([sys.executable, "-m", "api", *TWO], env)
    yield parent, port
    parent.end()


@pytest.fixture
async def pair(shared_parent: tuple[Process, int]) -> Pair:
    """Two processes on one port, both listening."""
    pair = Pair(*shared_parent)
    await pair.wait_both()
    return pair


@pytest.fixture
async def own_pair(valkey: RedisServer) -> AsyncIterator[Pair]:
    """The same for one test alone."""
    port = free_port()
    async with open_process("api", api_environment(valkey.url, port, {}), args=TWO) as parent:
        pair = Pair(parent, port)
        await pair.wait_both()
        yield pair


def started_s(pid: int) -> float:
    """When a process was started, in seconds after the machine."""
    rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(rest[19]) / os.sysconf("SC_CLK_TCK")


def loopback(port: int) -> list[Address]:
    """What is claimed for a port."""
    return [(socket.AF_INET, ("127.0.0.1", port))]


async def freeze(pid: int) -> None:
    """SIGSTOP, until it stands still."""
    os.kill(pid, signal.SIGSTOP)
    await wait_until(lambda: process_state(pid) == "T", f"process {pid} to be stopped")


async def wait_gone(pid: int) -> None:
    """Wait until a process holds nothing any more, whether or not somebody waited for it."""
    await wait_until(lambda: process_state(pid) in (None, "Z"), f"process {pid} to be gone")


async def test_connections_are_spread_over_the_processes(pair: Pair) -> None:
    """Each has at least 30 % of those that stay open, however ready the other one is."""
    first, second = pair.listening()
    with contextlib.ExitStack() as opened:
        for pid in (first, second):
            opened.callback(os.kill, pid, signal.SIGCONT)
            await freeze(pid)
        for each in connect(pair.port, 400):
            opened.enter_context(each)
        os.kill(first, signal.SIGCONT)
        await wait_until(lambda: not count_waiting(pair.port, first), "one to accept its share")
        os.kill(second, signal.SIGCONT)
        # Of 400 that fall on either side by even chance, 200 ± 10 do: fewer than 120 is eight
        # standard deviations away, once in 10^15 runs.
        assert min(await pair.wait_spread(400)) >= 120


async def test_a_killed_process_keeps_nobody_waiting_and_is_replaced(pair: Pair) -> None:
    """Who is at its door is sent away at once, all others are served before it is replaced."""
    killed, stays = pair.listening()
    with contextlib.ExitStack() as stopped:
        stopped.callback(pair.parent.thaw)
        await freeze(killed)
        asking = [asyncio.create_task(pair.api.call("GET", "/healthz")) for _ in range(40)]
        await wait_until(lambda: count_waiting(pair.port, killed), "somebody at its door")
        pair.parent.freeze()
        os.kill(killed, signal.SIGKILL)
        async with within(5, lambda: "somebody waits for a dead process"):
            ends = await asyncio.gather(*asking, return_exceptions=True)
            later = [await pair.api.call("GET", "/healthz") for _ in range(40)]
    torn = [end for end in ends if isinstance(end, ConnectionError)]
    assert torn
    assert {end.status for end in later + ends if isinstance(end, Reply)} == {200}
    assert len(torn) + sum(isinstance(end, Reply) for end in ends) == 40

    after = await pair.wait_both()
    assert stays in after
    assert killed not in after
    with contextlib.ExitStack() as opened:
        for each in connect(pair.port, 40):  # once in 2^39 runs one process gets them all
            opened.enter_context(each)
        assert min(await pair.wait_spread(40)) > 0


async def test_a_process_that_dies_at_once_is_started_again_after_a_pause(pair: Pair) -> None:
    """What cannot live does not take a core for being started."""
    stays, dies = pair.listening()
    os.kill(dies, signal.SIGKILL)
    await wait_gone(dies)
    (second,) = set(await pair.wait_both()) - {stays}
    began_s = started_s(second)
    os.kill(second, signal.SIGKILL)
    await wait_gone(second)
    (third,) = set(await pair.wait_both()) - {stays}
    assert started_s(third) - began_s >= PAUSE_S - 0.02  # two ticks of that clock


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_a_told_parent_has_all_processes_drain(
    own_pair: Pair, client: Client, told: signal.Signals
) -> None:
    """The followers of both are told to come back, and the parent ends last, with status 0."""
    pids = own_pair.listening()
    reading = await Reading.begin(client, Surface.NATIVE)
    async with contextlib.AsyncExitStack() as opened:
        followers: list[Follower] = []
        for _ in range(40):
            follower = await opened.enter_async_context(reading.open(own_pair.api.api_url))
            await follower.read_until("token")
            followers.append(follower)
        assert min(await own_pair.wait_spread(40)) > 0
        own_pair.parent.signal(told)
        async with within(1, lambda: "not all responses ended"):
            farewells = [(await each.read_to_end())[-1].type for each in followers]

    assert farewells == ["reconnect"] * 40
    assert {follower.end for follower in followers} == {End.CLEAN}
    assert await own_pair.parent.wait(3) == 0
    assert [process_state(pid) for pid in pids] == [None, None]
    assert "process_ended" not in own_pair.parent.output


async def test_a_terminal_tells_the_parent_alone(pair: Pair) -> None:
    """Ctrl-C goes to a whole process group; told by both, a process would not drain."""
    pids = [pair.parent.pid, *pair.listening()]
    assert len({os.getpgid(pid) for pid in pids}) == 3


async def test_a_killed_parent_leaves_no_process(own_pair: Pair) -> None:
    """Not even one that hangs stays on a port that nobody watches: it can be had again."""
    pids = own_pair.listening()
    await freeze(pids[0])
    own_pair.parent.kill()
    for pid in pids:
        await wait_gone(pid)
    with claim(loopback(own_pair.port)):
        pass


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_second_start_on_the_port_is_refused(
    pair: Pair, valkey: RedisServer, processes: str
) -> None:
    """Once, by name, and those who serve it do not notice."""
    before = pair.listening()
    env = api_environment(valkey.url, pair.port, {"API_PROCESSES": processes})
    async with open_process("api", env) as second:
        assert await second.wait() != 0
        assert second.output.count(TAKEN) == 1
    assert pair.listening() == before


async def test_a_port_that_somebody_else_has_is_refused() -> None:
    """Even where that one would share it: connections would go to either."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        env = api_environment("redis://127.0.0.1", other.getsockname()[1], {})
        async with open_process("api", env, args=TWO) as refused:
            assert await refused.wait() == 1
            assert refused.output.count(TAKEN) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_of_two_that_start_at_once_one_has_the_port(host: str) -> None:
    """A claim holds before anybody listens, on every address, against one process too."""
    port = free_port()
    with claim(loopback(port)):
        with pytest.raises(OSError, match=TAKEN), claim([(socket.AF_INET, (host, port))]):
            pass
        with pytest.raises(OSError, match=TAKEN):
            socket.create_server((host, port))
    with claim(loopback(port)):
        pass


async def test_what_no_process_can_start_with_ends_the_parent() -> None:
    """With the status with which it ends a process that is alone."""
    env = api_environment("redis://127.0.0.1:6379/0?socket_timeout=soon", free_port(), {})
    async with open_process("api", env, args=TWO) as parent:
        assert await parent.wait() == STARTUP_FAILURE
