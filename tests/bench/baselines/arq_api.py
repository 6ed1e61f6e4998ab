"""The usual recipe, its API: enqueue a job, and one blocking XREAD for each client."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
import uvicorn
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

URL = os.environ["REDIS_URL"]
BLOCK_MS = 5_000


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool of jobs and the connections of the readers."""
    app.state.jobs = await create_pool(RedisSettings.from_dsn(URL))
    async with redis.asyncio.Redis.from_url(URL) as app.state.redis:
        yield
    await app.state.jobs.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process runs."""
    return {"status": "ok"}


@app.post("/generations", status_code=202)
async def create(request: Request) -> dict[str, str]:
    """Enqueue a generation."""
    generation = uuid.uuid4().hex
    prompt: str = (await request.json())["prompt"]
    await app.state.jobs.enqueue_job("generate", generation, prompt)
    return {"id": generation}


@app.get("/generations/{generation}/events")
async def events(generation: str) -> EventSourceResponse:
    """Follow its stream from the beginning."""
    return EventSourceResponse(_follow(f"stream:{generation}"))


async def _follow(key: str) -> AsyncIterator[ServerSentEvent]:
    cursor = "0-0"
    while True:
        for _, entries in await app.state.redis.xread({key: cursor}, block=BLOCK_MS):
            for entry_id, fields in entries:
                cursor = entry_id.decode()
                kind = fields[b"t"].decode()
                yield ServerSentEvent(event=kind, data=fields[b"d"].decode(), id=cursor)
                if kind == "done":
                    return


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
