"""One request in the ledger, and the connections that follow what it started.

A request that is answered over its own connection ends with it, and its outcome says how. One that
went to the background ends with its run; how the connections fared, they say themselves.
"""

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from worker.standin.bell import Bell

Surface = Literal["chat", "responses"]


class Outcome(StrEnum):
    """What became of a request. All but the first three are somebody's fault or wish."""

    OPEN = "open"
    COMPLETED = "completed"
    CLIENT_CLOSED = "client_closed"
    CUT = "cut"
    ENDED_EARLY = "ended_early"
    MALFORMED = "malformed"
    ERRORED = "errored"
    REFUSED = "refused"  # with the status its directive asked for, or because it was forgotten
    INVALID = "invalid"  # with 400: not understood
    STOPPED = "stopped"  # the stand-in itself was told to end
    CANCELLED = "cancelled"  # in the background, by its client's wish
    FORGOTTEN = "forgotten"  # in the background, and nobody was left to hear it


@dataclass(slots=True)
class UnderWay:
    """What goes on now: answers over connections, and runs without one."""

    open: set[object] = field(default_factory=set)
    running: set[object] = field(default_factory=set)
    bell: Bell = field(default_factory=Bell)


@dataclass(slots=True, eq=False)
class Connection:
    """One connection that follows, or asks for, a response in the background."""

    received_at: float
    stream: bool
    starting_after: int | None
    _under_way: UnderWay = field(repr=False)
    _creates: "Entry | None" = field(repr=False, default=None)
    ended_at: float | None = None
    events_sent: int = 0
    outcome: Outcome = Outcome.OPEN
    _verdict: Outcome | None = None

    def event_sent(self, *, token: bool) -> None:
        """Count an event that was handed to the connection."""
        self.events_sent += 1
        if token and self._creates is not None:
            self._creates.token_sent()
        self._under_way.bell.ring()

    def judge(self, verdict: Outcome) -> None:
        """Whatever ends this connection from now on, this is what became of it."""
        self._verdict = verdict

    def end(self, outcome: Outcome) -> None:
        """It is over; the first end stands."""
        if self.ended_at is None:
            self.ended_at = time.time()
            self.outcome = self._verdict or outcome
            self._under_way.open.discard(self)
            self._under_way.bell.ring()

    def as_json(self) -> dict[str, Any]:
        """The shape drawn on top of ledger.py."""
        return {
            "received_at": self.received_at,
            "ended_at": self.ended_at,
            "stream": self.stream,
            "starting_after": self.starting_after,
            "events_sent": self.events_sent,
            "outcome": self.outcome.value,
        }


@dataclass(slots=True, eq=False)
class Entry:
    """One request. `attempt` counts the requests with its key, from 1."""

    number: int
    key: str | None
    attempt: int
    model: str | None
    authorization: str | None
    received_at: float
    parameters: dict[str, Any]
    surface: Surface
    continues: int | None
    _under_way: UnderWay = field(repr=False)
    upstream_id: str | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    tokens_generated: int = 0
    tokens_sent: int = 0
    outcome: Outcome = Outcome.OPEN
    creation: Connection | None = None
    retrieves: list[Connection] = field(default_factory=list)
    _verdict: Outcome | None = None

    def token_sent(self, count: int = 1) -> None:
        """Count tokens that were handed to the request's own connection."""
        self.tokens_sent += count
        self.token_generated(max(self.tokens_sent - self.tokens_generated, 0))

    def token_generated(self, count: int = 1) -> None:
        """Count tokens that have to be paid, sent or not."""
        if self.first_token_at is None:
            self.first_token_at = time.time()
        self.tokens_generated += count
        if self._under_way.bell.watched:
            self._under_way.bell.ring()

    def event_sent(self, *, token: bool) -> None:
        """Count an event on the request's own connection."""
        if token:
            self.token_sent()

    def go_to_background(self, *, stream: bool) -> Connection:
        """From now on this is a run, and its connection something of its own."""
        self.creation = self._connect(self.received_at, stream, None, creates=self)
        self._under_way.open.discard(self)
        self._under_way.running.add(self)
        return self.creation

    def retrieve(
        self, *, received_at: float, stream: bool, starting_after: int | None
    ) -> Connection:
        """Note that somebody asked for the response again."""
        connection = self._connect(received_at, stream, starting_after)
        self.retrieves.append(connection)
        return connection

    def judge(self, verdict: Outcome) -> None:
        """Whatever ends this request from now on, this is what became of it."""
        self._verdict = verdict

    def end(self, outcome: Outcome) -> None:
        """Close the entry; the first end stands."""
        if self.ended_at is None:
            self.ended_at = time.time()
            self.outcome = self._verdict or outcome
            self._under_way.open.discard(self)
            self._under_way.running.discard(self)
            self._under_way.bell.ring()

    def as_json(self) -> dict[str, Any]:
        """The shape drawn on top of ledger.py."""
        return {
            "number": self.number,
            "key": self.key,
            "attempt": self.attempt,
            "surface": self.surface,
            "upstream_id": self.upstream_id,
            "continues": self.continues,
            "model": self.model,
            "authorization": self.authorization,
            "received_at": self.received_at,
            "first_token_at": self.first_token_at,
            "ended_at": self.ended_at,
            "tokens_generated": self.tokens_generated,
            "tokens_sent": self.tokens_sent,
            "outcome": self.outcome.value,
            "creation": self.creation.as_json() if self.creation is not None else None,
            "retrieves": [retrieve.as_json() for retrieve in self.retrieves],
            "parameters": self.parameters,
        }

    def _connect(
        self,
        received_at: float,
        stream: bool,
        starting_after: int | None,
        *,
        creates: "Entry | None" = None,
    ) -> Connection:
        connection = Connection(received_at, stream, starting_after, self._under_way, creates)
        self._under_way.open.add(connection)
        self._under_way.bell.ring()
        return connection
