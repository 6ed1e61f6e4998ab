"""`resumable-stream` from npm, installed into a temporary folder as its lock file says."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_PROJECT: Final = Path(__file__).parents[1] / "baselines" / "resumable_stream"


@dataclass(frozen=True, slots=True)
class NodeProject:
    """The baseline, ready to run."""

    node: str
    folder: Path
    versions: str
    """Of Node and what it loads."""

    def command(self, role: str) -> list[str]:
        """What starts one of its processes."""
        return [self.node, str(self.folder / "stream.mjs"), role]


@contextmanager
def install_node_project() -> Iterator[NodeProject | None]:
    """Install it; None, and a line on stderr, where there is no Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        print("left out: resumable-stream (no node or no npm on PATH)", file=sys.stderr)
        yield None
        return
    with TemporaryDirectory(prefix="rejoin-bench-node-") as name:
        folder = Path(name)
        shutil.copytree(_PROJECT, folder, dirs_exist_ok=True)
        install = [npm, "ci", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(install, cwd=folder, check=True, stdout=sys.stderr)
        yield NodeProject(node, folder, _versions(node, folder))


def _versions(node: str, folder: Path) -> str:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    libraries = (f"{name} {number}" for name, number in wanted.items())
    return f"Node {said.stdout.strip()}, {', '.join(libraries)}"
