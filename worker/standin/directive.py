"""What a prompt may tell the stand-in to do: `[standin tokens=50 pace=1000 cut_after=10]`.

The grammar is small and strict, so that a mistyped test fails at once instead of testing nothing:

    directive = "[standin" 1*( SP key "=" value ) "]"      ; anywhere in the last user message
    key       = one of the names below, each at most once
    value     = 1*( any character but whitespace, "[" and "]" )

At most one directive stands in a message. Counts are decimal digits. A *fault* is one of `status`,
`*_after`, `start_ms`, `first_token_ms` and `retrieve_status`; the `*_after` count every delta that
carries output, reasoning included.

A request that continues an answer is the same question once more: the count begins anew behind what
it brought along, and a fault that would lie beyond its end does not happen.

Of a response in the background, only some faults befall the run: `first_token_ms`, `error_after`
and `forget_after`. Those of a connection (`start_ms`, `stall_after`, `cut_after`, `end_after`,
`malformed_after`) befall each that follows it, the POST's and every retrieve's, counted by what
that one had, while the run goes on; for them, `times` counts retrieves with stream as requests.
"""

import re
from datetime import timedelta
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from worker.standin.error import RequestInvalid

MAX_TOKENS = 200_000

# "[standing" is prose; "[standin:" and "[Standin" are typing errors, to be refused.
_OPENING = re.compile(r"\[standin(?![a-z])", re.IGNORECASE)
_DIRECTIVE = re.compile(r"\[standin((?: [a-z_]+=[^\s\[\]]+)+)\]")


def _digits(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", value):
        raise ValueError("not a count")
    return int(value)


def _decimal(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,3})?", value):
        raise ValueError("not a decimal number")
    return float(value)


def _milliseconds(value: str) -> timedelta:
    return timedelta(milliseconds=_digits(value))


def _seconds_as_written(value: str) -> str:
    _decimal(value)
    return value


Count = Annotated[int, BeforeValidator(_digits)]
Milliseconds = Annotated[timedelta, BeforeValidator(_milliseconds)]

FaultName = Literal["stall", "cut", "end", "malformed", "error"]


class Fault(NamedTuple):
    """Something that happens to an answer once `after` of its deltas were sent."""

    name: FaultName
    after: int


