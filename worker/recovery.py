"""What a new attempt does with what earlier ones said: the recovery ladder.

The rungs, first that applies: re-attach, continue, restart, fail. Which of them a model has is a
setting; which applies depends on what was said, on whether its provider still says it, and on
whether clients can forget it.
"""

import random
import re
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from shared.errors import ProviderError
from shared.generation import Record, Surface, Upstream
from worker.said import Said
from worker.settings import Rung, WorkerSettings

MOST_DOUBLINGS: Final = 16
"""Of a pause: more would reach beyond what a duration can hold, and no pause is so long."""

Resume = Literal["fresh", "reattach", "continue", "restart"]

_REATTACHING: Final = re.compile(r"(?:.+\.)?api\.openai\.com|.+\.openai\.azure\.com")
"""Hosts whose Responses API runs in the background. Source: their references."""


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


def default_ladder(base_url: str) -> dict[str, tuple[Rung, ...]]:
    """Return what the server at `base_url` is known to be able to do.

    No server is known to go on from an assistant prefix for every model it has: that is for the
    operator to say.
    """
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:  # the client will say what is wrong with it
        host = ""
    return {"*": ("reattach", "restart") if _REATTACHING.fullmatch(host) else ("restart",)}


def find_rungs(settings: WorkerSettings, model: str) -> tuple[Rung, ...]:
    """Return the ladder of `model`: that of the first pattern it matches, none if it has none."""
    for pattern, rungs in (settings.ladder or {}).items():
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
    if record.upstream is None:
        rungs = tuple(rung for rung in rungs if rung != "reattach")
    resume: Resume = "fresh" if record.attempts == 0 else rungs[0] if rungs else "fresh"
    return Plan(
        attempt=record.attempts + record.failures - record.pauses + 1,
        model=model,
        resume=resume,
        reset=resume == "restart" and record.surface is Surface.NATIVE,
    )


def choose_resume(
    rungs: tuple[Rung, ...], said: Said, surface: Surface, run: Upstream | None
) -> Resume | None:
    """Return the first rung that applies to what was said; None where only failing is left.

    `run`: the answer that the provider goes on making, if it does.
    """
    for rung in rungs:
        if rung == "reattach":
            # What was said of it may have been taken back: behind its position would be a hole.
            if run is not None and (run.at is None or not said.is_empty):
                return rung
            continue
        if said.is_empty:
            break
        if rung == "continue" and said.is_only_text:
            return rung
        if rung == "restart" and surface is Surface.NATIVE:
            return rung
    return "fresh" if said.is_empty else None


def plan_retry(
    error: ProviderError,
    record: Record,
    said: Said,
    run: Upstream | None,
    settings: WorkerSettings,
    *,
    attempts: int,
) -> Retry | None:
    """Return how to ask again after `error` ended the last of `attempts`; None to give up."""
    if not error.retryable or attempts >= settings.max_attempts:
        return None
    model = record.model or ""
    resume = choose_resume(find_rungs(settings, model), said, record.surface, run)
    if resume is None:
        return None
    pause = error.retry_after or _draw_pause(settings, attempts)
    return Retry(resume, pause, gives_slot_back=pause > settings.max_retry_pause)


def _draw_pause(settings: WorkerSettings, attempts: int) -> timedelta:
    """Exponential, with full jitter over its upper half, never beyond what a worker waits."""
    doublings = min(attempts - 1, MOST_DOUBLINGS)
    longest: timedelta = min(settings.retry_pause * 2**doublings, settings.max_retry_pause)
    return longest * random.uniform(0.5, 1)
