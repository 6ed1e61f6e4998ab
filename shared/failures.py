"""Every way a generation can fail by our own doing: the data of its `failed` event.

A failure of the provider has the code of its `ProviderError`.
"""

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Failure:
    """The data of a `failed` event: a stable code, a sentence, and whether a repeat may help."""

    code: str
    message: str
    retryable: bool

    @property
    def data(self) -> dict[str, Any]:
        """The event's data."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


QUEUE_TIMEOUT: Final = Failure("queue_timeout", "No worker took the generation in time.", True)
GENERATION_TIMEOUT: Final = Failure(
    "generation_timeout", "The generation took longer than it may.", True
)
WORKER_LOST: Final = Failure(
    "worker_lost", "The worker was lost and the answer could not be continued.", True
)
OUTPUT_TOO_LARGE: Final = Failure(
    "output_too_large", "The answer grew beyond what one generation may hold.", False
)
JOB_EXPIRED: Final = Failure("job_expired", "The job was lost from the queue.", True)
JOB_UNDECODABLE: Final = Failure("job_undecodable", "The job in the queue cannot be read.", False)
RECORD_UNREADABLE: Final = Failure(
    "record_unreadable", "What is stored of the generation cannot be read.", False
)
