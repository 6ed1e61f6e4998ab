"""Every request the stand-in had, and what became of it.

    {"open": 1, "running": 0, "paid_twice": ["<key>"],
     "requests": [{"number": 1, "key": "<digest of model and messages>", "attempt": 1,
                   "surface": "chat", "upstream_id": "chatcmpl-9f86d081884c-1", "continues": null,
                   "model": "standin", "authorization": "sha256:9f86d081",
                   "received_at": 1700000000.1, "first_token_at": 1700000000.2, "ended_at": null,
                   "tokens_generated": 7, "tokens_sent": 7, "outcome": "open",
                   "creation": null, "retrieves": [], "parameters": {"stream": true}}]}

Times are Unix seconds. A model's key is never kept, only whether one came (else null) and a hash
too short to be turned round. Prompts and answers are not kept either. `continues` is the length,
in characters, of the assistant's beginning that the request brought along, and null without one.

A response in the background (surface `responses`) is one request, whoever follows it: its outcome,
times and tokens_generated are the run's, and tokens_sent counts what its POST had of it. `creation`
is that POST's connection and `retrieves` lists the later ones, in the order they came:

    {"received_at": 1700000000.1, "ended_at": null, "stream": true, "starting_after": 5,
     "events_sent": 0, "outcome": "open"}

`open` counts connections on which an answer is on its way, `running` the runs in the background.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from worker.standin.entry import Entry, Surface, UnderWay

CAPACITY = 50_000
_HASH_CHARACTERS = 8


class Ledger:
    """The newest `capacity` requests. Belongs to one event loop."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._numbers = 0
        self._entries: deque[Entry] = deque()
        self._attempts: Counter[str] = Counter()
        self._under_way = UnderWay()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries)

    @property
    def open(self) -> int:
        """How many connections are being answered now, those of forgotten requests included."""
        return len(self._under_way.open)

    @property
    def running(self) -> int:
        """How many responses are being made in the background, forgotten requests included."""
        return len(self._under_way.running)

    @property
    def paid_twice(self) -> tuple[str, ...]:
        """Keys for which more than one request had at least one token."""
        paid = Counter(e.key for e in self._entries if e.key is not None and e.tokens_generated)
        return tuple(key for key, requests in paid.items() if requests > 1)

    def receive(
        self,
        *,
        received_at: float,
        key: str | None = None,
        model: str | None = None,
        authorization: str | None = None,
        parameters: dict[str, Any] | None = None,
        surface: Surface = "chat",
        continues: int | None = None,
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
            surface=surface,
            continues=continues,
            _under_way=self._under_way,
        )
        self._entries.append(entry)
        self._under_way.open.add(entry)
        self._under_way.bell.ring()
        return entry

    def connections(self, key: str) -> int:
        """How often this content was asked for: by a request, or by a retrieve with stream."""
        return sum(
            1 + sum(retrieve.stream for retrieve in entry.retrieves)
            for entry in self._entries
            if entry.key == key
        )

    def clear(self) -> None:
        """Forget all requests, and so how often each was asked; numbers go on."""
        self._entries.clear()
        self._attempts.clear()
        self._under_way.bell.ring()

    async def wait_until(self, predicate: Callable[["Ledger"], bool]) -> None:
        """Return once predicate holds; the caller brings the time-out."""
        while not predicate(self):
            await self._under_way.bell.wait()

    def as_json(self) -> dict[str, Any]:
        """The shape drawn on top of this file."""
        return {
            "open": self.open,
            "running": self.running,
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
