"""One request, the answer it will get, and the connection between."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiohttp import web

from worker.standin.chunk import to_json
from worker.standin.delivery import Delivery
from worker.standin.directive import Directive
from worker.standin.entry import Connection, Entry, Outcome
from worker.standin.error import error_object
from worker.standin.pace import Pace
from worker.standin.packets import Packets
from worker.standin.request import ChatRequest
from worker.standin.script import Script

FAULT_TEXT = "the prompt asked for this error"


@dataclass(frozen=True, slots=True)
class Exchange:
    """Everything a way of answering needs to know."""

    request: web.Request
    asked: ChatRequest
    directive: Directive
    script: Script
    entry: Entry
    tokens_per_second: float

    @property
    def answer_id(self) -> str:
        """Names this answer; never the same twice."""
        return f"chatcmpl-{self.asked.key[:12]}-{self.entry.number}"

    @property
    def created(self) -> int:
        """Unix seconds."""
        return int(self.entry.received_at)

    def deliver(self, response: web.StreamResponse) -> Delivery:
        """Start the clock of an answer."""
        packets = Packets(response, self.directive.packet_bytes)
        return Delivery(packets, Pace(self.tokens_per_second), self.entry)

    def cut(self) -> None:
        """End the connection in the middle of the body."""
        cut(self.request, self.entry)

    def error_json(self, status: int) -> bytes:
        """The error the directive asked for."""
        return error_json(self.directive, status)


def cut(request: web.Request, answered: Entry | Connection) -> None:
    """End a connection in the middle of the body.

    Closed, not aborted: what was written still leaves, so that a client can have had every
    token the ledger counts.
    """
    answered.end(Outcome.CUT)
    if request.transport is not None:
        request.transport.close()


def refuse(answered: Entry | Connection, directive: Directive, status: int) -> web.Response:
    """No answer but the status the directive asked for."""
    response = json_response(status, error_json(directive, status))
    if directive.retry_after is not None:
        response.headers["Retry-After"] = directive.retry_after
    answered.end(Outcome.REFUSED)
    return response


def error_json(directive: Directive, status: int) -> bytes:
    """The error the directive asked for."""
    return to_json(error_object(status, FAULT_TEXT, code=directive.code))


async def keep_silent(duration: timedelta | None) -> None:
    """Wait; a client that leaves meanwhile is noticed."""
    if duration is not None:
        await asyncio.sleep(duration.total_seconds())


async def wait_closed() -> None:
    """Return never: only the end of the connection ends this."""
    await asyncio.get_running_loop().create_future()


def json_response(status: int, body: Any) -> web.Response:
    """A whole response, of a JSON value or of bytes that are JSON already."""
    encoded = body if isinstance(body, bytes) else to_json(body)
    return web.Response(status=status, body=encoded, content_type="application/json")
