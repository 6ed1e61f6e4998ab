"""`GET /chat/stream`: one call for `EventSource` that creates, streams and resumes.

The ids are `<generation id>/<entry id>`. The first frame has only an id, so a reconnect to the
same URL, which a browser makes by itself, resumes the same generation and never pays for another.
"""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from api.dependencies import Held, Process
from api.origin import check_origin
from api.requests import parse_idempotency_key, parse_request
from api.sse import CHAT
from api.streams import come_back, stream
from shared.errors import (
    CursorMalformed,
    Draining,
    GenerationUnknown,
    NotAdmitted,
    StoreUnavailable,
)
from shared.event_log import GenerationView
from shared.generation import Surface
from shared.ids import BEGINNING, EntryId, GenerationId, parse_entry_id, parse_generation_id

router = APIRouter(tags=["chat"])


@router.get("/chat/stream")
async def chat_stream(
    request: Request,
    process: Process,
    prompt: str = "",
    model: str | None = None,
    key: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
    last_event_id_query: Annotated[str | None, Query(alias="last_event_id")] = None,
) -> Response:
    """Stream the answer to `prompt` as plain text events; `key` makes a repeat the same call."""
    text = last_event_id or last_event_id_query
    if text:
        return await _resume(process, *_parse_cursor(text))
    check_origin(request, process.settings.allowed_origins)
    parameters = parse_request({"prompt": prompt} | ({"model": model} if model else {}))
    idempotency_key = parse_idempotency_key(key)
    try:
        process.check_not_draining()
        ticket = await process.admission.offer(parameters, Surface.CHAT, idempotency_key)
    except (StoreUnavailable, NotAdmitted, Draining):
        return come_back()
    try:
        await process.admission.create(ticket)
        view = await process.view(ticket.generation, BEGINNING)
    except StoreUnavailable:
        # It may exist: the reconnect asks for this one, since a new one could be paid for twice.
        return come_back(CHAT.encode_opening(ticket.generation, BEGINNING))
    return _answer(process, ticket.generation, view, BEGINNING)


async def _resume(process: Held, generation: GenerationId, cursor: EntryId) -> Response:
    try:
        process.check_not_draining()
        view = await process.look(generation, cursor)
    except (StoreUnavailable, Draining):
        return come_back()
    if view.record.surface is not Surface.CHAT:
        raise GenerationUnknown
    return _answer(process, generation, view, cursor)


def _answer(
    process: Held, generation: GenerationId, view: GenerationView, cursor: EntryId
) -> Response:
    """Return 204 where everything was read, else the response that tails the log."""
    if view.record.state.is_closed and cursor == view.last_id:
        return Response(status_code=204)
    return stream(process.tail(generation, CHAT).frames(view, cursor))


def _parse_cursor(text: str) -> tuple[GenerationId, EntryId]:
    """Read `<generation id>/<entry id>`. Raises: CursorMalformed, GenerationUnknown."""
    generation, slash, entry = text.partition("/")
    if not slash:
        raise CursorMalformed
    return parse_generation_id(generation), parse_entry_id(entry)
