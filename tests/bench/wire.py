"""The lightest client that can be: one connection a request, and the time of the first token.

It does not parse what it reads; the bytes of a name are enough. So what is measured is the server.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

_PATIENCE_S = 30.0
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    method: str
    url: str
    body: object = None


async def post(url: str, body: object) -> bytes:
    """POST JSON and return everything that was answered, head included."""
    async with asyncio.timeout(_PATIENCE_S):
        reader, writer = await _send(Ask("POST", url, body))
        try:
            answer = await reader.read(-1)
        finally:
            writer.close()
    return answer


async def first_token_time(ask: Ask, *, token: bytes, end: bytes) -> float:
    """Read an event stream to its end; when `token` first stood in it, in Unix seconds."""
    async with asyncio.timeout(_PATIENCE_S):
        reader, writer = await _send(ask)
        try:
            seen_at, received = 0.0, b""
            while end not in received:
                piece = await reader.read(_READ_BYTES)
                now = time.time()
                if not piece:
                    raise ConnectionError(f"{ask.url} ended without {end!r}: {received[-300:]!r}")
                received += piece
                if not seen_at and token in received:
                    seen_at = now
        finally:
            writer.close()
    if not seen_at:
        raise ConnectionError(f"{ask.url} said no {token!r}: {received[-300:]!r}")
    return seen_at


async def read_stream(ask: Ask, *, end: bytes, patience_s: float) -> bytes:
    """Read an event stream until it has said `end`, and its body, transfer coding taken off."""
    async with asyncio.timeout(patience_s):
        reader, writer = await _send(ask)
        try:
            pieces, tail = [], b""
            while end not in tail:
                piece = await reader.read(_READ_BYTES)
                if not piece:
                    raise ConnectionError(f"{ask.url} ended without {end!r}: {tail!r}")
                pieces.append(piece)
                tail = tail[-len(end) :] + piece
        finally:
            writer.close()
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    return _join_chunks(body) if b"transfer-encoding: chunked" in head.lower() else body


def _join_chunks(body: bytes) -> bytes:
    """The data of the chunks; the last may have been cut off behind the end that was waited for."""
    data, at = [], 0
    while (line_end := body.find(b"\r\n", at)) > at:
        start = line_end + 2
        size = int(body[at:line_end], 16)
        data.append(body[start : start + size])
        at = start + size + 2
    return b"".join(data)


async def _send(ask: Ask) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    target = urlsplit(ask.url)
    body = b"" if ask.body is None else json.dumps(ask.body).encode()
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    head = (
        f"{ask.method} {target.path} HTTP/1.1\r\nhost: {target.netloc}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return reader, writer
