"""The lightest client that can be: one connection a request, and the time of the first token.

It does not parse what it reads; the bytes of a name are enough. So what is measured is the server.
"""

import asyncio
import json
import time
from urllib.parse import urlsplit

_PATIENCE_S = 30.0
_READ_BYTES = 65_536


async def post(url: str, body: object) -> bytes:
    """POST JSON and return everything that was answered, head included."""
    async with asyncio.timeout(_PATIENCE_S):
        reader, writer = await _send("POST", url, json.dumps(body).encode())
        try:
            answer = await reader.read(-1)
        finally:
            writer.close()
    return answer


async def first_token_time(
    method: str, url: str, *, token: bytes, end: bytes, body: object = None
) -> float:
    """Read an event stream to its end; when `token` first stood in it, in Unix seconds."""
    async with asyncio.timeout(_PATIENCE_S):
        sent = json.dumps(body).encode() if body is not None else b""
        reader, writer = await _send(method, url, sent)
        try:
            seen_at, received = 0.0, b""
            while end not in received:
                piece = await reader.read(_READ_BYTES)
                now = time.time()
                if not piece:
                    raise ConnectionError(f"{url} ended without {end!r}: {received[-300:]!r}")
                received += piece
                if not seen_at and token in received:
                    seen_at = now
        finally:
            writer.close()
    if not seen_at:
        raise ConnectionError(f"{url} said no {token!r}: {received[-300:]!r}")
    return seen_at


async def _send(
    method: str, url: str, body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    target = urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    head = (
        f"{method} {target.path} HTTP/1.1\r\nhost: {target.netloc}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return reader, writer
