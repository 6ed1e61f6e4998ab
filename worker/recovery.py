"""What a new attempt does with what earlier ones said: the recovery ladder.

The rungs, first that applies: re-attach (not yet), continue, restart, fail. Which of them a model
has is a setting; which applies depends on what was said, and on whether clients can forget it.
"""

import random
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from shared.errors import ProviderError
from shared.generation import Record, Surface
from shared.generation_store import Failure
from worker.said import Said
from worker.settings import Rung, WorkerSettings

WORKER_LOST: Final = Failure(
    "worker_lost", "The worker was lost and the answer could not be continued.", True
)

MOST_DOUBLINGS: Final = 16
"""Of a pause: more would reach beyond what a duration can hold, and no pause is so long."""

Resume = Literal["fresh", "continue", "restart"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How an ownership begins."""

    attempt: int
    model: str
    resume: Resume
    """As the `started` event says it."""
    reset: bool
    """Whether clients are told to forget, in the same step as the claim."""

    @property
    def is_first(self) -> bool:
        """Whether nobody can have said anything before."""
        return self.attempt == 1

    @property
    def started(self) -> dict[str, Any]:
        """The data of the `started` event; where it opens an epoch the claim adds `prev`."""
        return {"attempt": self.attempt, "model": self.model, "resume": self.resume}


@dataclass(frozen=True, slots=True)
class Retry:
    """How to ask again after a failure."""

    resume: Resume
    pause: timedelta
    gives_slot_back: bool
    """Whether the pause is so long that somebody else should have the slot."""


def find_rungs(settings: WorkerSettings, model: str) -> tuple[Rung, ...]:
    """Return the ladder of `model`: that of the first pattern it matches, none if it has none."""
    for pattern, rungs in settings.ladder.items():
        if fnmatchcase(model, pattern):
            return rungs
    return ()


def plan_attempt(record: Record, settings: WorkerSettings, *, default_model: str) -> Plan | None:
    """Return how to begin the next ownership; None when its workers died too often.

    A claim that was neither finished nor handed over died with its worker.
    """
    if record.attempts - record.handovers > settings.max_deaths:
        return None
    model = record.model or default_model
    rungs = find_rungs(settings, model)
    resume: Resume = "fresh" if record.attempts == 0 else rungs[0] if rungs else "fresh"
    return Plan(
        attempt=record.attempts + record.failures - record.pauses + 1,
        model=model,
        resume=resume,
        reset=resume == "restart" and record.surface is Surface.NATIVE,
    )


def choose_resume(rungs: tuple[Rung, ...], said: Said, surface: Surface) -> Resume | None:
    """Return the first rung that applies to what was said; None where only failing is left."""
    if said.is_empty:
        return "fresh"
    for rung in rungs:
        if rung == "continue" and said.is_only_text:
            return rung
        if rung == "restart" and surface is Surface.NATIVE:
            return rung
    return None


def plan_retry(
    error: ProviderError, record: Record, said: Said, settings: WorkerSettings, *, attempts: int
) -> Retry | None:
    """Return how to ask again after `error` ended the last of `attempts`; None to give up."""
    if not error.retryable or attempts >= settings.max_attempts:
        return None
    model = record.model or ""
    resume = choose_resume(find_rungs(settings, model), said, record.surface)
    if resume is None:
        return None
    pause = error.retry_after or _draw_pause(settings, attempts)
    return Retry(resume, pause, gives_slot_back=pause > settings.max_retry_pause)


def _draw_pause(settings: WorkerSettings, attempts: int) -> timedelta:
    """Exponential, with full jitter over its upper half, never beyond what a worker waits."""
    doublings = min(attempts - 1, MOST_DOUBLINGS)
    longest: timedelta = min(settings.retry_pause * 2**doublings, settings.max_retry_pause)
    return longest * random.uniform(0.5, 1)
