"""The queue: arq's own keys, with leases that are owned. The only door to arq's data.

    arq:queue   sorted set   id → due time; of a job that runs: the end of its lease
    arq:in-progress:<id>     the token of the lease; `~token` once it lapsed and was marked
    gen:wake                 ids that were made due; idle workers block on it
    gen:control:<worker>     what one worker should hear at once

A lease says only *when* somebody else may try. Safety is the log's: a false take-over costs work,
never correctness.
"""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from arq.jobs import serialize_job
from redis.exceptions import RedisError, ResponseError

from shared.connections import Argument, Client, SyncClient, is_garbage
from shared.errors import NotAdmitted, StoreUnavailable
from shared.ids import GenerationId
from shared.keys import JOB_PREFIX, OWNER_PREFIX, RETRY_PREFIX, Keys
from shared.scripts import Script, to_ms

JOB_FUNCTION: Final = "generate"
"""The name under which a worker registers its one function with arq."""

OFFER_DELAY: Final = timedelta(seconds=5)
"""How long a promised job waits for its record before a worker looks at it."""

WAKE_LENGTH: Final = 1000
"""Wakes kept while every worker is busy; a worker with a free slot polls anyway."""

CONTROL_LIFETIME: Final = timedelta(minutes=1)
"""Messages to a worker that is gone vanish after this."""

LONGEST_WAIT_MS: Final = 24 * 60 * 60 * 1000
"""A poll tells of no longer one: a score, which anybody may have written, can be infinite."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that this worker may run until its lease lapses."""

    generation: GenerationId
    token: str
    taken_at: float = field(default_factory=time.monotonic, compare=False)

    @property
    def age(self) -> timedelta:
        """How long ago it was taken, by this host's clock; includes time spent frozen."""
        return timedelta(seconds=time.monotonic() - self.taken_at)


@dataclass(frozen=True, slots=True)
class Leased:
    """What a poll brought, and how long until the next job is due (None: nothing queued)."""

    leases: list[Lease]
    next_due: timedelta | None


def encode_json(value: Any) -> bytes:
    """arq's serializer: JSON, never pickle; what JSON lacks (exceptions) becomes its repr."""
    return json.dumps(value, default=repr, separators=(",", ":")).encode()


def decode_json(raw: bytes) -> Any:
    """arq's deserializer."""
    return json.loads(raw)


