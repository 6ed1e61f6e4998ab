"""The two programs of the load, in C so that they cost little beside what is measured."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_SOURCES = Path(__file__).parent
_FLAGS = ("-O2", "-Wall", "-D_GNU_SOURCE")
_DEBIAN = ("gcc", "libc6-dev")


@dataclass(frozen=True, slots=True)
class Programs:
    """Where they are, and a folder for the files they read."""

    followers: Path
    writer: Path
    folder: Path


@contextmanager
def build_programs() -> Iterator[Programs]:
    """Compile both into a folder that is gone afterwards.

    Raises: SystemExit: there is no compiler, and none can be installed.
    """
    compiler = _find_compiler()
    with TemporaryDirectory(prefix="rejoin-bench-") as name:
        folder = Path(name)
        for program in ("followers", "writer"):
            source = _SOURCES / f"{program}.c"
            command = [compiler, *_FLAGS, "-o", str(folder / program), str(source)]
            subprocess.run(command, check=True)
        yield Programs(folder / "followers", folder / "writer", folder)


def _find_compiler() -> str:
    if sys.platform != "linux":
        sys.exit("the delivery lines need Linux: epoll, and a core of its own for the API")
    if (found := shutil.which("cc")) is not None:
        return found
    apt = shutil.which("apt-get")
    if os.geteuid() == 0 and apt is not None:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = [apt, "install", "-qq", "-y", "--no-install-recommends", *_DEBIAN]
        for command in ([apt, "update", "-qq"], install):
            subprocess.run(command, stdout=sys.stderr, env=environment, check=False)
    if (found := shutil.which("cc")) is None:
        sys.exit(f"no C compiler: install one (Debian: apt-get install {' '.join(_DEBIAN)})")
    return found
