"""No queue at all: an endpoint that streams from the model inside the request.

Fast, and with nothing to resume: when the connection or this process ends, the answer is lost.
"""

import os
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request
from openai import AsyncOpenAI
from sse_starlette import EventSourceResponse, ServerSentEvent

app = FastAPI()
model = AsyncOpenAI(max_retries=0)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process runs."""
    return {"status": "ok"}


@app.post("/chat")
async def chat(request: Request) -> EventSourceResponse:
    """Ask the model and stream what it says."""
    prompt: str = (await request.json())["prompt"]
    return EventSourceResponse(_stream(prompt))


async def _stream(prompt: str) -> AsyncIterator[ServerSentEvent]:
    chunks = await model.chat.completions.create(
        model="standin", messages=[{"role": "user", "content": prompt}], stream=True
    )
    async with chunks:
        async for chunk in chunks:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield ServerSentEvent(event="token", data=text)
    yield ServerSentEvent(event="done", data="")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
