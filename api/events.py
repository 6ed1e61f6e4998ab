"""Follow a generation's events: choose the cursor, answer, tail."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Header, Query, Response
from sse_starlette.sse import EventSourceResponse

from api.dependencies import Held, Process
from api.server import DRAIN_GRACE
from api.sse import MEDIA_TYPE, NATIVE, Dialect, encode_retry
from shared.errors import Draining, StoreUnavailable
from shared.event_log import GenerationView
from shared.ids import BEGINNING, EntryId, GenerationId, parse_entry_id, parse_generation_id

router = APIRouter(prefix="/v1/generations", tags=["generations"])

HEADERS: Final = {
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}

_COME_BACK_MS: Final = (1000, 5000)


@router.get("/{generation_id}/events")
async def follow(
    generation_id: str,
    process: Process,
    last_event_id: Annotated[str | None, Header()] = None,
    last_event_id_query: Annotated[str | None, Query(alias="last_event_id")] = None,
) -> Response:
    """Stream the events beyond the cursor: `Last-Event-ID`, else the query, else the beginning."""
    generation = parse_generation_id(generation_id)
    text = last_event_id or last_event_id_query
    cursor = parse_entry_id(text) if text else BEGINNING
    try:
        process.check_not_draining()
        view = await process.view(generation, cursor)
    except (StoreUnavailable, Draining):
        return come_back()
    return answer_follow(process, generation, NATIVE, view, cursor)


def answer_follow(
    process: Held, generation: GenerationId, dialect: Dialect, view: GenerationView, cursor: EntryId
) -> Response:
    """Return 204 where everything was read, else the response that tails the log."""
    if view.record.state.is_closed and cursor == view.last_id:
        return Response(status_code=204)
    return stream(process.tail(generation, dialect).frames(view, cursor))


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
