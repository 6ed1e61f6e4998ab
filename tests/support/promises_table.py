"""The README's table of what dies, what a client sees, and within which bound.

`python -m tests.support.promises_table` writes it between the two markers in README.md.
"""

import re
from pathlib import Path
from typing import Final

from tests.support.promises import PROMISES

README: Final = Path(__file__).parents[2] / "README.md"
BEGIN: Final = "<!-- promises: made by python -m tests.support.promises_table -->"
END: Final = "<!-- /promises -->"


def promises_table() -> str:
    """Return the table in Markdown, one row a promise."""
    rows = ["| what dies | what a client sees | bound |", "|---|---|---|"]
    rows += [f"| {each.dies} | {each.client_sees} | {each.bound} |" for each in PROMISES.values()]
    return "\n".join(rows)


def with_promises_table(text: str) -> str:
    """Return the README's `text` with the table as it should be."""
    pattern = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{promises_table()}\n{END}", text, count=1)


if __name__ == "__main__":
    README.write_text(with_promises_table(README.read_text(encoding="utf-8")), encoding="utf-8")
