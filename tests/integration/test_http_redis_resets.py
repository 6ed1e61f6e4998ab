"""A Redis address that takes connections and resets them: a balancer with nothing behind it."""

import asyncio
from collections import Counter

from tests.support.api_client import ApiClient
from tests.support.processes import free_port, open_process
from tests.support.redis_server import RedisServer
from tests.support.stack import api_environment
from tests.support.switch import open_switch

AT_ONCE, ROUNDS = 20, 10


async def test_an_address_that_resets_is_a_redis_that_is_away(valkey: RedisServer) -> None:
    """503 to a POST, an empty stream to a follower, never 500: browsers give up on that."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with open_switch(valkey.port) as switch:
        told = api_environment(switch.url, port, {})
        async with open_process("api", told, f"{url}/healthz") as process:
            api = ApiClient(url)
            generation = await api.create("hello")
            switch.shut()
            posts, follows = Counter[int](), Counter[int]()

            async def ask() -> None:
                posts[(await api.post({"prompt": "hello"})).status] += 1
                path = f"/v1/generations/{generation}/events"
                follows[(await api.call("GET", path)).status] += 1

            for _ in range(ROUNDS):
                await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
            assert process.running
    assert (set(posts), set(follows)) == ({503}, {200})
