"""Ask the stand-in through the official client, and read what came."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from worker.standin import Ledger, Outcome, Standin, answer

MODEL = "standin"
KEY = "sk-nobody-may-keep-this"
PATIENCE_SECONDS = 10.0
NOTICED_SECONDS = 0.5


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def said(prompt: str, **options: Any) -> str:
    return "".join(answer(MODEL, asking(prompt), default_tokens=40, **options))


async def follow(
    client: AsyncOpenAI, prompt: str, **parameters: Any
) -> AsyncGenerator[ChatCompletionChunk, None]:
    chunks = await client.chat.completions.create(
        model=MODEL, messages=asking(prompt), stream=True, **parameters
    )
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
