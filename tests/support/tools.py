"""What the tests need beside Python: found, else installed, else left out by name.

`python -m tests.support.tools` prints the pytest marker expression of what can be run here, and
says on stderr what it did. Where we may install (root, apt), failing to is an error: a tier without
its server fails. Elsewhere its tests are deselected, and that is said.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.browser import find_chromium


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, the marker of the tests that need it, the Debian package that brings it."""

    name: str
    marker: str
    package: str
    find: Callable[[], str | None]


TOOLS = (
    Tool("redis-server", "redis_server", "redis-server", lambda: shutil.which("redis-server")),
    Tool("Chromium", "browser", "chromium", find_chromium),
    # No program, but what a platform cannot have is left out by name as well.
    Tool("Linux", "linux", "", lambda: "/proc" if sys.platform == "linux" else None),
)


def main() -> None:
    """Print the marker expression; empty if everything is there."""
    may_install = os.geteuid() == 0 and shutil.which("apt-get") is not None
    missing = [tool for tool in TOOLS if tool.find() is None]
    if missing and may_install:
        _run("apt-get", "update", "-qq")
        for tool in missing:
            _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", tool.package)
    if find_chromium() is None:
        _run(sys.executable, "-m", "playwright", "install", "chromium")
    missing = [tool for tool in missing if tool.find() is None]
    if missing and may_install:
        sys.exit(f"could not be installed: {', '.join(tool.name for tool in missing)}")
    for tool in missing:
        _say(f"deselected: tests needing {tool.name} (not found, no root to install it)")
    print(" and ".join(f"not {tool.marker}" for tool in missing))


def _run(*command: str) -> None:
    """Run an installer; whether it helped is seen by looking for the tool again."""
    _say(" ".join(command))
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment, check=False
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
