"""What a new attempt does with what earlier attempts said.

The rungs, first that applies: re-attach, continue, restart, fail. Today every model restarts, and
a surface that cannot tell its clients to forget fails where a restart would need that.
"""

from dataclasses import dataclass
from typing import Any, Final

from shared.generation import Record, Surface
from shared.generation_store import Failure

WORKER_LOST: Final = Failure(
    "worker_lost", "The worker was lost and the answer could not be continued.", True
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How an attempt begins."""

    attempt: int
    model: str
    resume: str
    """`fresh` or `restart`, as the `started` event says it."""
    reset: bool
    """Whether clients are told to forget, in the same step as the claim."""
    needs_empty_log: bool
    """Whether the attempt must fail if an earlier one left text that cannot be taken back."""

    @property
    def started(self) -> dict[str, Any]:
        """The data of the `started` event, without the `prev` that the claim adds."""
        return {"attempt": self.attempt, "model": self.model, "resume": self.resume}


def plan_attempt(record: Record, *, default_model: str, max_deaths: int) -> Plan | None:
    """Return how to begin the next attempt at `record`; None when its workers died too often.

    An attempt that was neither finished nor handed over died with its worker.
    """
    if record.attempts - record.handovers > max_deaths:
        return None
    again = record.attempts > 0
    can_forget = record.surface is Surface.NATIVE
    return Plan(
        attempt=record.attempts + 1,
        model=record.model or default_model,
        resume="restart" if again else "fresh",
        reset=again and can_forget,
        needs_empty_log=again and not can_forget,
    )
