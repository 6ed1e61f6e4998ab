"""Every request the stand-in had, and what became of it.

    {"open": 1, "paid_twice": ["<key>"],
     "requests": [{"number": 1, "key": "<digest of model and messages>", "attempt": 1,
                   "model": "standin", "authorization": "sha256:9f86d081",
                   "received_at": 1700000000.1, "first_token_at": 1700000000.2, "ended_at": null,
                   "tokens_sent": 7, "outcome": "open", "parameters": {"stream": true}}]}

Times are Unix seconds. A model's key is never kept, only whether one came (else null) and a hash
too short to be turned round. Prompts and answers are not kept either.
"""

import asyncio
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

CAPACITY = 50_000
_HASH_CHARACTERS = 8


class Outcome(StrEnum):
    """What became of a request. All but the first three are somebody's fault or wish."""

    OPEN = "open"
    COMPLETED = "completed"
    CLIENT_CLOSED = "client_closed"
    CUT = "cut"
    ENDED_EARLY = "ended_early"
    MALFORMED = "malformed"
    ERRORED = "errored"
    REFUSED = "refused"  # with the status its directive asked for
    INVALID = "invalid"  # with 400: not understood
    STOPPED = "stopped"  # the stand-in itself was told to end


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
    _ledger: "Ledger" = field(repr=False)
    first_token_at: float | None = None
    ended_at: float | None = None
    tokens_sent: int = 0
    outcome: Outcome = Outcome.OPEN
    _verdict: Outcome | None = None

    def token_sent(self, count: int = 1) -> None:
        """Count tokens that were handed to the connection."""
        if self.first_token_at is None:
            self.first_token_at = time.time()
        self.tokens_sent += count
        if self._ledger.watched:
            self._ledger.changed()

    def judge(self, verdict: Outcome) -> None:
        """Whatever ends this request from now on, this is what became of it."""
        self._verdict = verdict

    def end(self, outcome: Outcome) -> None:
        """Close the entry; the first end stands."""
        if self.ended_at is None:
            self.ended_at = time.time()
            self.outcome = self._verdict or outcome
            self._ledger.ended(self)

    def as_json(self) -> dict[str, Any]:
        """The shape drawn on top of this file."""
        return {
            "number": self.number,
            "key": self.key,
            "attempt": self.attempt,
            "model": self.model,
            "authorization": self.authorization,
            "received_at": self.received_at,
            "first_token_at": self.first_token_at,
            "ended_at": self.ended_at,
            "tokens_sent": self.tokens_sent,
            "outcome": self.outcome.value,
            "parameters": self.parameters,
        }


class Ledger:
    """The newest `capacity` requests. Belongs to one event loop."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._numbers = 0
        self._entries: deque[Entry] = deque()
        self._attempts: Counter[str] = Counter()
        self._open: set[Entry] = set()
        self._watchers: list[asyncio.Future[None]] = []

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries)

    @property
    def open(self) -> int:
        """How many requests are being answered now, forgotten ones included."""
        return len(self._open)

    @property
    def paid_twice(self) -> tuple[str, ...]:
        """Keys for which more than one request sent at least one token."""
        paid = Counter(e.key for e in self._entries if e.key is not None and e.tokens_sent)
        return tuple(key for key, requests in paid.items() if requests > 1)

    @property
    def watched(self) -> bool:
        """Whether somebody waits for a change."""
        return bool(self._watchers)

    def receive(
        self,
        *,
        received_at: float,
        key: str | None = None,
        model: str | None = None,
        authorization: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> Entry:
        """Open the entry of a request; authorization is the header, of which only a hash stays."""
        while len(self._entries) >= self._capacity:
            self._forget(self._entries.popleft())
        self._numbers += 1
        if key is not None:
            self._attempts[key] += 1
        entry = Entry(
            number=self._numbers,
            key=key,
            attempt=self._attempts[key] if key is not None else 1,
            model=model,
            authorization=_hash(authorization),
            received_at=received_at,
            parameters=parameters or {},
            _ledger=self,
        )
        self._entries.append(entry)
        self._open.add(entry)
        self.changed()
        return entry

    def ended(self, entry: Entry) -> None:
        """An entry tells that it was closed."""
        self._open.discard(entry)
        self.changed()

    def clear(self) -> None:
        """Forget all requests, and so how often each was asked; numbers go on."""
        self._entries.clear()
        self._attempts.clear()
        self.changed()

    def changed(self) -> None:
        """Wake whoever waits for a change."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def wait_until(self, predicate: Callable[["Ledger"], bool]) -> None:
        """Return once predicate holds; the caller brings the time-out."""
        while not predicate(self):
            watcher = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    def as_json(self) -> dict[str, Any]:
        """The shape drawn on top of this file."""
        return {
            "open": self.open,
            "paid_twice": list(self.paid_twice),
            "requests": [entry.as_json() for entry in self._entries],
        }

    def _forget(self, entry: Entry) -> None:
        if entry.key is not None:
            self._attempts[entry.key] -= 1
            if self._attempts[entry.key] <= 0:
                del self._attempts[entry.key]


def _hash(authorization: str | None) -> str | None:
    if authorization is None:
        return None
    hexadecimal = hashlib.sha256(authorization.encode(errors="replace")).hexdigest()
    return f"sha256:{hexadecimal[:_HASH_CHARACTERS]}"
