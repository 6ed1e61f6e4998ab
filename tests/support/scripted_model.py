"""A model server without a socket: a transport of the SDK's own HTTP client that reads a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2
from openai import AsyncOpenAI

from shared.errors import ProviderError
from shared.events import Event
from shared.generation import Upstream
from tests.support.virtual_clock import run_virtual
from worker.provider.answer import Finish
from worker.provider.model_server import ModelServer
from worker.provider.responses import RunStream
from worker.settings import WorkerSettings

SILENCE = "silence"
BREAK = "break"

Piece = bytes | str
"""Bytes of the response, or what happens to the connection at this point."""


class _Body(httpx2.AsyncByteStream):
    """A response's body, piece by piece; remembers that it was let go."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            elif piece == SILENCE:
                await asyncio.Event().wait()
            else:
                raise httpx2.ReadError("connection reset")

    async def aclose(self) -> None:
        self.is_closed = True


@dataclass(slots=True)
class _Reply:
    body: _Body
    status: int
    headers: dict[str, str]


class ScriptedModel(httpx2.AsyncBaseTransport):
    """Answers each request with the next of its replies, the last one for ever.

    It remembers what it was asked.
    """

    def __init__(
        self, pieces: Sequence[Piece], status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.asked: list[dict[str, Any]] = []
        """The bodies of the requests that had one."""
        self.requests: list[str] = []
        """Method, path and query of each request."""
        self.bodies: list[_Body] = []
        self._replies: list[_Reply] = []
        self.then(pieces, status, headers)

    def then(
        self, pieces: Sequence[Piece], status: int = 200, headers: dict[str, str] | None = None
    ) -> Self:
        """Add what the next request is answered with."""
        body = _Body(pieces)
        self.bodies.append(body)
        headers = {"content-type": "text/event-stream", **(headers or {})}
        self._replies.append(_Reply(body, status, headers))
        return self

    def then_json(self, data: object, status: int = 200) -> Self:
        """Add an answer that is one object."""
        return self.then([json.dumps(data).encode()], status, {"content-type": "application/json"})

    @property
    def body(self) -> _Body:
        """The first response's."""
        return self.bodies[0]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(f"{request.method} {request.url.raw_path.decode()}")
        if content := await request.aread():
            self.asked.append(json.loads(content))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if reply.body.pieces[:1] == [SILENCE]:
            await asyncio.Event().wait()
        if reply.body.pieces[:1] == [BREAK]:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(reply.status, headers=reply.headers, stream=reply.body)


@asynccontextmanager
async def connected(server: ScriptedModel, **settings: Any) -> AsyncIterator[ModelServer]:
    """Our provider before this server."""
    http = httpx2.AsyncClient(transport=server)
    async with AsyncOpenAI(
        api_key="k", base_url="http://model/v1", max_retries=0, timeout=None, http_client=http
    ) as client:
        yield ModelServer(client, WorkerSettings(**settings))


DONE = b"data: [DONE]\n\n"


def ask(
    server: ScriptedModel, request: dict[str, Any] | None = None, **settings: Any
) -> tuple[list[Event], Finish]:
    """Everything the server says, and how it ended. Raises: ProviderError."""

    async def main() -> tuple[list[Event], Finish]:
        async with (
            connected(server, **settings) as provider,
            provider.open_answer(request or {"messages": []}, "m") as answer,
        ):
            return [event async for event, _ in answer], answer.finish

    return run_virtual(main())


@dataclass(slots=True)
class Heard:
    """What came of reading a run, to its end or to the error that ended the reading."""

    id: str | None = None
    said: list[Event] = field(default_factory=list)
    positions: list[int | None] = field(default_factory=list)
    """Where the answer stood after each of `said`."""
    finish: Finish = field(default_factory=Finish)
    is_over: bool = False
    error: ProviderError | None = None


def ask_run(server: ScriptedModel, **settings: Any) -> Heard:
    """Ask for a run, wait for its name, and read it."""

    async def main() -> Heard:
        async with connected(server, **settings) as provider:
            return await _hear(provider.open_run({"input": []}), names_itself=True)

    return run_virtual(main())


def rejoin(server: ScriptedModel, run: Upstream, tool_calls: int = 0, **settings: Any) -> Heard:
    """Read on behind what is known of a run."""

    async def main() -> Heard:
        async with connected(server, **settings) as provider:
            return await _hear(provider.rejoin_run(run, tool_calls), names_itself=False)

    return run_virtual(main())


async def _hear(opened: AbstractAsyncContextManager[RunStream], *, names_itself: bool) -> Heard:
    heard = Heard()
    try:
        async with opened as run:
            heard.finish = run.finish
            try:
                heard.id = await run.read_id() if names_itself else None
                async for event, number in run:
                    heard.said.append(event)
                    heard.positions.append(number)
            finally:
                heard.is_over = run.is_over
    except ProviderError as error:
        heard.error = error
    return heard


def end_run(server: ScriptedModel, run_id: str) -> dict[str, Any] | None:
    """Have a run ended; what it cost. Raises: ProviderError."""

    async def main() -> dict[str, Any] | None:
        async with connected(server) as provider:
            return await provider.cancel_run(run_id)

    return run_virtual(main())


def chunk(reason: str | None = None, **delta: Any) -> bytes:
    """One frame, as every Chat Completions server sends it."""
    return frame({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def frame(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


# --- the words of the Responses API -------------------------------------------------------------

RUN = "resp_1"

Told = dict[str, Any]
"""One event of a run, without its number."""


def of(kind: str, **fields: Any) -> Told:
    return {"type": kind, **fields}


def created(run_id: object = RUN) -> Told:
    return of("response.created", response={"id": run_id, "status": "queued"})


def ended(status: str, kind: str = "", **fields: Any) -> Told:
    """The last event; `kind` where it is not named like the status."""
    response = {"id": RUN, "status": status, **fields}
    return of(f"response.{kind or status}", response=response)


def text(delta: object) -> Told:
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return of("response.output_text.delta", delta=delta, logprobs=[], **where)


def call(index: int, name: str, arguments: str = "") -> Told:
    """A tool call begins; `index` is that of its item."""
    item = {"type": "function_call", "call_id": f"call_{index}", "name": name}
    item["arguments"] = arguments
    return of("response.output_item.added", output_index=index, item=item)


def piece(index: int, delta: object) -> Told:
    """A piece of a tool call's arguments."""
    kind = "response.function_call_arguments.delta"
    return of(kind, item_id=f"fc_{index}", output_index=index, delta=delta)


def frames(*told: Told, first: int = 0) -> list[Piece]:
    """Numbered as the server does it, from `first`."""
    return [frame({"sequence_number": n, **event}) for n, event in enumerate(told, start=first)]
