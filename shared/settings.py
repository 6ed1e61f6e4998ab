"""Settings that the API and the workers share. Built once by each process and passed on."""

import re
import sys
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    RedisDsn,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError


def _parse_redis_url(value: Any) -> Any:
    """Check the address without letting a password into the error message."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str) or not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    if not text.startswith("unix://"):
        try:
            TypeAdapter(RedisDsn).validate_python(text)
        except ValueError:
            raise ValueError("is not a Redis address") from None
    return value


def _parse_duration(value: Any) -> Any:
    """Take bare numbers as seconds, from the environment too, beside `1m` spelled as ISO 8601."""
    if isinstance(value, str):
        try:
            return timedelta(seconds=float(value))
        except (ValueError, OverflowError):
            return value
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration), Field(gt=timedelta(0))]
"""A positive duration; from the environment in seconds (`2.5`) or ISO 8601 (`PT2.5S`)."""


MEBIBYTE: Final = 1024 * 1024


class RedisSettings(BaseSettings):
    """Where the log and the queue live, and how long to wait for them."""

    model_config = SettingsConfigDict(
        env_prefix="REDIS_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    url: Annotated[SecretStr, BeforeValidator(_parse_redis_url)] = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="Address of the Redis that holds the log and the queue: `redis://`, "
        "`rediss://` (TLS) or `unix://`, with user, password and database where needed.",
    )
    key_prefix: str = Field(
        default="",
        pattern=r"^[^{}\s]*$",
        description="Put before every key of ours, so that deployments can share a Redis. "
        "No braces: they would change the hash tag.",
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=2),
        description="Seconds to wait for a connection. Too small: a busy Redis looks dead. "
        "Too large: requests hang before they are refused.",
    )
    command_timeout: Duration = Field(
        default=timedelta(seconds=5),
        description="Seconds to wait for an answer. Too small: a slow fsync looks like an outage. "
        "Too large: a frozen Redis is noticed late.",
    )


class LogSettings(BaseSettings):
    """What a process says about itself."""

    model_config = SettingsConfigDict(
        env_prefix="LOG_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important log line that is written."
    )


Settings = TypeVar("Settings", bound=BaseSettings)


def read_settings(kind: type[Settings]) -> Settings:
    """Read settings from the environment, or end the process with what is wrong and where."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    try:
        return kind()
    except ValidationError as error:
        wrong = [
            f"{prefix}{'_'.join(str(part) for part in each['loc'])}".upper() + f": {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        ]
        sys.exit("Rejoin cannot start: " + "; ".join(wrong))
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        sys.exit(f"Rejoin cannot start: {prefix}{named[1].upper() if named else ''}: is not JSON")