class Queue:
    """Offer, lease and finish jobs. The job id is the generation id, and its only argument."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._offer = client.script("offer")
        self._release = client.script("release")
        self._lease = client.script("lease")
        self._renew = client.script("renew")
        self._finish = client.script("finish")

    async def offer(
        self, generation: GenerationId, *, lifetime: timedelta, max_length: int
    ) -> None:
        """Promise the job, due in `OFFER_DELAY`; nothing happens if it is there already.

        Done before the record exists, so that a crash after either leaves no record without a job.
        Raises: NotAdmitted, StoreUnavailable.
        """
        admitted = await self._run(
            self._offer,
            [self._keys.queue, JOB_PREFIX + generation],
            (generation, _job(generation), to_ms(OFFER_DELAY), to_ms(lifetime), max_length),
        )
        if not admitted:
            raise NotAdmitted(retry_after=OFFER_DELAY)

    async def release(self, generation: GenerationId, *, lifetime: timedelta) -> None:
        """Make the job due now and wake a worker; one that somebody owns is left alone."""
        await self._make_due(generation, _job(generation), lifetime)

    async def recall(self, generation: GenerationId, worker: str) -> None:
        """Have `worker`, which held it last, stop a generation that was closed.

        A job that waits for its time is made due, so that somebody clears up after it now.
        """
        await self.tell(worker, f"cancel {generation}")
        await self._make_due(generation, b"", timedelta(0))

    async def _make_due(self, generation: GenerationId, job: bytes, lifetime: timedelta) -> None:
        await self._run(
            self._release,
            [
                self._keys.queue,
                JOB_PREFIX + generation,
                OWNER_PREFIX + generation,
                self._keys.wake,
            ],
            (generation, job, to_ms(lifetime), WAKE_LENGTH),
        )

    async def lease(
        self, count: int, *, worker: str, lease: timedelta, mark: timedelta, owner_life: timedelta
    ) -> Leased:
        """Take up to `count` due jobs. A lapsed one of somebody else is marked first.

        `owner_life` bounds how long a job remembers its last owner.
        """
        stem = f"{worker}/{secrets.token_hex(8)}."
        wait, *taken = await self._run(
            self._lease,
            [self._keys.queue],
            (count, to_ms(lease), to_ms(mark), OWNER_PREFIX, to_ms(owner_life), stem),
        )
        leases = []
        for raw_id, token in zip(taken[::2], taken[1::2], strict=True):
            try:
                leases.append(Lease(GenerationId(raw_id.decode("ascii")), token.decode()))
            except UnicodeDecodeError:
                await self._drop(raw_id)
        wait_ms = min(float(wait), LONGEST_WAIT_MS)
        return Leased(leases, timedelta(milliseconds=wait_ms) if wait_ms >= 0 else None)

    async def _drop(self, raw_id: bytes) -> None:
        """Remove a member that is no id of ours: whoever put it there, it can never run."""
        prefixes = (OWNER_PREFIX, JOB_PREFIX, RETRY_PREFIX)
        await self._client.call_all(
            (
                ("ZREM", self._keys.queue, raw_id),
                ("DEL", *(prefix.encode() + raw_id for prefix in prefixes)),
            )
        )

    async def renew(self, lease: Lease, length: timedelta) -> bool:
        """Extend one lease now. Returns whether it was still mine."""
        lost = await self._run(
            self._renew,
            [self._keys.queue],
            (to_ms(length), OWNER_PREFIX, lease.generation, lease.token),
        )
        return not lost

    async def finish(self, lease: Lease) -> bool:
        """Remove the job for good. Returns whether it was still mine."""
        return await self._let_go(lease, "")

    async def give_back(self, lease: Lease, delay: timedelta = timedelta(0)) -> bool:
        """Let another worker have the job after `delay`. Returns whether it was still mine."""
        return await self._let_go(lease, str(to_ms(delay)))

    async def _let_go(self, lease: Lease, due: str) -> bool:
        mine = await self._run(
            self._finish,
            [
                self._keys.queue,
                OWNER_PREFIX + lease.generation,
                JOB_PREFIX + lease.generation,
                RETRY_PREFIX + lease.generation,
                self._keys.wake,
            ],
            (lease.generation, lease.token, due),
        )
        return bool(mine)

    async def tell(self, worker: str, message: str) -> None:
        """Leave `message` for `worker`. A lost one is made good by the worker's next renewal."""
        control = self._keys.control(worker)
        with _garbage_as_away():
            await self._client.call_all(
                (("LPUSH", control, message), ("PEXPIRE", control, to_ms(CONTROL_LIFETIME)))
            )

    async def length(self) -> int:
        """Jobs that wait or run."""
        with _garbage_as_away():
            length: int = await self._client.call("ZCARD", self._keys.queue)
        return length

    async def _run(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        with _garbage_as_away():
            return await self._client.run(script, keys, args)


class Renewal:
    """Renew leases from a thread, on a connection of its own."""

    def __init__(self, client: SyncClient, keys: Keys, lease: timedelta) -> None:
        self._client = client
        self._keys = keys
        self._lease = lease
        self._script = Script("renew")

    def renew(self, leases: Sequence[Lease]) -> set[GenerationId]:
        """Extend every lease that is still mine; return those that are not.

        Raises: StoreUnavailable, whatever Redis says: what runs goes on until it can be renewed.
        """
        args = [part for lease in leases for part in (lease.generation, lease.token)]
        try:
            lost = self._client.run(
                self._script, [self._keys.queue], (to_ms(self._lease), OWNER_PREFIX, *args)
            )
        except RedisError as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}"[:200]) from error
        return {GenerationId(generation.decode()) for generation in lost}


@contextmanager
def _garbage_as_away() -> Iterator[None]:
    """A key of all jobs that is of another type serves no more than a Redis that is away."""
    try:
        yield
    except ResponseError as error:
        if is_garbage(error):
            raise StoreUnavailable(str(error)[:200]) from error
        raise


def _job(generation: GenerationId) -> bytes:
    return serialize_job(JOB_FUNCTION, (generation,), {}, None, 0, serializer=encode_json)
