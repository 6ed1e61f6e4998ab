"""Put the newest full results of `make bench` into the README: `python -m tests.bench.readme`."""

import re
from pathlib import Path
from typing import Final

from tests.bench.lines import LINES

README: Final = Path(__file__).parents[2] / "README.md"
RESULTS: Final = Path(__file__).parent / "results"
BEGIN: Final = "<!-- bench: made by python -m tests.bench.readme -->"
END: Final = "<!-- /bench -->"


def main() -> None:
    """Replace what stands between the two markers by the lines that were measured in full."""
    results = [RESULTS / f"{name}.md" for name in LINES]
    reports = [path.read_text(encoding="utf-8") for path in results if path.exists()]
    section = "\n".join(report.replace("## ", "### ", 1) for report in reports)
    pattern = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    text = README.read_text(encoding="utf-8")
    section = f"{BEGIN}\n{section}{END}"
    README.write_text(pattern.sub(lambda _: section, text, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
