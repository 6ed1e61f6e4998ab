"""The usual recipe, its readers alone: one blocking XREAD for each client, on its own connection.

It reads the very logs that Rejoin reads, under the same paths, from the same cursor. A connection
that is kept for the client's whole stay is cheaper than one that a pool hands out for each read.
"""

import os
import resource
from collections.abc import AsyncIterator
from typing import Annotated, Final

import redis.asyncio
import uvicorn
from fastapi import FastAPI, Header
from sse_starlette import EventSourceResponse, ServerSentEvent

URL: Final = os.environ.get("REDIS_URL", "")
BLOCK_MS: Final = 5_000

app = FastAPI()


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process runs."""
    return {"status": "ok"}


@app.get("/v1/generations/{generation}/events")
async def events(
    generation: str, last_event_id: Annotated[str, Header()] = "0-0"
) -> EventSourceResponse:
    """Follow a log from the cursor."""
    return EventSourceResponse(_follow(f"gen:{{{generation}}}:log", last_event_id))


async def _follow(key: str, cursor: str) -> AsyncIterator[ServerSentEvent]:
    connection: redis.asyncio.Redis
    async with redis.asyncio.Redis.from_url(URL, single_connection_client=True) as connection:
        while True:
            for _, entries in await connection.xread({key: cursor}, block=BLOCK_MS):
                for entry_id, fields in entries:
                    cursor = entry_id.decode()
                    kind = fields[b"t"].decode()
                    yield ServerSentEvent(event=kind, data=fields[b"d"].decode(), id=cursor)


def main() -> None:
    """Serve; each client takes two open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")


if __name__ == "__main__":
    main()
