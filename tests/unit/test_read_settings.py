"""A process that is configured wrongly says so in one line, and starts nothing."""

import pytest
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from shared.settings import RedisSettings, read_settings
from worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (WorkerSettings, "WORKER_LADDER", "nonsense"),
        (WorkerSettings, "WORKER_LADDER", '{"*": ["jump"]}'),
        (WorkerSettings, "WORKER_LEASE", "banana"),
        (ApiSettings, "API_ALLOWED_ORIGINS", "https://a.example"),
        (ApiSettings, "API_PORT", "70000"),
        (ApiSettings, "API_PROCESSES", "0"),
        (RedisSettings, "REDIS_URL", "http://user:hidden@host"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    kind: type[BaseSettings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable and what is wrong with it; never its value, which may hold a password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        read_settings(kind)
    said = str(ended.value)
    assert name in said
    assert "\n" not in said
    assert "hidden" not in said
