"""Event streams as routes answer with them where density does not matter, and what all share."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import anyio
from fastapi import Response
from sse_starlette.sse import EventSourceResponse

from api.server import DRAIN_GRACE
from api.sse import MEDIA_TYPE, encode_retry

HEADERS: Final = {
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}

_COME_BACK_MS: Final = (1000, 5000)


def stream(frames: AsyncIterator[bytes]) -> EventSourceResponse:
    """Return `frames`, each chunk whole frames, as an event stream.

    Heartbeats and the farewell come from the tail, in order with the rest; sse-starlette adds
    the watch for disconnects and the end when the server drains.
    """
    return EventSourceResponse(
        frames,
        headers=HEADERS,
        media_type=MEDIA_TYPE,
        ping=0,
        sep="\n",
        shutdown_event=anyio.Event(),
        shutdown_grace_period=DRAIN_GRACE.total_seconds(),
    )


def come_back(frame: bytes = b"") -> Response:
    """Return an empty event stream: `EventSource` gives up for good on anything but 200."""
    pause = timedelta(milliseconds=random.randint(*_COME_BACK_MS))
    return Response(encode_retry(pause) + frame, headers=HEADERS, media_type=MEDIA_TYPE)
