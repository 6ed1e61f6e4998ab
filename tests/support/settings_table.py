"""The README's table of settings, made from the settings classes themselves.

`python -m tests.support.settings_table` writes it between the two markers in README.md.
"""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from shared.settings import LogSettings, RedisSettings
from worker.settings import ProviderSettings, WorkerSettings
from worker.standin.settings import StandinSettings

README: Final = Path(__file__).parents[2] / "README.md"
BEGIN: Final = "<!-- settings: made by python -m tests.support.settings_table -->"
END: Final = "<!-- /settings -->"

CLASSES: Final[tuple[type[BaseSettings], ...]] = (
    RedisSettings,
    ProviderSettings,
    ApiSettings,
    WorkerSettings,
    LogSettings,
    StandinSettings,
)


def settings_table() -> str:
    """Return the table in Markdown, one row a setting."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for settings in CLASSES:
        prefix = str(settings.model_config.get("env_prefix", ""))
        for name, field in settings.model_fields.items():
            meaning = " ".join((field.description or "").split())
            rows.append(f"| `{(prefix + name).upper()}` | {_default(field.default)} | {meaning} |")
    return "\n".join(rows)


def _default(value: object) -> str:
    match value:
        case timedelta():
            return f"`{value.total_seconds():g}`"
        case SecretStr():
            return f"`{value.get_secret_value()}`" if value.get_secret_value() else "empty"
        case _ if value is PydanticUndefined:
            return "drawn"
        case None | () | "":
            return "empty"
        case dict():
            return f"`{json.dumps(value)}`"
        case bool():
            return f"`{str(value).lower()}`"
        case int() if hasattr(value, "human_readable"):
            return f"`{value.human_readable().replace('.0', '')}`"
        case _:
            return f"`{value}`"


def with_settings_table(text: str) -> str:
    """Return the README's `text` with the table as it should be."""
    pattern = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{settings_table()}\n{END}", text, count=1)


if __name__ == "__main__":
    README.write_text(with_settings_table(README.read_text(encoding="utf-8")), encoding="utf-8")
