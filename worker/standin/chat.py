"""Chat Completions: understand one request, enter it in the ledger, and answer or refuse it."""

import time

from aiohttp import web

from worker.standin.directive import Directive, parse
from worker.standin.error import RequestInvalid, error_object
from worker.standin.exchange import Exchange, json_response, keep_silent
from worker.standin.ledger import Entry, Outcome
from worker.standin.request import ChatRequest
from worker.standin.script import Script, compose, last_user_text
from worker.standin.serving import SERVING
from worker.standin.streamed import send_streamed
from worker.standin.whole import send_whole


async def complete(request: web.Request) -> web.StreamResponse:
    """`POST /v1/chat/completions`."""
    serving = request.app[SERVING]
    received_at = time.time()
    authorization = request.headers.get("Authorization")
    body = await request.read()
    try:
        asked = ChatRequest.parse(body)
    except RequestInvalid as error:
        entry = serving.ledger.receive(received_at=received_at, authorization=authorization)
        return _refuse_invalid(entry, error)
    entry = serving.ledger.receive(
        received_at=received_at,
        key=asked.key,
        model=asked.model,
        authorization=authorization,
        parameters=asked.parameters,
    )
    try:
        directive, _ = parse(last_user_text(asked.messages)[1])
        script = compose(
            asked.model,
            asked.messages,
            tools=asked.tools,
            default_tokens=serving.settings.tokens,
            limit=asked.limit,
            attempt=entry.attempt,
        )
        _require_reachable(directive, script)
    except RequestInvalid as error:
        return _refuse_invalid(entry, error)

    pace = serving.settings.tokens_per_second if directive.pace is None else directive.pace
    exchange = Exchange(
        request, asked, directive.for_attempt(entry.attempt), script, entry, tokens_per_second=pace
    )
    with serving.answering(request, entry):
        return await _answer(exchange)
    # The client left while we wrote; nobody reads this.
    return web.Response()


async def _answer(exchange: Exchange) -> web.StreamResponse:
    directive = exchange.directive
    await keep_silent(directive.start)
    if directive.status is not None:
        response = json_response(directive.status, exchange.error_json(directive.status))
        if directive.retry_after is not None:
            response.headers["Retry-After"] = directive.retry_after
        exchange.entry.end(Outcome.REFUSED)
        return response
    if exchange.asked.stream:
        return await send_streamed(exchange)
    return await send_whole(exchange)


def _refuse_invalid(entry: Entry, error: RequestInvalid) -> web.Response:
    entry.end(Outcome.INVALID)
    return json_response(400, error_object(400, error.message, param=error.param))


def _require_reachable(directive: Directive, script: Script) -> None:
    fault, deltas = directive.fault, len(script.deltas)
    if fault is not None and fault.after > deltas:
        raise RequestInvalid(
            f"[standin]: {fault.name}_after={fault.after} lies beyond the {deltas} deltas"
            " of this answer",
            "messages",
        )