class Directive(BaseModel):
    """One parsed directive; without one, all defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: Annotated[Count | None, Field(le=MAX_TOKENS)] = None
    """Length of the answer, the refusal, or each tool call's argument, in tokens."""
    kind: Literal["prose", "plain", "lines", "unicode"] = "prose"
    """Paragraphs; no newline at all; newlines of every sort; characters of every sort."""
    pace: Annotated[float, BeforeValidator(_decimal)] | None = None
    """Tokens per second; 0 is as fast as possible."""
    vary: Literal["1"] | None = None
    """Each request for the same content gets a different text, as from a real model."""
    reasoning: Annotated[Count, Field(le=MAX_TOKENS)] = 0
    """That many `reasoning_content` deltas before the answer."""
    tool: Annotated[Count | None, Field(ge=1, le=8)] = None
    """That many tool calls instead of text, each in pieces."""
    refusal: Literal["1"] | None = None
    """A refusal instead of text."""
    finish: Literal["stop", "length", "content_filter", "tool_calls"] | None = None
    """The `finish_reason`, whatever really ended the answer."""
    usage: Literal["none"] | None = None
    """No usage, even when asked."""
    packet_bytes: Annotated[Count | None, Field(ge=1, alias="bytes")] = None
    """At most that many bytes of the body per write."""

    start: Annotated[Milliseconds | None, Field(alias="start_ms")] = None
    """Silence before the first byte of the response, whatever it is."""
    first_token: Annotated[Milliseconds | None, Field(alias="first_token_ms")] = None
    """Silence between headers and role on one side and the first token on the other."""
    stall_after: Count | None = None
    """Then nothing more, over an open connection."""
    cut_after: Count | None = None
    """Then half a frame and the end of the connection, in the middle of the body."""
    end_after: Count | None = None
    """Then a clean end of the body, without `finish_reason` or `[DONE]`."""
    malformed_after: Count | None = None
    """The next delta arrives as half its JSON in a whole frame; the rest follows as usual."""
    error_after: Count | None = None
    """Then `data: {"error": ...}` and a clean end of the body."""
    status: Annotated[Count | None, Field(ge=400, le=599)] = None
    """No answer but this HTTP status."""
    retry_after: Annotated[str, BeforeValidator(_seconds_as_written)] | None = None
    """Seconds for the `Retry-After` header beside `status`, sent as written."""
    retrieve_status: Annotated[Count | None, Field(ge=400, le=599)] = None
    """In the background: no events to a retrieve with stream, but this HTTP status."""
    forget_after: Count | None = None
    """In the background: then the response is unknown (404) to all but those who follow it already.

    It ends as soon as nobody does. Stands beside any other `*_after`."""
    code: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")] | None = None
    """The error's `code`, beside `status`, `retrieve_status` or `error_after`."""
    times: Annotated[Count | None, Field(ge=1)] = None
    """The fault befalls only the first that many requests for the same content."""

    @property
    def fault(self) -> Fault | None:
        """What happens to the answer on its way."""
        points: dict[FaultName, int | None] = {
            "stall": self.stall_after,
            "cut": self.cut_after,
            "end": self.end_after,
            "malformed": self.malformed_after,
            "error": self.error_after,
        }
        return next((Fault(name, n) for name, n in points.items() if n is not None), None)

    @model_validator(mode="after")
    def _consistent(self) -> "Directive":
        afters = (
            self.stall_after,
            self.cut_after,
            self.end_after,
            self.malformed_after,
            self.error_after,
        )
        ends = [end for end in (self.status, *afters) if end is not None]
        if len(ends) > 1:
            raise ValueError("at most one of status and the *_after")
        refused = self.status is not None or self.retrieve_status is not None
        if self.retry_after is not None and not refused:
            raise ValueError("retry_after needs status")
        if self.code is not None and not refused and self.error_after is None:
            raise ValueError("code needs status or error_after")
        if self.first_token is not None and self.status is not None:
            raise ValueError("first_token_ms needs an answer, not a status")
        faults = (self.start, self.first_token, self.retrieve_status, self.forget_after)
        if self.times is not None and not ends and all(fault is None for fault in faults):
            raise ValueError("times needs a fault")
        if self.tool is not None and self.refusal is not None:
            raise ValueError("either tool or refusal")
        return self

    def for_attempt(self, attempt: int) -> "Directive":
        """What is left of it for the attempt-th request for the same content, from 1."""
        if self.times is None or attempt <= self.times:
            return self
        faults = ("start", "first_token", "status", "retrieve_status", "code", "times")
        afters = [name for name in type(self).model_fields if name.endswith("_after")]
        return self.model_copy(update=dict.fromkeys([*faults, *afters]))

    def within(self, deltas: int) -> "Directive":
        """What is left of it for an answer of that many deltas, the end of a longer one."""
        if self.fault is None or self.fault.after <= deltas:
            return self
        return self.model_copy(update={f"{self.fault.name}_after": None})


def parse(text: str) -> tuple[Directive, str]:
    """Split a message into its directive and what it says without it.

    Raises: RequestInvalid.
    """
    openings = len(_OPENING.findall(text))
    if not openings:
        return Directive(), text
    match = _DIRECTIVE.search(text)
    if match is None or openings > 1:
        raise RequestInvalid(
            "[standin]: want one directive, like [standin key=value key=value]", "messages"
        )
    pairs = [pair.split("=", 1) for pair in match[1].split()]
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RequestInvalid("[standin]: a key stands twice", "messages")
    try:
        directive = Directive.model_validate(values)
    except ValidationError as error:
        wrong = (": ".join([*map(str, e["loc"][:1]), e["msg"]]) for e in error.errors())
        raise RequestInvalid(f"[standin]: {'; '.join(wrong)}", "messages") from error
    rest = f"{text[: match.start()].rstrip()} {text[match.end() :].lstrip()}"
    return directive, rest.strip()
