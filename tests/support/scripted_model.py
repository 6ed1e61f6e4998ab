"""A model server without a socket: a transport of the SDK's own HTTP client that reads a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from openai import AsyncOpenAI

from shared.events import Event
from tests.support.virtual_clock import run_virtual
from worker.provider.answer import Finish
from worker.provider.model_server import ModelServer
from worker.settings import WorkerSettings

SILENCE = "silence"
BREAK = "break"

Piece = bytes | str
"""Bytes of the response, or what happens to the connection at this point."""


class _Body(httpx2.AsyncByteStream):
    """A response's body, piece by piece; remembers that it was let go."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            elif piece == SILENCE:
                await asyncio.Event().wait()
            else:
                raise httpx2.ReadError("connection reset")

    async def aclose(self) -> None:
        self.is_closed = True


class ScriptedModel(httpx2.AsyncBaseTransport):
    """Answers every request alike and remembers what it was asked."""

    def __init__(
        self, pieces: Sequence[Piece], status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.asked: list[dict[str, Any]] = []
        self.body = _Body(pieces)
        self.status = status
        self.headers = {"content-type": "text/event-stream", **(headers or {})}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(json.loads(await request.aread()))
        if self.body.pieces[:1] == [SILENCE]:
            await asyncio.Event().wait()
        if self.body.pieces[:1] == [BREAK]:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(self.status, headers=self.headers, stream=self.body)


@asynccontextmanager
async def connected(server: ScriptedModel, **settings: Any) -> AsyncIterator[ModelServer]:
    """Our provider before this server."""
    http = httpx2.AsyncClient(transport=server)
    async with AsyncOpenAI(
        api_key="k", base_url="http://model/v1", max_retries=0, timeout=None, http_client=http
    ) as client:
        yield ModelServer(client, WorkerSettings(**settings))


DONE = b"data: [DONE]\n\n"


def ask(
    server: ScriptedModel, request: dict[str, Any] | None = None, **settings: Any
) -> tuple[list[Event], Finish]:
    """Everything the server says, and how it ended. Raises: ProviderError."""

    async def main() -> tuple[list[Event], Finish]:
        async with (
            connected(server, **settings) as provider,
            provider.open_answer(request or {"messages": []}, "m") as answer,
        ):
            return [event async for event, _ in answer], answer.finish

    return run_virtual(main())


def chunk(reason: str | None = None, **delta: Any) -> bytes:
    """One frame, as every Chat Completions server sends it."""
    return frame({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def frame(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
