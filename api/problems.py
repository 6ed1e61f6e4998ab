"""Turn errors into RFC 9457 problems: one table, one row for each error a client can meet."""

import math
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared import errors
from shared.errors import RejoinError

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER: Final = timedelta(seconds=1)
"""What a client is told to wait when Redis is away."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Row:
    """How one error looks outside. `code` is stable: programs branch on it."""

    status: int
    code: str
    title: str


TABLE: Final[dict[type[RejoinError], Row]] = {
    errors.BodyNotJson: Row(400, "body_not_json", "The body is not a JSON object."),
    errors.BodyTooLarge: Row(413, "body_too_large", "The body is too large."),
    errors.RequestInvalid: Row(422, "request_invalid", "A field has the wrong shape."),
    errors.ParameterRefused: Row(422, "parameter_refused", "A parameter is not accepted."),
    errors.CursorMalformed: Row(400, "cursor_malformed", "The cursor is not an entry id."),
    errors.GenerationUnknown: Row(404, "generation_unknown", "There is no such generation."),
    errors.GenerationGone: Row(410, "generation_gone", "The generation was deleted."),
    errors.IdempotencyConflict: Row(
        422, "idempotency_conflict", "The idempotency key was used with another request."
    ),
    errors.CrossSiteRefused: Row(403, "cross_site_refused", "Pages of this site are not allowed."),
    errors.NotAdmitted: Row(429, "queue_full", "Too many generations wait or run."),
    errors.StoreUnavailable: Row(503, "store_unavailable", "The service is away for a moment."),
    errors.Draining: Row(503, "draining", "This server is about to end."),
    errors.RecordUnreadable: Row(
        500, "record_unreadable", "What is stored of the generation cannot be read."
    ),
}


def _details(error: RejoinError) -> tuple[str | None, dict[str, Any]]:
    """Return a sentence for `detail` and the members that only some problems have."""
    match error:
        case errors.BodyNotJson(reason):
            return reason, {}
        case errors.BodyTooLarge(limit):
            return f"The limit is {limit} bytes.", {"limit": limit}
        case errors.RequestInvalid(pointer, reason):
            return reason, {"pointer": pointer}
        case errors.ParameterRefused(name, reason):
            return reason, {"parameter": name}
        case errors.CrossSiteRefused(origin):
            return f"Origin: {origin}", {}
        case _:
            return None, {}


def to_response(error: RejoinError) -> JSONResponse:
    """Return the problem for `error`, which must have a row."""
    row = TABLE[type(error)]
    detail, members = _details(error)
    headers = {}
    if isinstance(error, errors.Unavailable):
        pause = error.retry_after if isinstance(error, errors.NotAdmitted) else RETRY_AFTER
        headers["Retry-After"] = str(math.ceil(pause.total_seconds()))
    return _problem(row, detail, members, headers)


def _problem(
    row: Row, detail: str | None, members: dict[str, Any], headers: dict[str, str]
) -> JSONResponse:
    body = {"type": "about:blank", "title": row.title, "status": row.status, "code": row.code}
    if detail:
        body["detail"] = detail
    return JSONResponse(
        {**body, **members},
        status_code=row.status,
        headers={"Cache-Control": "no-store", **headers},
        media_type=MEDIA_TYPE,
    )


async def _on_rejoin_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RejoinError):
        raise error
    if isinstance(error, errors.StoreUnavailable):
        log.warning("store_unavailable", reason=error.reason)
    if isinstance(error, errors.RecordUnreadable):
        log.error("record_unreadable", reason=error.reason)
    return to_response(error)


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: a path or a method that is not there."""
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    row = Row(error.status_code, phrase.lower().replace(" ", "_"), phrase)
    return _problem(row, None, {}, dict(error.headers or {}))


async def _on_failure(_: Request, error: Exception) -> JSONResponse:
    """The top of the ASGI side: our own mistake. It is raised on, and logged by the server."""
    row = Row(500, "internal_error", "Something went wrong on our side.")
    return _problem(row, None, {}, {})


async def _on_invalid_query(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    pointer = "/" + "/".join(str(part) for part in first["loc"][1:])
    return to_response(errors.RequestInvalid(pointer, first["msg"]))


def install(app: FastAPI) -> None:
    """Have `app` answer with problems."""
    app.add_exception_handler(Exception, _on_failure)
    app.add_exception_handler(RejoinError, _on_rejoin_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_query)
