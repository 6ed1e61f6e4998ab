"""Move a generation from state to state. Every move is one Lua file: all of it, or nothing."""

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from shared.connections import Argument, Client, reading_record
from shared.errors import GenerationGone, GenerationUnknown, IdempotencyConflict
from shared.events import EventType, encode_data
from shared.failures import GENERATION_TIMEOUT, QUEUE_TIMEOUT, Failure
from shared.generation import (
    RECORD_VERSION,
    Order,
    Record,
    State,
    Upstream,
    decode_record,
    decode_upstream,
)
from shared.ids import EntryId, GenerationId
from shared.keys import Keys
from shared.scripts import Script, to_ms

ERASED_VISIBLE: Final = timedelta(seconds=30)
"""How long the log of a deleted generation stays for followers that are reading its end."""

EPOCH_SPREAD: Final = 1000
"""Epochs are drawn from this many values, so that one that Redis lost is not issued again."""


class ClaimOutcome(StrEnum):
    """What a claimer learns."""

    CLAIMED = "claimed"
    ABSENT = "absent"
    CLOSED = "closed"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim; the rest has a meaning only if it was granted."""

    outcome: ClaimOutcome
    token: str
    last_id: EntryId
    """The newest entry of the new epoch."""
    time_left: timedelta
    """Until the deadline, by Redis' clock."""
    upstream: Upstream | None
    """What the last owner left: nothing comes to it any more."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The answer to a take-over: the state, and who held the log before."""

    state: State
    worker: str | None


@dataclass(frozen=True, slots=True)
class Leftover:
    """What may be left of a closed generation whose owner did not clear it away."""

    state: State
    token: str
    """Of the last claim, which may settle it; empty if it was never claimed."""
    upstream: Upstream | None
    has_usage: bool
    is_erased: bool


