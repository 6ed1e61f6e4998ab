"""`make bench`: measure, print a table, write it to tests/bench/results/.

LINE picks one line; QUICK=1 is a short run, good for seeing that it works and not for quoting.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.bench.line import FULL, QUICK, Line, Result
from tests.bench.lines import LINES
from tests.bench.machine import describe_machine, machine_sentence

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure the chosen lines. Returns the exit status: 1 where figures mean nothing."""
    wanted = os.environ.get("LINE") or None
    if wanted is not None and wanted not in LINES:
        print(f"no line {wanted!r}; there are: {', '.join(LINES)}", file=sys.stderr)
        return 2
    quick = os.environ.get("QUICK", "") not in ("", "0")
    failed = False
    for line in [LINES[wanted]] if wanted else LINES.values():
        machine = describe_machine()
        result = asyncio.run(line.measure(QUICK if quick else FULL))
        report = f"## {line.name}: {line.question}\n\n{result.markdown()}\n"
        report += f"{machine_sentence(machine)}{' (QUICK)' if quick else ''}\n"
        print(report)
        _write(line, report, result, machine, quick=quick)
        for failure in result.failures:
            print(f"FAILED {line.name}: {failure}", file=sys.stderr)
            failed = True
    return int(failed)


def _write(
    line: Line, report: str, result: Result, machine: dict[str, object], *, quick: bool
) -> None:
    RESULTS.mkdir(exist_ok=True)
    name = f"{line.name}-quick" if quick else line.name
    data = {"line": line.name, "quick": quick, "machine": machine, **result.data}
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(report)


if __name__ == "__main__":
    sys.exit(main())
