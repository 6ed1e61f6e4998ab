"""The hot route: `GET /v1/generations/{id}/events`, answered before FastAPI.

A connection that waits costs its request's task and a cursor. What is rare is answered as any other
route would: problems, 204, a reconnect.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Response

from api import problems
from api.dependencies import Held
from api.live import Follower
from api.server import CONNECTION
from api.sse import MEDIA_TYPE, NATIVE
from api.streams import HEADERS, come_back
from api.turnstile import Turnstile
from api.wire import Connection, Wire
from shared.errors import Draining, RejoinError, StoreUnavailable
from shared.event_log import GenerationView
from shared.ids import BEGINNING, EntryId, GenerationId, parse_entry_id, parse_generation_id

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BEGIN_AT_ONCE: Final = 50
"""Followers that begin in one turn of the event loop, which is some 15 ms of work."""

_PATH: Final = re.compile(r"/v1/generations/([^/]+)/events")

_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", MEDIA_TYPE.encode() + b"; charset=utf-8"),
        *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
    ],
}
_END: Final = {"type": "http.response.body", "body": b"", "more_body": False}

OPENAPI_PATH: Final = "/v1/generations/{generation_id}/events"
OPENAPI: Final = {
    "get": {
        "tags": ["generations"],
        "summary": "Follow",
        "description": "Stream the events beyond the cursor: `Last-Event-ID`, else the query, else"
        " the beginning.",
        "parameters": [
            {"name": "generation_id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "last-event-id", "in": "header", "schema": {"type": "string"}},
            {"name": "last_event_id", "in": "query", "schema": {"type": "string"}},
        ],
        "responses": {
            "200": {"description": "Server-sent events", "content": {MEDIA_TYPE: {}}},
            "204": {"description": "Everything was read"},
            "404": {"description": "No such generation"},
        },
    }
}
"""What `/openapi.json` says of this route, which FastAPI does not know."""


class FollowRoute:
    """ASGI: follows are answered here, everything else by `app`."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._turnstile = Turnstile(BEGIN_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            match = _PATH.fullmatch(scope["path"])
            if match is not None:
                await self._follow(match[1], scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _follow(self, text: str, scope: Scope, receive: Receive, send: Send) -> None:
        held: Held = self._app.state.held
        try:
            generation = parse_generation_id(text)
            cursor = _find_cursor(scope)
            await self._turnstile.enter()
            connection: Connection = scope["extensions"][CONNECTION]
            if connection.is_lost:
                return
            found = await _look(held, generation, cursor)
        except RejoinError as error:
            found = problems.to_response(error)
        if isinstance(found, Response):
            await found(scope, receive, send)
            return
        wire = Wire(connection)
        try:
            # A message of its own: CORS, which stands before this, writes its headers into it.
            await send(dict(_START))
            follower = Follower(held.tail(generation, NATIVE), wire, held.patience.heartbeat)
            serving = follower.serve(found, cursor)
            del found  # not kept while it waits
            await serving
        finally:
            wire.close()
        await send(_END)


async def _look(held: Held, generation: GenerationId, cursor: EntryId) -> GenerationView | Response:
    """Return what there is beyond `cursor`, or what is to be answered instead.

    Raises: GenerationUnknown.
    """
    try:
        held.check_not_draining()
        view = await held.look(generation, cursor)
    except (StoreUnavailable, Draining):
        return come_back()
    if view.record.state.is_closed and cursor == view.last_id:
        return Response(status_code=204)
    return view


def _find_cursor(scope: Scope) -> EntryId:
    """Return the cursor: `Last-Event-ID`, else the query, else the beginning.

    Raises: CursorMalformed.
    """
    text = next((value for name, value in scope["headers"] if name == b"last-event-id"), b"")
    if not text:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return parse_entry_id(query["last_event_id"][-1]) if "last_event_id" in query else BEGINNING
    return parse_entry_id(text.decode("latin-1"))
