"""Put the newest full results of `make bench` into the README: `python -m tests.bench.readme`."""

import re
from pathlib import Path
from typing import Final

from tests.bench.chart import draw_chart
from tests.bench.lines import LINES

README: Final = Path(__file__).parents[2] / "README.md"
RESULTS: Final = Path(__file__).parent / "results"
CHART: Final = Path(__file__).parent / "latency.svg"
PICTURE: Final = "![Append to client against load](tests/bench/latency.svg)"
BEGIN: Final = "<!-- bench: made by python -m tests.bench.readme -->"
END: Final = "<!-- /bench -->"

_SECTION: Final = re.compile(re.escape(BEGIN) + r"\n(.*?)" + re.escape(END), re.DOTALL)
_REPORT: Final = re.compile(r"^### ([a-z-]+): .*?(?=^### |\Z)", re.DOTALL | re.MULTILINE)


def main() -> None:
    """Renew the reports of what was measured in full here, and the chart; keep all others."""
    text = README.read_text(encoding="utf-8")
    found = _SECTION.search(text)
    assert found is not None, "the README has lost its markers"
    reports = {each[1]: each[0].strip() for each in _REPORT.finditer(found[1])}
    for name in LINES:
        result = RESULTS / f"{name}.md"
        if result.exists():
            report = result.read_text(encoding="utf-8")
            reports[name] = report.replace("## ", "### ", 1).strip()
    measured = RESULTS / "latency.json"
    if measured.exists():
        CHART.write_bytes(draw_chart(measured.read_text(encoding="utf-8")))
    pictures = [PICTURE] if CHART.exists() else []
    section = "\n\n".join([*pictures, *(reports[name] for name in LINES if name in reports)])
    start, end = found.span(1)
    README.write_text(f"{text[:start]}{section}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
