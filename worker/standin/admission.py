"""What happens to a request before it is answered: understood, entered, or refused with 400."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from aiohttp import web

from worker.standin.directive import Directive, parse
from worker.standin.entry import Entry, Outcome, Surface
from worker.standin.error import RequestInvalid, error_object
from worker.standin.exchange import json_response
from worker.standin.script import Message, Script, compose, last_user_text
from worker.standin.serving import SERVING


class Asked(Protocol):
    """What every surface's request tells. Properties, because requests are frozen."""

    @property
    def model(self) -> str:
        """Whoever shall answer."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The question, without the beginning of an answer."""

    @property
    def prefix(self) -> str | None:
        """The beginning of the answer, if it came along."""

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools it may call."""

    @property
    def limit(self) -> int | None:
        """The most tokens the answer may have."""

    @property
    def key(self) -> str:
        """The same for two requests that ask the same model the same thing."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything else."""


AskedT = TypeVar("AskedT", bound=Asked)


@dataclass(frozen=True, slots=True)
class Admitted(Generic[AskedT]):
    """A request that makes sense."""

    asked: AskedT
    entry: Entry
    directive: Directive
    """As written, for every attempt."""
    script: Script
    tokens_per_second: float


async def admit(
    request: web.Request, surface: Surface, parse_body: Callable[[bytes], AskedT]
) -> Admitted[AskedT] | web.Response:
    """Enter a request in the ledger; a response if it cannot be understood."""
    serving = request.app[SERVING]
    received_at = time.time()
    authorization = request.headers.get("Authorization")
    body = await request.read()
    try:
        asked = parse_body(body)
    except RequestInvalid as error:
        entry = serving.ledger.receive(
            received_at=received_at, authorization=authorization, surface=surface
        )
        return _refuse(entry, error)
    entry = serving.ledger.receive(
        received_at=received_at,
        key=asked.key,
        model=asked.model,
        authorization=authorization,
        parameters=asked.parameters,
        surface=surface,
        continues=None if asked.prefix is None else len(asked.prefix),
    )
    try:
        directive, _ = parse(last_user_text(asked.messages)[1])
        script = compose(
            asked.model,
            asked.messages,
            prefix=asked.prefix,
            tools=asked.tools,
            default_tokens=serving.settings.tokens,
            limit=asked.limit,
            attempt=entry.attempt,
        )
        deltas = len(script.deltas)
        if asked.prefix is None:
            _require_reachable(directive, deltas)
        else:
            directive = directive.within(deltas)
    except RequestInvalid as error:
        return _refuse(entry, error)
    pace = serving.settings.tokens_per_second if directive.pace is None else directive.pace
    return Admitted(asked, entry, directive, script, pace)


def _refuse(entry: Entry, error: RequestInvalid) -> web.Response:
    entry.end(Outcome.INVALID)
    return json_response(400, error_object(400, error.message, param=error.param))


def _require_reachable(directive: Directive, deltas: int) -> None:
    points = [("forget", directive.forget_after), *filter(None, [directive.fault])]
    for name, after in points:
        if after is not None and after > deltas:
            raise RequestInvalid(
                f"[standin]: {name}_after={after} lies beyond the {deltas} deltas of this answer",
                "messages",
            )
