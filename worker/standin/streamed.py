"""An answer as server-sent events, one per token."""

from collections.abc import Iterator
from itertools import islice

from aiohttp import web

from worker.standin.chunk import DONE, ChunkEncoder
from worker.standin.delivery import Delivery
from worker.standin.directive import FaultName
from worker.standin.entry import Outcome
from worker.standin.exchange import Exchange, keep_silent, wait_closed


async def send_streamed(exchange: Exchange) -> web.StreamResponse:
    """Role, deltas, finish, usage if asked for, `[DONE]`; or as far as the fault lets it come."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(exchange.request)
    encoder = ChunkEncoder(
        answer_id=exchange.answer_id,
        created=exchange.created,
        model=exchange.asked.model,
        include_usage=exchange.asked.include_usage,
    )
    delivery = exchange.deliver(response)
    await delivery.write(encoder.role())
    await keep_silent(exchange.directive.first_token)

    deltas = (encoder.delta(delta) for delta in exchange.script.deltas)
    closing = _closing(exchange, encoder)
    fault = exchange.directive.fault
    if fault is not None:
        await delivery.send(islice(deltas, fault.after))
        following = next(deltas, None) or next(closing)
        if not await _survive(exchange, delivery, fault.name, following):
            if exchange.entry.outcome is not Outcome.CUT:
                await response.write_eof()
            return response
    await delivery.send(deltas)
    for frame in closing:
        await delivery.write(frame)
    await response.write_eof()
    exchange.entry.end(Outcome.COMPLETED)
    return response


def _closing(exchange: Exchange, encoder: ChunkEncoder) -> Iterator[bytes]:
    yield encoder.finish(exchange.script.finish_reason)
    if exchange.asked.include_usage and exchange.directive.usage != "none":
        yield encoder.usage(exchange.script.usage)
    yield DONE


async def _survive(
    exchange: Exchange, delivery: Delivery, fault: FaultName, following: bytes
) -> bool:
    """Let the fault happen; following is the frame it hits. False if nothing comes after it."""
    half = following[: len(following) // 2]
    match fault:
        case "stall":
            await wait_closed()
        case "cut":
            await delivery.write(half)
            exchange.cut()
        case "end":
            exchange.entry.end(Outcome.ENDED_EARLY)
        case "error":
            await delivery.write(b"data: " + exchange.error_json(500) + b"\n\n")
            exchange.entry.end(Outcome.ERRORED)
        case "malformed":
            exchange.entry.judge(Outcome.MALFORMED)
            await delivery.write(half + b"\n\n")
            return True
    return False
