"""A model server without a socket: a transport of the SDK's own HTTP client that reads a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2

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
