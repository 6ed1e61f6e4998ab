"""A response as one JSON object, made while its connection waits."""

from contextlib import aclosing

from aiohttp import web

from worker.standin.chunk import to_json
from worker.standin.directive import Directive
from worker.standin.entry import Entry, Outcome
from worker.standin.exchange import cut, wait_closed
from worker.standin.responses.following import connection_fault, request_id
from worker.standin.responses.run import Run


async def send_whole(
    request: web.Request, run: Run, entry: Entry, directive: Directive
) -> web.StreamResponse:
    """The object, or what the fault leaves of it.

    `end` keeps what was said so far, still in progress; `cut` and `malformed` send half of that,
    the latter as if that were all. An `error` is the run's own: a whole object that has failed.
    """
    fault = connection_fault(directive)
    tokens = 0
    async with aclosing(run.generate()) as events:
        async for event in events:
            tokens += event.token
            opened = event.number + 1 >= run.narration.opening_events
            if fault is not None and opened and tokens >= fault.after:
                break
    body = to_json(run.narration.as_json())
    length = len(body)
    outcome = Outcome.COMPLETED
    match fault.name if fault is not None else None:
        case "stall":
            await wait_closed()
        case "cut":
            body, outcome = body[: length // 2], Outcome.CUT
        case "malformed":
            length //= 2
            body, outcome = body[:length], Outcome.MALFORMED
        case "end":
            outcome = Outcome.ENDED_EARLY

    headers = {"Content-Type": "application/json", "x-request-id": request_id()}
    response = web.StreamResponse(headers=headers)
    response.content_length = length
    await response.prepare(request)
    await response.write(body)
    entry.token_sent(tokens)
    if outcome is Outcome.CUT:
        cut(request, entry)
        return response
    await response.write_eof()
    entry.end(outcome)
    return response
