"""Every error Rejoin raises on purpose. A branch says what the caller can do about it.

    RejoinError
    ├── Refused                 the request must change before it can succeed
    │   ├── BodyNotJson
    │   ├── BodyTooLarge
    │   ├── RequestInvalid
    │   ├── ParameterRefused
    │   ├── CursorMalformed
    │   ├── GenerationUnknown
    │   ├── GenerationGone
    │   ├── IdempotencyConflict
    │   └── CrossSiteRefused
    ├── Unavailable             the same request may succeed later
    │   ├── NotAdmitted
    │   ├── StoreUnavailable
    │   └── Draining
    ├── RecordUnreadable        nobody can do anything: somebody else wrote into our keys
    ├── AppendRefused           the writer stops writing this log
    │   ├── LogAbsent
    │   ├── LogClosed
    │   ├── Fenced
    │   └── ClaimLost
    └── ProviderError           the model's server did not deliver
        ├── ProviderRefused
        ├── ProviderUnreachable
        ├── ProviderSilent
        ├── ProviderTruncated
        └── ProviderGarbled

Errors carry facts as attributes and know nothing of HTTP; a table in `api/problems.py` turns
those above `AppendRefused` into responses.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal


class RejoinError(Exception):
    """The root: anything Rejoin itself refuses, misses or gives up."""


class Refused(RejoinError):
    """The request must change before it can succeed."""


@dataclass(eq=False)
class BodyNotJson(Refused):
    """The body is not a JSON object in UTF-8."""

    reason: str


@dataclass(eq=False)
class BodyTooLarge(Refused):
    """The body has more than `limit` bytes."""

    limit: int


@dataclass(eq=False)
class RequestInvalid(Refused):
    """A field has the wrong shape. `pointer` is an RFC 6901 JSON pointer, "" for the whole body."""

    pointer: str
    reason: str


@dataclass(eq=False)
class ParameterRefused(Refused):
    """A Chat Completions parameter that Rejoin owns itself or cannot carry."""

    name: str
    reason: str


@dataclass(eq=False)
class CursorMalformed(Refused):
    """The cursor is not an entry id."""


@dataclass(eq=False)
class GenerationUnknown(Refused):
    """No such generation, or its retention is over, or it belongs to somebody else."""


@dataclass(eq=False)
class GenerationGone(Refused):
    """The generation that this idempotency key names was deleted a moment ago."""


@dataclass(eq=False)
class IdempotencyConflict(Refused):
    """The idempotency key was used before with another request."""


@dataclass(eq=False)
class CrossSiteRefused(Refused):
    """A page of another site asked for something that costs money."""

    origin: str


class Unavailable(RejoinError):
    """The same request may succeed later."""


@dataclass(eq=False)
class NotAdmitted(Unavailable):
    """The queue is full; worth another try after `retry_after`."""

    retry_after: timedelta


@dataclass(eq=False)
class StoreUnavailable(Unavailable):
    """Redis does not answer, or answers that it cannot write now."""

    reason: str


@dataclass(eq=False)
class Draining(Unavailable):
    """This process is about to end and takes nothing new."""


@dataclass(eq=False)
class RecordUnreadable(RejoinError):
    """The record or the log of a generation is not what we write. `reason` is for the log only."""

    reason: str


class AppendRefused(RejoinError):
    """The log did not take the entries, and never will from this writer."""


@dataclass(eq=False)
class LogAbsent(AppendRefused):
    """The log or its record is gone: retention, deletion, or a Redis that lost everything."""


@dataclass(eq=False)
class LogClosed(AppendRefused):
    """Somebody closed the log: a cancel, a deadline, or another owner. `state` is its final one."""

    state: str


@dataclass(eq=False)
class Fenced(AppendRefused):
    """A newer owner holds the log."""


@dataclass(eq=False)
class ClaimLost(AppendRefused):
    """Redis lost this writer's own claim (a roll-back): the job must be given back."""


@dataclass(eq=False)
class ProviderError(RejoinError):
    """The model's server did not deliver.

    `code` is stable and safe to show; `detail` is the provider's own text: for the log only.
    """

    code: str
    message: str
    retryable: bool
    detail: str = ""
    retry_after: timedelta | None = None


@dataclass(eq=False)
class ProviderRefused(ProviderError):
    """It answered with an error status, or with an error in the middle of its stream."""

    status: int | None = None


@dataclass(eq=False)
class ProviderUnreachable(ProviderError):
    """No connection, or the connection broke before the first byte."""


@dataclass(eq=False)
class ProviderSilent(ProviderError):
    """It said nothing for too long."""

    phase: Literal["first_token", "stall"] = "stall"


@dataclass(eq=False)
class ProviderTruncated(ProviderError):
    """Its stream ended, or broke, before it said that it was finished."""


@dataclass(eq=False)
class ProviderGarbled(ProviderError):
    """It sent something that is not its own protocol."""
