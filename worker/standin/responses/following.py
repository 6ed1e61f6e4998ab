"""A response's events over one connection, with the fault that befalls it."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from worker.standin.directive import Directive, Fault
from worker.standin.entry import Connection, Entry, Outcome
from worker.standin.exchange import cut, wait_closed
from worker.standin.packets import Packets
from worker.standin.responses.narration import Event
from worker.standin.responses.run import Run

_HALF_FRAME = b'event: response.output_text.delta\ndata: {"type":"response.output_te'


class Following:
    """Writes events until the last one, or as far as the fault lets them come."""

    def __init__(
        self,
        request: web.Request,
        run: Run,
        answered: Entry | Connection,
        directive: Directive,
    ) -> None:
        self._request = request
        self._run = run
        self._answered = answered
        self._packet_bytes = directive.packet_bytes
        self._fault = connection_fault(directive)
        self._tokens = 0

    async def send(self, events: AsyncGenerator[Event, None], first: int) -> web.StreamResponse:
        """Send the events, the first of which has that number, as the answer to the request."""
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "x-request-id": request_id(),
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(self._request)
        packets = Packets(response, self._packet_bytes)
        malform = False
        async with aclosing(events):
            while True:
                fault = self._due(first)
                if fault == "malformed":
                    malform = True
                elif fault is not None:
                    return await self._suffer(fault, response, packets)
                event = await anext(events, None)
                if event is None:
                    break
                data = event.data
                if malform and (event.token or event.last):
                    malform = False
                    self._answered.judge(Outcome.MALFORMED)
                    data = data[: len(data) // 2] + b"\n\n"
                await packets.write(data)
                self._answered.event_sent(token=event.token)
                self._tokens += event.token
                first = event.number + 1
        await response.write_eof()
        self._answered.end(Outcome.COMPLETED)
        return response

    def _due(self, following: int) -> str | None:
        fault, opening = self._fault, self._run.narration.opening_events
        if fault is None or self._tokens < fault.after or following < opening:
            return None
        self._fault = None
        return fault.name

    async def _suffer(
        self, fault: str, response: web.StreamResponse, packets: Packets
    ) -> web.StreamResponse:
        match fault:
            case "stall":
                await wait_closed()
            case "cut":
                await packets.write(_HALF_FRAME)
                cut(self._request, self._answered)
            case _:
                self._answered.end(Outcome.ENDED_EARLY)
                await response.write_eof()
        return response


def connection_fault(directive: Directive) -> Fault | None:
    """The fault, unless it is the run's own."""
    fault = directive.fault
    return None if fault is not None and fault.name == "error" else fault


def request_id() -> str:
    """What a client quotes when it complains."""
    return f"req_{secrets.token_hex(16)}"
