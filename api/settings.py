"""What an API process is told by its environment."""

from datetime import timedelta
from typing import Self

from pydantic import ByteSize, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import MEBIBYTE, Duration


class ApiSettings(BaseSettings):
    """How one API process accepts generations and serves their events."""

    model_config = SettingsConfigDict(
        env_prefix="API_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0: any free.")
    processes: int = Field(
        default=1,
        ge=1,
        description="Processes that share the port, one a core; above 1 on Linux only. Too small: "
        "one core serves all followers. Too large: memory, and six connections of Redis for each.",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Origins of other sites whose pages may use this API, as a JSON list: "
        '`["https://app.example"]`. Pages of all others are refused where it costs money.',
    )
    max_body: ByteSize = Field(
        default=ByteSize(MEBIBYTE),
        gt=0,
        description="Largest request body. Too small: long conversations are refused.",
    )
    max_queue: int = Field(
        default=10_000,
        ge=1,
        description="Generations that may wait or run; beyond it new ones get 429.",
    )
    queue_timeout: Duration = Field(
        default=timedelta(minutes=5),
        description="Seconds a generation may wait for a worker before it fails with "
        "`queue_timeout`.",
    )
    generation_timeout: Duration = Field(
        default=timedelta(minutes=15),
        description="Seconds from its first start after which a generation fails with "
        "`generation_timeout`.",
    )
    retention: Duration = Field(
        default=timedelta(hours=1),
        description="Seconds that a finished generation can be read. Too small: a phone that "
        "comes back late finds nothing. Too large: memory of Redis.",
    )
    heartbeat: Duration = Field(
        default=timedelta(seconds=15),
        description="Seconds without traffic until a follower hears a heartbeat. Too large: "
        "proxies cut idle connections.",
    )
    send_timeout: Duration = Field(
        default=timedelta(seconds=15),
        description="Seconds a follower may leave its socket full before it is cut; it resumes.",
    )
    repair_wait: Duration = Field(
        default=timedelta(seconds=3),
        description="Seconds a reader that is ahead of a rolled-back log waits for its repair; "
        "WORKER_LEASE + WORKER_MARK.",
    )
    window: ByteSize = Field(
        default=ByteSize(MEBIBYTE // 4),
        gt=0,
        description="Bytes of recent entries kept for each followed log. Too small: slow readers "
        "cost reads of Redis. Too large: memory.",
    )
    poll: Duration = Field(
        default=timedelta(milliseconds=50),
        description="Seconds between reads of followed logs where Redis refuses to tell what "
        "changed (CLIENT TRACKING).",
    )
    drain: Duration = Field(
        default=timedelta(seconds=5),
        description="Seconds for open requests after SIGTERM. Followers are told at once.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.send_timeout > self.retention:
            raise ValueError("API_SEND_TIMEOUT must not exceed API_RETENTION")
        if self.processes > 1 and self.port == 0:
            raise ValueError("API_PROCESSES above 1 needs an API_PORT that they can share, not 0")
        return self

    @property
    def longest_life(self) -> timedelta:
        """The longest that anything of one generation is kept."""
        return self.queue_timeout + self.generation_timeout + self.retention
