"""What a connection costs that many need at once: how it is taken, how it is answered."""

import asyncio
import socket
import struct

import pytest
import uvloop

from shared.connections import Client
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, token
from tests.support.redis_server import RedisServer
from tests.support.wait import next_turn

CONNECTIONS = 32

TCPI_DATA_SEGS_IN = 152
"""Where Linux has them in `struct tcp_info`, a 32-bit number. Source: linux/tcp.h."""


def test_a_turn_of_the_loop_takes_several_connections(valkey: RedisServer) -> None:
    """On uvloop, which by itself would take one."""

    async def count_turns() -> int:
        async with open_api(valkey.url) as api:
            sockets = [
                socket.create_connection(("127.0.0.1", api.port)) for _ in range(CONNECTIONS)
            ]
            turns = 0
            while api.connections < CONNECTIONS:
                await next_turn()
                turns += 1
            for each in sockets:
                each.close()
            return turns

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(count_turns()) < CONNECTIONS / 2


@pytest.mark.linux
async def test_head_and_history_leave_together(api: ApiProcess, client: Client) -> None:
    """One system call, and one packet: in a storm each of them costs as much as what it carries."""
    author = await Author.create(client)
    await author.claim()
    await author.say(*[token(f"{at} ") for at in range(100)])
    await author.close()

    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    path = f"/v1/generations/{author.generation}/events"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"event: done\n" in answer
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert struct.unpack_from("I", info, TCPI_DATA_SEGS_IN) == (1,)


async def test_requests_of_one_packet_are_answered_in_order(
    api: ApiProcess, client: Client
) -> None:
    """Each answer whole before the next begins, though none of their bytes leaves at once."""
    generations = []
    for name in ("first", "second", "third"):
        author = await Author.create(client)
        await author.claim()
        await author.say(token(name))
        await author.close()
        generations.append(author.generation)

    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    for generation, keeps in zip(generations, ("keep-alive", "keep-alive", "close"), strict=True):
        path = f"/v1/generations/{generation}/events"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {keeps}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()

    answers = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [each.count(b"event: done\n") for each in answers] == [1, 1, 1]
    for each, said in zip(answers, (b"first", b"second", b"third"), strict=True):
        assert b'"text":"%b"' % said in each
        assert each.endswith(b"\r\n0\r\n\r\n")
