"""The private servers are ours alone, die when told to, and lose only what they are told to."""

import socket

import pytest
import redis
import redis.asyncio

from tests.support.process_table import process_state
from tests.support.redis_server import Kind, RedisServer, open_redis_server, server_binary
from tests.support.wait import wait_until

KINDS = ["valkey", pytest.param("redis", marks=pytest.mark.redis_server)]


@pytest.mark.parametrize("kind", KINDS)
async def test_server_answers_by_tcp_and_by_unix_socket(kind: Kind) -> None:
    """Both addresses lead to the one process we started, and it is gone afterwards."""
    async with open_redis_server(kind) as server:
        for url in (server.url, server.socket_url):
            async with redis.asyncio.Redis.from_url(url, protocol=2) as client:
                assert (await client.info("server"))["process_id"] == server.pid
    assert process_state(server.pid) is None
    assert not server.directory.exists()


async def test_extra_arguments_win() -> None:
    """A test can configure its own server, memory and eviction for instance."""
    async with (
        open_redis_server(extra_args=["--maxmemory", "8mb"]) as server,
        server.client() as client,
    ):
        assert await client.config_get("maxmemory") == {"maxmemory": "8388608"}


async def test_server_with_aof_keeps_its_data_over_kill_and_start() -> None:
    """SIGKILL loses nothing acknowledged; port and folder stay the same."""
    async with open_redis_server(aof=True) as server:
        async with server.client() as client:
            await client.set("k", "v", ex=60)
        first = server.pid
        server.kill()
        await server.start()
        assert server.pid != first
        async with server.client() as client:
            assert await client.get("k") == b"v"


async def test_server_without_aof_forgets_everything() -> None:
    """Without an append-only file a restart begins empty."""
    async with open_redis_server() as server:
        async with server.client() as client:
            await client.set("k", "v", ex=60)
        await server.stop()
        assert server.process.returncode == 0
        await server.start()
        async with server.client() as client:
            assert await client.dbsize() == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_truncating_the_aof_loses_exactly_what_came_after_the_mark(kind: Kind) -> None:
    """Acknowledged writes after the mark are gone, those before it are not."""
    async with open_redis_server(kind, aof=True) as server:
        async with server.client() as client:
            await client.set("before", 1, ex=60)
            mark = server.aof_bytes()
            await client.set("after", 1, ex=60)
        server.kill()
        server.truncate_aof(mark)
        await server.start()
        async with server.client() as client:
            assert await client.keys() == [b"before"]


async def test_frozen_server_does_not_answer_until_thawed() -> None:
    """SIGSTOP leaves the connection open and silent; SIGCONT gives the answer."""
    async with (
        open_redis_server() as server,
        server.client(socket_timeout=0.05, single_connection_client=True) as impatient,
        server.client() as patient,
    ):
        await impatient.ping()
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            await impatient.ping()
        server.thaw()
        assert await patient.ping() is True


async def test_server_whose_port_was_taken_starts_on_another() -> None:
    """Between choosing a port and binding it somebody else may come."""
    server = RedisServer("valkey")
    taken = server.port
    with socket.create_server(("127.0.0.1", taken)):
        try:
            server.start_blocking()
            assert server.port != taken
            assert server.running
        finally:
            server.close()


async def test_server_that_cannot_start_says_why() -> None:
    """A wrong option fails at once, with the server's own words."""
    with pytest.raises(AssertionError, match="no-such-option"):
        async with open_redis_server(extra_args=["--no-such-option", "1"]):
            pass


def test_missing_redis_server_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the binary a test of it fails, and is told what to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AssertionError, match="apt-get install redis-server"):
        server_binary("redis")


async def test_killed_server_refuses_connections(valkey: RedisServer) -> None:
    """After kill() nothing listens on the port; the session's own server is not concerned."""
    async with open_redis_server() as server:
        server.kill()
        async with server.client() as client:
            with pytest.raises(redis.ConnectionError):
                await client.ping()
        assert valkey.running


async def test_session_server_is_emptied_before_each_test(
    valkey: RedisServer, valkey_client: redis.asyncio.Redis
) -> None:
    """Neither keys nor scripts of another test are there."""
    await valkey_client.set("k", "v", ex=60)
    sha = await valkey_client.script_load("return 1")
    valkey.flush()
    assert await valkey_client.dbsize() == 0
    assert await valkey_client.script_exists(sha) == [False]


async def test_real_server_comes_in_both_kinds(real_server: RedisServer) -> None:
    """The fixture's parameter is the server one gets."""
    name = {"valkey": b"valkey", "redis": b"redis"}[real_server.kind]
    async with real_server.client() as client:
        await wait_until(client.ping, "an answer")
        info = await client.info("server")
    assert info.get("server_name", "redis").encode() == name


async def test_redis_client_runs_streams_and_scripts(redis_client: redis.asyncio.Redis) -> None:
    """All three backends take explicit ids, refuse older ones, and run Lua; bytes come out."""
    assert await redis_client.xadd("s", {"t": "token"}, id="5-0") == b"5-0"
    with pytest.raises(redis.ResponseError):
        await redis_client.xadd("s", {"t": "token"}, id="4-0")
    script = "return redis.call('XADD', KEYS[1], ARGV[1], 't', 'done')"
    assert await redis_client.eval(script, 1, "s", "5-1") == b"5-1"  # type: ignore[misc]
    await redis_client.expire("s", 60)
    assert await redis_client.xrange("s") == [(b"5-0", {b"t": b"token"}), (b"5-1", {b"t": b"done"})]


async def test_redis_client_begins_empty(redis_client: redis.asyncio.Redis) -> None:
    """Whatever the test before wrote is not there."""
    assert await redis_client.dbsize() == 0
    await redis_client.set("left over", 1, ex=60)
