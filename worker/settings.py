"""What a worker process is told by its environment."""

import os
import secrets
import socket
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import ByteSize, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import MEBIBYTE, Duration

Rung = Literal["reattach", "continue", "restart"]
"""One way to go on after an attempt, see `worker/recovery.py`."""


def _draw_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class ProviderSettings(BaseSettings):
    """The model server, in the words of the official SDK."""

    model_config = SettingsConfigDict(
        env_prefix="OPENAI_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key of the model server; empty for servers that ask for none.",
    )
    base_url: str = Field(
        default="https://api.openai.com/v1",
        description="Address of any server that speaks Chat Completions.",
    )
    model: str = Field(
        default="gpt-5.2",
        min_length=1,
        description="Model for requests that name none.",
    )


class WorkerSettings(BaseSettings):
    """How one worker runs generations."""

    model_config = SettingsConfigDict(
        env_prefix="WORKER_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    name: str = Field(
        default_factory=_draw_name,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Names this process in tokens and logs; must be unique among running workers. "
        "Drawn from host, pid and chance if unset.",
    )
    max_generations: int = Field(
        default=200,
        ge=1,
        le=1000,
        description="Generations at once in this process. Too small: they queue while the worker "
        "waits for providers. Too large: memory.",
    )
    lease: Duration = Field(
        default=timedelta(seconds=2),
        description="Seconds until a silent worker's job may be marked. Too small: hiccups look "
        "like deaths. Too large: deaths are noticed late.",
    )
    mark: Duration = Field(
        default=timedelta(seconds=1),
        description="Seconds between the mark of a lapsed job and its take-over, in which the "
        "owner may come back. Too small: an outage of Redis restarts running generations.",
    )
    renewal: Duration = Field(
        default=timedelta(seconds=0.5),
        description="Seconds between renewals of all leases.",
    )
    poll: Duration = Field(
        default=timedelta(seconds=1),
        description="Longest sleep of an idle worker between two looks at the queue. New work "
        "wakes it at once; this bounds what a lost wake costs.",
    )
    first_token_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="Seconds until the model must have said something. Too small: slow models "
        "fail. Too large: a dead provider is noticed late.",
    )
    stall_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="Longest silence in the middle of an answer.",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        description="How often a model is asked for one generation before a failure that a repeat "
        "might mend ends it. Too small: a hiccup fails it. Too large: it is paid for often.",
    )
    retry_pause: Duration = Field(
        default=timedelta(seconds=0.5),
        description="Seconds before the second attempt, doubled for each further one, with jitter.",
    )
    max_retry_pause: Duration = Field(
        default=timedelta(seconds=15),
        description="Longest pause that a worker waits itself. A provider whose `Retry-After` asks "
        "for more gets it, and the slot goes to somebody else meanwhile.",
    )
    ladder: dict[str, tuple[Rung, ...]] | None = Field(
        default=None,
        description="What follows an attempt that died or failed after its first token, by model "
        '(shell patterns, first match), as JSON: `{"llama*": ["continue", "restart"]}`. '
        "`reattach` asks by the Responses API in the background and goes on reading the same "
        "answer; `continue` sends the partial answer as the assistant's prefix, for model servers "
        "that go on from there; `restart` makes clients forget; an empty list fails at once. "
        'Unset: `["reattach", "restart"]` for OpenAI and Azure, else `["restart"]`.',
    )
    max_deaths: int = Field(
        default=10,
        ge=0,
        description="Deaths of its worker that a generation survives; one more, and it fails with "
        "`worker_lost`. Too small: a bad host fails its neighbours. Too large: a generation that "
        "kills its worker is tried for long.",
    )
    watch: Duration = Field(
        default=timedelta(seconds=2),
        description="Seconds that a worker keeps what it wrote, and its lease, after the end of a "
        "generation, to repair what a Redis that lost its last writes forgot. Too small: an end "
        "can be undone. Too large: memory, and a longer drain.",
    )
    max_output: ByteSize = Field(
        default=ByteSize(4 * MEBIBYTE),
        gt=0,
        description="Bytes of text after which a generation ends with `output_too_large`.",
    )
    require_finish_reason: bool = Field(
        default=True,
        description="Whether an answer without `finish_reason` counts as cut off. Turn it off only "
        "for servers that never send one: truncated answers then look complete.",
    )
    drain: Duration = Field(
        default=timedelta(seconds=30),
        description="Seconds that running generations get to finish after SIGTERM; the rest is "
        "handed over. Keep the runner's grace period above it.",
    )

    alive_file: Path | None = Field(
        default=None,
        description="A file that the worker touches every second while its event loop runs, for a "
        "health check that looks at its age. None if unset.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lease < 3 * self.renewal:
            raise ValueError("WORKER_LEASE must be at least 3 x WORKER_RENEWAL")
        return self
