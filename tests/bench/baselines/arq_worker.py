"""The usual recipe, its worker: arq as it comes, a plain XADD for every token."""

import asyncio
import os
from typing import Any

import redis.asyncio
from arq.connections import RedisSettings
from arq.worker import Worker
from openai import AsyncOpenAI

URL = os.environ["REDIS_URL"]


async def start_up(ctx: dict[str, Any]) -> None:
    """Open what the jobs share."""
    ctx["model"] = AsyncOpenAI(max_retries=0)
    ctx["log"] = redis.asyncio.Redis.from_url(URL)
    print("worker started", flush=True)


async def generate(ctx: dict[str, Any], generation: str, prompt: str) -> None:
    """Stream the answer into the generation's stream."""
    key = f"stream:{generation}"
    chunks = await ctx["model"].chat.completions.create(
        model="standin", messages=[{"role": "user", "content": prompt}], stream=True
    )
    async with chunks:
        async for chunk in chunks:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                await ctx["log"].xadd(key, {"t": "token", "d": text})
    await ctx["log"].xadd(key, {"t": "done", "d": ""})
    await ctx["log"].expire(key, 600)


async def main() -> None:
    """Run with arq's own defaults, its poll of 0.5 s among them; only its slots can be told."""
    worker = Worker(
        functions=[generate],
        on_startup=start_up,
        redis_settings=RedisSettings.from_dsn(URL),
        max_jobs=int(os.environ.get("MAX_JOBS", "10")),
    )
    await worker.async_run()


if __name__ == "__main__":
    asyncio.run(main())
