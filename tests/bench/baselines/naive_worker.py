"""The plain loop: for every chunk that the SDK yields, one awaited XADD.

It has no queue but a list, no lease and no fence; what is left is the loop itself, given the
fastest of everything that costs no design: the aiohttp backend, hiredis, and for each of its
coroutines a connection of its own that it keeps, which is cheaper than asking a pool each time.
"""

import asyncio
import json
import os
from contextlib import AsyncExitStack

import httpx2
import redis.asyncio
from openai import AsyncOpenAI, DefaultAioHttpClient

READY = "worker started"
"""What it prints once it takes work."""

ASKED = "asked"
"""The list of what is to be done: JSON, `{"id", "prompt"}`."""


def stream_key(generation: str) -> str:
    """The stream that holds one answer."""
    return f"stream:{generation}"


async def work(model: AsyncOpenAI, connection: redis.asyncio.Redis) -> None:
    """Take one generation after the other, until cancelled."""
    while True:
        _, asked = await connection.blpop([ASKED], timeout=0)  # type: ignore[misc]
        generation = json.loads(asked)
        await generate(model, connection, stream_key(generation["id"]), generation["prompt"])


async def generate(
    model: AsyncOpenAI, connection: redis.asyncio.Redis, key: str, prompt: str
) -> None:
    """The loop."""
    stream = await model.chat.completions.create(
        model="standin", messages=[{"role": "user", "content": prompt}], stream=True
    )
    async for chunk in stream:
        if text := chunk.choices[0].delta.content:
            await connection.xadd(key, {"t": "token", "d": json.dumps({"text": text})})
    await connection.xadd(key, {"t": "done", "d": "{}"})


async def main() -> None:
    """Run as many loops as there may be generations at once."""
    url, at_once = os.environ["REDIS_URL"], int(os.environ["AT_ONCE"])
    limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with AsyncExitStack() as exits:
        http_client = DefaultAioHttpClient(timeout=None, limits=limits)
        model = await exits.enter_async_context(
            AsyncOpenAI(max_retries=0, timeout=None, http_client=http_client)
        )
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                connection = redis.asyncio.Redis.from_url(url, single_connection_client=True)
                tasks.create_task(work(model, await exits.enter_async_context(connection)))
            print(READY, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
