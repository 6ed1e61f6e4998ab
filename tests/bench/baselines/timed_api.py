"""The direct endpoint with a model that costs nothing: each stream is a timer of this process.

FastAPI and sse-starlette alone, without a queue, a Redis, a provider's SDK or a socket to it. What
it adds to a token is what these two cost; when the connection ends, the answer is lost.
"""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from sse_starlette import EventSourceResponse, ServerSentEvent

app = FastAPI()


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process runs."""
    return {"status": "ok"}


@app.get("/answers/{number}")
async def answer(
    number: int, of: int, begin_us: int, pace: float, tokens: int
) -> EventSourceResponse:
    """Stream answer `number` of `of`, whose tokens are spread evenly over time like a writer's."""
    return EventSourceResponse(_stream(begin_us + number / of * 1e6 / pace, pace, tokens))


async def _stream(begin_us: float, pace: float, tokens: int) -> AsyncIterator[ServerSentEvent]:
    """A token has the time at which the model says it, however late we are."""
    for count in range(tokens):
        due_us = begin_us + count * 1e6 / pace
        await asyncio.sleep(max(0.0, due_us / 1e6 - time.monotonic()))
        data = f'{{"text":"@{round(due_us)}:{count + 1};"}}'
        yield ServerSentEvent(event="token", data=data, id=f"1-{count + 1}")


def main() -> None:
    """Serve."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")


if __name__ == "__main__":
    main()
