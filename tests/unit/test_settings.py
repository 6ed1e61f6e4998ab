"""Settings: read from the environment, refused by name where they make no sense."""

from datetime import timedelta

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from shared.settings import LogSettings, RedisSettings
from worker.settings import ProviderSettings, WorkerSettings

ALL = (RedisSettings, LogSettings, ApiSettings, WorkerSettings, ProviderSettings)


@pytest.mark.parametrize("settings", ALL)
def test_everything_has_a_default_and_a_description(settings: type[BaseSettings]) -> None:
    """An empty environment is enough, and no setting is a riddle."""
    settings()
    assert [name for name, field in settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("settings", ALL)
def test_settings_cannot_be_changed(settings: type[BaseSettings]) -> None:
    """Built once and passed on: nobody turns a knob in mid-flight."""
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings(), next(iter(settings.model_fields)), "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", timedelta(seconds=2)),
        ("2.5", timedelta(seconds=2.5)),
        ("0.05", timedelta(milliseconds=50)),
        ("PT2.5S", timedelta(seconds=2.5)),
        ("PT1M", timedelta(minutes=1)),
    ],
)
def test_durations_are_read_in_seconds_or_iso_8601(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: timedelta
) -> None:
    """A bare number is seconds, from the environment as well."""
    monkeypatch.setenv("API_QUEUE_TIMEOUT", text)
    assert ApiSettings().queue_timeout == expected


@pytest.mark.parametrize("text", ["0", "-1", "", "soon", "nan", "inf", "1e300", "-inf", "PT0S"])
def test_durations_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Zero, negative, endless or unreadable: the process does not start, and says which."""
    monkeypatch.setenv("API_QUEUE_TIMEOUT", text)
    with pytest.raises(ValidationError, match="queue_timeout"):
        ApiSettings()


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:password@host:6380/3",
        "rediss://:password@host/0",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_addresses_of_redis_are_taken_as_they_are(url: str) -> None:
    """TCP, TLS, Unix socket, with user, password and database."""
    assert RedisSettings.model_validate({"url": url}).url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    ["http://:hunter2@h", ":hunter2@h:6379", "redis://:hunter2@h:99999999/", "redis://:hunter2@"],
)
def test_a_refused_address_is_named_without_its_password(url: str) -> None:
    """The error of a process that cannot start lands in logs that many can read."""
    with pytest.raises(ValidationError, match="url") as refusal:
        RedisSettings.model_validate({"url": url})
    assert "hunter2" not in str(refusal.value)
    assert "hunter2" not in repr(refusal.value)


def test_secrets_are_not_shown() -> None:
    """Neither an address with a password nor a key appears when settings are printed."""
    settings = (
        RedisSettings.model_validate({"url": "redis://:hunter2@h"}),
        ProviderSettings.model_validate({"api_key": "hunter2"}),
    )
    assert "hunter2" not in repr(settings) + str(settings)


@pytest.mark.parametrize("prefix", ["a{b", "a}b", "a b", "a\n", "{gen}:"])
def test_a_prefix_that_would_break_the_hash_tag_is_refused(prefix: str) -> None:
    """Record and log of a generation must stay in one slot."""
    with pytest.raises(ValidationError, match="key_prefix"):
        RedisSettings(key_prefix=prefix)


def test_a_lease_must_outlast_missed_renewals() -> None:
    """Three renewals fit into a lease; the sentence names both settings."""
    second = timedelta(seconds=1)
    WorkerSettings(lease=3 * second, renewal=second)
    with pytest.raises(ValidationError, match=r"WORKER_LEASE.*WORKER_RENEWAL"):
        WorkerSettings(lease=2.9 * second, renewal=second)


def test_a_follower_is_cut_before_what_it_reads_is_gone() -> None:
    """The send time-out lies within the retention; the sentence names both settings."""
    second = timedelta(seconds=1)
    ApiSettings(send_timeout=second, retention=second)
    with pytest.raises(ValidationError, match=r"API_SEND_TIMEOUT.*API_RETENTION"):
        ApiSettings(send_timeout=2 * second, retention=second)


def test_processes_that_share_a_port_need_one_that_is_named() -> None:
    """Any free one would be another for each; the sentence names both settings."""
    ApiSettings(processes=2, port=1)
    ApiSettings(processes=1, port=0)
    with pytest.raises(ValidationError, match=r"API_PROCESSES.*API_PORT"):
        ApiSettings(processes=2, port=0)


@pytest.mark.parametrize("name", ["a/b", "a b", "", "ä", "a\n"])
def test_a_worker_name_that_would_break_its_tokens_is_refused(name: str) -> None:
    """The slash separates worker and lease; the name is part of a key."""
    with pytest.raises(ValidationError, match="name"):
        WorkerSettings(name=name)


def test_workers_draw_names_of_their_own() -> None:
    """Two processes of one host never share a name, hence neither tokens nor messages."""
    assert WorkerSettings().name != WorkerSettings().name


@pytest.mark.parametrize(
    ("name", "value"), [("max_generations", 0), ("max_deaths", -1), ("max_output", "0")]
)
def test_limits_that_let_nothing_through_are_refused(name: str, value: object) -> None:
    """A worker that may do nothing is a mistake."""
    with pytest.raises(ValidationError, match=name):
        WorkerSettings.model_validate({name: value})


def test_the_longest_life_covers_waiting_running_and_keeping() -> None:
    """No key of a generation may go before its retention is over."""
    settings = ApiSettings()
    parts = (settings.queue_timeout, settings.generation_timeout, settings.retention)
    assert settings.longest_life == sum(parts, timedelta(0))
