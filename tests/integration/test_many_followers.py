"""Thousands connect and are cut, again and again: everything of them is given back."""

import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shared.connections import Client
from tests.support.api_client import ApiClient
from tests.support.author import Author, token
from tests.support.follower import reset_on_close
from tests.support.metrics import read_metrics
from tests.support.processes import free_port, open_process
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until, within

COUNT = 5_000
AT_ONCE = 250
LOGS = 50
ROUNDS = 5
PATIENCE_S = 30.0

REDIS_CONNECTIONS = 6
"""Of one process, however many follow."""

GROWS_BY = 1.5
"""What the allocator keeps for so many may be divided otherwise the next time; five times as many
connections that are not given back would take five times as much.
"""


@contextmanager
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * COUNT), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect_all(port: int, authors: Sequence[Author]) -> list[socket.socket]:
    """Follow, each on a connection of its own, until each has its head and its history."""
    sockets: list[socket.socket] = []
    for start in range(0, COUNT, AT_ONCE):
        batch = [_ask(port, authors, number) for number in range(start, start + AT_ONCE)]
        for sock in batch:
            _read_history(sock)
        sockets += batch
    return sockets


def _ask(port: int, authors: Sequence[Author], number: int) -> socket.socket:
    path = f"/v1/generations/{authors[number % LOGS].generation}/events"
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return sock


def _read_history(sock: socket.socket) -> None:
    got = b""
    while b"event: token" not in got:
        read = sock.recv(4096)
        assert read, got
        got += read
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")


def cut_all(sockets: Sequence[socket.socket]) -> None:
    """Half of them in order, half by a reset."""
    for number, sock in enumerate(sockets):
        if number % 2:
            reset_on_close(sock)
        sock.close()


async def count_connections(client: Client) -> int:
    """Of the API to Redis, which are named so."""
    told: str = (await client.call("CLIENT", "LIST")).decode()
    names = [field for line in told.splitlines() for field in line.split() if field[:5] == "name="]
    return sum(name.startswith("name=rejoin-") for name in names)


async def test_new_generations_are_accepted_in_the_middle_of_a_storm(
    valkey: RedisServer, client: Client
) -> None:
    """All have asked, none has read: whoever asks for an answer waits for a turn, not for all."""
    authors = [await Author.create(client) for _ in range(LOGS)]
    for author in authors:
        await author.claim()
        await author.say(*[token(f"{at} ") for at in range(500)])
    port = free_port()
    api = ApiClient(f"http://127.0.0.1:{port}")
    env = {"REDIS_URL": valkey.url, "API_PORT": str(port)}
    async with open_process("api", env, f"{api.api_url}/healthz"):
        with many_files():
            sockets = [_ask(port, authors, number) for number in range(COUNT // 2)]
            async with within(2, lambda: "no generation was accepted"):
                await api.create("hello")
            told = await read_metrics(api)
            cut_all(sockets)
    assert told["rejoin_followers"] > 0


async def test_followers_that_are_cut_leave_nothing_behind(
    valkey: RedisServer, client: Client
) -> None:
    """Tasks, sockets, places in the hub and memory are what they were."""
    authors = [await Author.create(client) for _ in range(LOGS)]
    for author in authors:
        await author.claim()
        await author.say(token("a"))
    port = free_port()
    api = ApiClient(f"http://127.0.0.1:{port}")
    env = {"REDIS_URL": valkey.url, "API_PORT": str(port)}
    async with open_process("api", env, f"{api.api_url}/healthz"):
        before = await read_metrics(api)

        used = []
        with many_files():
            for _ in range(ROUNDS):
                sockets = connect_all(port, authors)
                told = await read_metrics(api)
                assert (told["rejoin_followers"], told["rejoin_followed_logs"]) == (COUNT, LOGS)
                assert await count_connections(client) <= REDIS_CONNECTIONS
                for author in authors:
                    await author.say(token("b"))
                cut_all(sockets)

                async def is_as_before() -> bool:
                    told = await read_metrics(api)
                    names = ("rejoin_followers", "rejoin_followed_logs", "rejoin_tasks")
                    return all(told[name] == before[name] for name in names) and (
                        told["process_open_fds"] <= before["process_open_fds"] + 2
                    )

                await wait_until(is_as_before, "everything to be given back", PATIENCE_S)
                used.append((await read_metrics(api))["process_resident_memory_bytes"])
        base = before["process_resident_memory_bytes"]
        assert used[-1] - base < GROWS_BY * (used[0] - base)
