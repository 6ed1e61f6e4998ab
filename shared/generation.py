"""A generation as its record describes it. Pure: no I/O."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from shared.ids import BEGINNING, EntryId, parse_entry_id

RECORD_VERSION: Final = 1
"""Written as `v`; a reader that meets another one must be of another release."""


class State(StrEnum):
    """Where a generation stands. The last three are final and named like their closing events."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_closed(self) -> bool:
        """Whether the log has its closing entry."""
        return self not in (State.QUEUED, State.RUNNING)


class Surface(StrEnum):
    """What the generation was made for, since not every wire format can say everything."""

    NATIVE = "native"
    CHAT = "chat"
    """`/chat/stream`: its clients cannot be told to forget, and know only LF."""


@dataclass(frozen=True, slots=True)
class Order:
    """A generation as it was asked for."""

    request: dict[str, Any]
    """Chat Completions parameters, `messages` among them; without those that Rejoin owns."""
    tenant: str
    surface: Surface
    queue_timeout: timedelta
    generation_timeout: timedelta
    retention: timedelta

    @property
    def fingerprint(self) -> str:
        """A digest of what is asked; the same request has the same one, whatever its key order."""
        canonical = json.dumps([self.surface, self.request], sort_keys=True)
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

    @property
    def longest_life(self) -> timedelta:
        """From creation to the last moment at which anything of it may be kept."""
        return self.queue_timeout + self.generation_timeout + self.retention


@dataclass(frozen=True, slots=True)
class Upstream:
    """An answer that its provider goes on making without us, and how much of it the log holds."""

    id: str
    """The provider's own name for it."""
    at: int | None
    """Number of the last of its events that is in the log; None before the first."""


@dataclass(frozen=True, slots=True)
class Record:
    """The hash beside a log. Times are UTC; `request` is what the provider is asked."""

    state: State
    epoch: int
    token: str
    tenant: str
    surface: Surface
    request: dict[str, Any]
    model: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline: datetime
    attempts: int
    """How often its log was claimed."""
    handovers: int
    """How many of the claims ended in order: by a drain, or to wait for a provider elsewhere."""
    pauses: int
    """How many of those had a failure before them, which counts as the same attempt."""
    failures: int
    """How many attempts failed by themselves, because of their provider."""
    reset_at: EntryId
    """The last `reset`, where a late reader's history starts; 0-0 if there was none."""
    usage: dict[str, Any] | None
    upstream: Upstream | None = None
    """What the last attempt can be gone on with; None where there is no such thing."""

    @property
    def worker(self) -> str | None:
        """The worker that holds the log: the first half of the owner's token."""
        return self.token.partition("/")[0] or None

    def is_overdue(self, now: datetime) -> bool:
        """Whether it is open past its deadline: whoever meets it then closes it."""
        return not self.state.is_closed and self.deadline <= now


def decode_record(fields: dict[bytes, bytes]) -> Record | None:
    """Read a record; None where there is none, or where it was erased.

    Whatever Python raises of a garbled one is raised: whoever asked Redis for it gives it a name.
    """
    if not fields or b"erased_at" in fields:
        return None
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return Record(
        state=State(text["state"]),
        epoch=int(text["epoch"]),
        token=text.get("token", ""),
        tenant=text["tenant"],
        surface=Surface(text["surface"]),
        request=_decode_object(text["request"]),
        model=text.get("model") or None,
        created_at=_decode_time(text["created_at"]),
        started_at=_decode_time(text["started_at"]) if "started_at" in text else None,
        finished_at=_decode_time(text["finished_at"]) if "finished_at" in text else None,
        deadline=_decode_time(text["deadline"]),
        attempts=int(text.get("attempts", "0")),
        handovers=int(text.get("handovers", "0")),
        pauses=int(text.get("pauses", "0")),
        failures=int(text.get("failures", "0")),
        reset_at=parse_entry_id(text["reset_at"]) if "reset_at" in text else BEGINNING,
        usage=_decode_object(text["usage"]) if text.get("usage") else None,
        upstream=decode_upstream(text.get("upstream_id", ""), text.get("upstream_at", "")),
    )


def decode_upstream(upstream_id: str, at: str) -> Upstream | None:
    """Read the two fields of a record that name its upstream answer."""
    return Upstream(upstream_id, int(at) if at else None) if upstream_id else None


def _decode_object(text: str) -> dict[str, Any]:
    decoded = json.loads(text)
    if not isinstance(decoded, dict):
        raise TypeError("not a JSON object")
    return decoded


def _decode_time(ms: str) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1000, UTC)