class GenerationStore:
    """The records of all generations in one store, and the moves that change them.

    Each of them raises RecordUnreadable where record or log hold what none of us wrote there.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._create = client.script("create")
        self._claim = client.script("claim")
        self._take_over_and_close = client.script("take_over_and_close")
        self._hand_over = client.script("hand_over")
        self._note_failure = client.script("note_failure")
        self._settle = client.script("settle")
        self._erase = client.script("erase")
        self._condemn = client.script("condemn")

    async def create(
        self, generation: GenerationId, order: Order
    ) -> tuple[Literal["created", "existing"], State]:
        """Make the record and the first entry, or find the one that the same request made.

        Atomic: a crash leaves both keys or none.
        Raises: IdempotencyConflict, GenerationGone, StoreUnavailable.
        """
        with reading_record():
            outcome, state = await self._run(
                self._create,
                generation,
                order.fingerprint,
                _draw(),
                to_ms(order.queue_timeout),
                to_ms(order.generation_timeout),
                to_ms(order.retention),
                *("v", RECORD_VERSION, "tenant", order.tenant, "surface", order.surface.value),
                *("request", encode_data(order.request), "model", order.request.get("model") or ""),
            )
            match outcome:
                case b"created" | b"existing":
                    return outcome.decode(), State(state.decode())
                case b"conflict":
                    raise IdempotencyConflict
                case _:
                    raise GenerationGone

    async def record(self, generation: GenerationId) -> Record:
        """Return the record. Raises: GenerationUnknown, StoreUnavailable."""
        with reading_record():
            record = decode_record(
                await self._client.call("HGETALL", self._keys.record(generation))
            )
        if record is None:
            raise GenerationUnknown
        return record

    async def claim(
        self,
        generation: GenerationId,
        *,
        seen_epoch: int,
        token: str,
        started: dict[str, Any],
        reset: bool,
    ) -> Claim:
        """Take the log over if it is open and nobody else did since `seen_epoch` was read.

        `token` names the worker, is drawn afresh for every claim and never used again: the same
        claim sent twice gets the same answer. `started` is the data of the entry that opens the
        epoch; `reset` adds one that makes clients forget. Raises: StoreUnavailable.
        """
        with reading_record():
            outcome, epoch, seq, left_ms, upstream_id, upstream_at = await self._run(
                self._claim,
                generation,
                seen_epoch,
                token,
                _draw(),
                _head(started),
                started["model"],
                "reset" if reset else "",
            )
            return Claim(
                ClaimOutcome(outcome.decode()),
                token,
                EntryId(int(epoch), int(seq)),
                timedelta(milliseconds=int(left_ms)),
                decode_upstream(upstream_id.decode(), upstream_at.decode()),
            )

    async def cancel(self, generation: GenerationId) -> Closed:
        """End it as cancelled, whoever holds it; one that is closed stays as it is.

        Raises: GenerationUnknown, StoreUnavailable.
        """
        head = _head({})
        return await self._close(generation, EventType.CANCELLED, "now", head, head, "")

    async def expire(self, generation: GenerationId) -> Closed:
        """End it as failed if its deadline has passed by Redis' clock; else leave it alone.

        Raises: GenerationUnknown, StoreUnavailable.
        """
        queued, running = (_head(f.data) for f in (QUEUE_TIMEOUT, GENERATION_TIMEOUT))
        return await self._close(generation, EventType.FAILED, "deadline", queued, running, "")

    async def fail(
        self, generation: GenerationId, failure: Failure, *, seen_epoch: int | None = None
    ) -> Closed:
        """End it as failed, whoever holds it; with `seen_epoch` only if nobody claimed it since.

        Raises: GenerationUnknown, StoreUnavailable.
        """
        head, seen = _head(failure.data), "" if seen_epoch is None else seen_epoch
        return await self._close(generation, EventType.FAILED, "now", head, head, seen)

    async def hand_over(
        self, generation: GenerationId, token: str, why: Literal["drain", "pause"]
    ) -> bool:
        """Note that the claim of `token` ended in order: it is not held against the generation.

        A repeat changes nothing. Raises: StoreUnavailable.
        """
        return bool(await self._note(self._hand_over, generation, token, why))

    async def note_failure(self, generation: GenerationId, token: str) -> None:
        """Count an attempt that its provider failed. Raises: StoreUnavailable."""
        await self._note(self._note_failure, generation, token)

    async def leftover(self, generation: GenerationId) -> Leftover | None:
        """Return what is left of a closed one, an erased one included; None if it is open or gone.

        Raises: StoreUnavailable.
        """
        names = ("state", "token", "upstream_id", "upstream_at", "usage", "erased_at")
        with reading_record():
            raw = await self._client.call("HMGET", self._keys.record(generation), *names)
            state, token, upstream_id, at, usage, erased = ((v or b"").decode() for v in raw)
            if not state or not State(state).is_closed:
                return None
            upstream = decode_upstream(upstream_id, at)
            return Leftover(State(state), token, upstream, bool(usage), bool(erased))

    async def settle(
        self, generation: GenerationId, token: str, usage: dict[str, Any], *, is_estimate: bool
    ) -> bool:
        """Write what a cancelled or failed generation cost into its record.

        An estimate gives way to a figure. Returns whether it was written.
        Raises: StoreUnavailable.
        """
        estimate = "1" if is_estimate else ""
        return bool(await self._note(self._settle, generation, token, encode_data(usage), estimate))

    async def erase(self, generation: GenerationId) -> str | None:
        """Delete it: hidden now, gone when its followers saw the end. Returns its worker, if any.

        Raises: GenerationUnknown, StoreUnavailable.
        """
        outcome, token = await self._run(
            self._erase, generation, _draw(), _head({}), to_ms(ERASED_VISIBLE)
        )
        if outcome == b"absent":
            raise GenerationUnknown
        return _worker(token)

    async def condemn(self, generation: GenerationId, failure: Failure) -> None:
        """End one whose record cannot be read, by what its log says; then it can be read again.

        Raises: GenerationUnknown, StoreUnavailable; RecordUnreadable, where its log is not one.
        """
        if not await self._run(self._condemn, generation, _draw(), _head(failure.data)):
            raise GenerationUnknown

    async def secret(self, lifetime: timedelta) -> bytes:
        """Return the secret that keys derived ids, the same for every API process.

        It is drawn when there is none and outlives, by `lifetime`, its last use.
        """
        fresh = random.SystemRandom().randbytes(32).hex()
        _, secret = await self._client.call_all(
            (
                ("SET", self._keys.secret, fresh, "NX", "PX", to_ms(lifetime)),
                ("GETEX", self._keys.secret, "PX", to_ms(lifetime)),
            ),
            atomic=True,
        )
        return bytes(secret)

    async def _close(
        self, generation: GenerationId, closing: EventType, when: str, *details: Argument
    ) -> Closed:
        with reading_record():
            outcome, token, state = await self._run(
                self._take_over_and_close, generation, _draw(), when, closing.value, *details
            )
            if outcome == b"absent":
                raise GenerationUnknown
            return Closed(State(state.decode()), _worker(token))

    async def _run(self, script: Script, generation: GenerationId, *args: Argument) -> Any:
        """Run a script of record and log."""
        with reading_record():
            keys = [self._keys.record(generation), self._keys.log(generation)]
            return await self._client.run(script, keys, args)

    async def _note(self, script: Script, generation: GenerationId, *args: Argument) -> Any:
        """Run a script of the record alone."""
        with reading_record():
            return await self._client.run(script, [self._keys.record(generation)], args)


def _head(data: dict[str, Any]) -> bytes:
    """Encode `data` up to where the script adds `"prev":"<id>"}`, which only it knows."""
    return encode_data(data)[:-1] + (b"," if data else b"")


def _worker(token: bytes) -> str | None:
    return token.decode(errors="replace").partition("/")[0] or None


def _draw() -> int:
    return random.randrange(EPOCH_SPREAD)
