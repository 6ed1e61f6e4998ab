"""The Responses API: create, retrieve, cancel, delete."""

import re
import time

from aiohttp import web

from worker.standin.admission import admit
from worker.standin.directive import Directive
from worker.standin.entry import Connection, Entry, Outcome
from worker.standin.error import error_object
from worker.standin.exchange import json_response, keep_silent, refuse
from worker.standin.responses.following import Following
from worker.standin.responses.request import ResponsesRequest
from worker.standin.responses.run import Run
from worker.standin.responses.runs import RUNS
from worker.standin.responses.whole import send_whole
from worker.standin.serving import SERVING, Serving


async def create(request: web.Request) -> web.StreamResponse:
    """`POST /v1/responses`."""
    serving = request.app[SERVING]
    admitted = await admit(request, "responses", ResponsesRequest.parse)
    if isinstance(admitted, web.Response):
        return admitted
    run = Run(admitted)
    entry = admitted.entry
    directive = _connection_directive(serving, run)
    if directive.status is not None:
        with serving.answering(request, entry):
            await keep_silent(directive.start)
            return refuse(entry, directive, directive.status)
    elif run.asked.background:
        return await _create_in_background(request, run, directive)
    entry.upstream_id = run.id
    with serving.answering(request, entry), run.followed():
        await keep_silent(directive.start)
        if run.asked.stream:
            response = await Following(request, run, entry, directive).send(run.generate(), 0)
        else:
            response = await send_whole(request, run, entry, directive)
        if run.narration.ended and run.asked.store:
            request.app[RUNS].keep(run)
        return response
    return web.Response()


async def retrieve(request: web.Request) -> web.StreamResponse:
    """`GET /v1/responses/{id}`, with `?stream=true` and `&starting_after=n` as events."""
    serving = request.app[SERVING]
    received_at = time.time()
    run = _find(request)
    stream = request.query.get("stream") in ("true", "1")
    after = request.query.get("starting_after")
    if run is None:
        return _unknown(request)
    well_formed = after is None or re.fullmatch(r"[0-9]{1,9}", after)
    starting_after = int(after) if after is not None and well_formed else None
    connection = run.entry.retrieve(
        received_at=received_at, stream=stream, starting_after=starting_after
    )
    with serving.answering(request, connection):
        if run.forgotten:
            connection.end(Outcome.REFUSED)
            return _unknown(request)
        if not well_formed:
            return _refuse(connection, "starting_after must be a sequence number", "starting_after")
        if not stream:
            connection.end(Outcome.COMPLETED)
            return json_response(200, run.narration.as_json())
        if not (run.asked.background and run.asked.stream):
            return _refuse(
                connection,
                "only what was created with background and stream streams again",
                "stream",
            )
        directive = _connection_directive(serving, run)
        with run.followed():
            await keep_silent(directive.start)
            if directive.retrieve_status is not None:
                return refuse(connection, directive, directive.retrieve_status)
            first = 0 if starting_after is None else starting_after + 1
            return await Following(request, run, connection, directive).send(
                run.follow(first), first
            )
    return web.Response()


async def cancel(request: web.Request) -> web.Response:
    """`POST /v1/responses/{id}/cancel`; once more is no mistake."""
    run = _find(request)
    if run is None or run.forgotten:
        return _unknown(request)
    if not run.asked.background:
        return json_response(400, error_object(400, "Cannot cancel a synchronous response."))
    run.cancel()
    status = run.narration.status
    if status != "cancelled":
        return json_response(400, error_object(400, f"Cannot cancel a {status} response."))
    return json_response(200, run.narration.as_json())


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/responses/{id}`; one that still runs is cancelled."""
    run = _find(request)
    if run is None or run.forgotten:
        return _unknown(request)
    if run.asked.background:
        run.cancel()
    run.forget()
    return json_response(200, {"id": run.id, "object": "response", "deleted": True})


async def _create_in_background(
    request: web.Request, run: Run, directive: Directive
) -> web.StreamResponse:
    serving = request.app[SERVING]
    entry = run.entry
    entry.upstream_id = run.id
    connection = entry.go_to_background(stream=run.asked.stream)
    with serving.answering(request, connection), run.followed():
        request.app[RUNS].start(run)
        body = run.narration.as_json()
        await keep_silent(directive.start)
        if run.asked.stream:
            return await Following(request, run, connection, directive).send(run.follow(0), 0)
        connection.end(Outcome.COMPLETED)
        return json_response(200, body)
    return web.Response()


def _connection_directive(serving: Serving, run: Run) -> Directive:
    if run.spoken.times is None or run.entry.key is None:
        return run.spoken
    return run.spoken.for_attempt(serving.ledger.connections(run.entry.key))


def _find(request: web.Request) -> Run | None:
    return request.app[RUNS].find(request.match_info["id"])


def _unknown(request: web.Request) -> web.Response:
    message = f"Response with id '{request.match_info['id']}' not found."
    error = {**error_object(404, message)["error"], "code": None}
    return json_response(404, {"error": error})


def _refuse(answered: Entry | Connection, message: str, param: str) -> web.Response:
    answered.end(Outcome.INVALID)
    return json_response(400, error_object(400, message, param=param))
