"""Ask the stand-in through the official client, and read what came."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from worker.standin import Entry, Ledger, Outcome, Standin, answer

MODEL = "standin"
KEY = "sk-nobody-may-keep-this"
ENDLESS = "Why? [standin tokens=40 pace=0.001]"
LONG = "Why? [standin tokens=100000 pace=200 kind=plain]"
PATIENCE_SECONDS = 10.0
NOTICED_SECONDS = 0.5


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def said(prompt: str, **options: Any) -> str:
    return "".join(answer(MODEL, asking(prompt), default_tokens=40, **options))


async def follow(
    client: AsyncOpenAI, prompt: str, **parameters: Any
) -> AsyncGenerator[ChatCompletionChunk, None]:
    """The chunks of an answer; `messages` among the parameters are asked instead of the prompt."""
    parameters = {"messages": asking(prompt), **parameters}
    chunks = await client.chat.completions.create(model=MODEL, stream=True, **parameters)
    async with chunks:
        async for chunk in chunks:
            yield chunk


async def read(
    client: AsyncOpenAI, prompt: str, **parameters: Any
) -> tuple[list[ChatCompletionChunk], Exception | None]:
    """Everything that came, and the error that ended it."""
    chunks: list[ChatCompletionChunk] = []
    try:
        async for chunk in follow(client, prompt, **parameters):
            chunks.append(chunk)  # noqa: PERF401 - what came before an error counts
    except (openai.OpenAIError, ValueError) as error:
        return chunks, error
    return chunks, None


def tokens(chunks: list[ChatCompletionChunk]) -> list[str]:
    """The content deltas after the role."""
    deltas = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    return [content for content in deltas if content]


def finish_reasons(chunks: list[ChatCompletionChunk]) -> list[str]:
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


async def wait_ledger(standin: Standin, predicate: Callable[[Ledger], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await standin.ledger.wait_until(predicate)


async def only_outcome(standin: Standin) -> Outcome:
    """What became of the one request, once it has ended."""
    await wait_ledger(standin, lambda ledger: not ledger.open)
    (entry,) = standin.ledger.entries
    return entry.outcome


@asynccontextmanager
async def posting(standin: Standin, prompt: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A streamed request without the official client, for what that hides."""
    body = {"model": MODEL, "messages": asking(prompt), "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{standin.base_url}/chat/completions", json=body) as response,
    ):
        yield response


async def create(
    client: AsyncOpenAI, prompt: str, **parameters: Any
) -> AsyncGenerator[ResponseStreamEvent, None]:
    """The events of a new response."""
    stream = await client.responses.create(model=MODEL, input=prompt, stream=True, **parameters)
    async with stream:
        async for event in stream:
            yield event


async def retrieve(
    client: AsyncOpenAI, response_id: str, after: int | None = None
) -> AsyncGenerator[ResponseStreamEvent, None]:
    """The events of a response behind a sequence number, or all."""
    cursor: Any = {} if after is None else {"starting_after": after}
    stream = await client.responses.retrieve(response_id, stream=True, **cursor)
    async with stream:
        async for event in stream:
            yield event


async def gather(
    events: AsyncGenerator[ResponseStreamEvent, None],
) -> tuple[list[ResponseStreamEvent], Exception | None]:
    """Everything that came, and the error that ended it."""
    gathered: list[ResponseStreamEvent] = []
    try:
        async for event in events:
            gathered.append(event)  # noqa: PERF401 - what came before an error counts
    except (openai.OpenAIError, ValueError) as error:
        return gathered, error
    return gathered, None


def deltas(events: list[ResponseStreamEvent]) -> list[str]:
    """The pieces of text in a response's events."""
    return [event.delta for event in events if event.type == "response.output_text.delta"]


def response_of(event: ResponseStreamEvent) -> Response:
    """The response that an event of its life tells."""
    assert hasattr(event, "response"), f"{event.type} tells no response"
    response = event.response
    assert isinstance(response, Response)
    return response


async def only_run(standin: Standin) -> Entry:
    """The one request, once it has ended and nobody is connected."""
    await wait_ledger(standin, lambda ledger: not ledger.open and not ledger.running)
    (entry,) = standin.ledger.entries
    return entry


async def leave_after(
    client: AsyncOpenAI, prompt: str, tokens: int
) -> tuple[str, list[ResponseStreamEvent]]:
    """Begin in the background, and hang up with that many tokens: the id, and what came."""
    events: list[ResponseStreamEvent] = []
    async with aclosing(create(client, prompt, background=True)) as stream:
        async for event in stream:
            events.append(event)
            if len(deltas(events)) == tokens:
                break
    return response_of(events[0]).id, events
