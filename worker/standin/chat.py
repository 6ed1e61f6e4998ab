"""Chat Completions: answer one request, or refuse it."""

from aiohttp import web

from worker.standin.admission import admit
from worker.standin.exchange import Exchange, keep_silent, refuse
from worker.standin.request import ChatRequest
from worker.standin.serving import SERVING
from worker.standin.streamed import send_streamed
from worker.standin.whole import send_whole


async def complete(request: web.Request) -> web.StreamResponse:
    """`POST /v1/chat/completions`."""
    admitted = await admit(request, "chat", ChatRequest.parse)
    if isinstance(admitted, web.Response):
        return admitted
    exchange = Exchange(
        request,
        admitted.asked,
        admitted.directive.for_attempt(admitted.entry.attempt),
        admitted.script,
        admitted.entry,
        tokens_per_second=admitted.tokens_per_second,
    )
    exchange.entry.upstream_id = exchange.answer_id
    with request.app[SERVING].answering(request, exchange.entry):
        return await _answer(exchange)
    # The client left while we wrote; nobody reads this.
    return web.Response()


async def _answer(exchange: Exchange) -> web.StreamResponse:
    directive = exchange.directive
    await keep_silent(directive.start)
    if directive.status is not None:
        return refuse(exchange.entry, directive, directive.status)
    if exchange.asked.stream:
        return await send_streamed(exchange)
    return await send_whole(exchange)
