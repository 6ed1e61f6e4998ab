"""The operating system's list of processes, as far as the tests need it.

Linux is read from /proc; elsewhere (macOS) `ps` is asked. psutil is not among our dependencies.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process. `state` is the letter of ps(1): R, S, D, T (stopped), Z (not reaped) …"""

    pid: int
    parent_pid: int
    state: str
    command: str


def _from_proc() -> list[ProcessRow]:
    rows = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text(errors="replace")
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        # The name stands in parentheses and may itself hold spaces and parentheses: proc(5).
        name, _, rest = stat.partition("(")[2].rpartition(")")
        state, parent_pid = rest.split()[:2]
        rows.append(ProcessRow(int(folder.name), int(parent_pid), state, command.strip() or name))
    return rows


def _from_ps() -> list[ProcessRow]:
    ps = subprocess.Popen(
        ["/bin/ps", "-A", "-o", "pid=,ppid=,state=,command="], stdout=subprocess.PIPE, text=True
    )
    listing, _ = ps.communicate()
    # `ps` lists itself, and it is a child of ours.
    return [row for row in parse_ps(listing) if row.pid != ps.pid]


def parse_ps(listing: str) -> list[ProcessRow]:
    """The output of `ps -o pid=,ppid=,state=,command=`."""
    rows = []
    for line in listing.splitlines():
        pid, parent_pid, state, *command = line.split(None, 3)
        rows.append(ProcessRow(int(pid), int(parent_pid), state[0], "".join(command)))
    return rows


def processes() -> list[ProcessRow]:
    """Every process we may see, at this moment."""
    return _from_proc() if sys.platform == "linux" else _from_ps()


def children_of(pid: int) -> list[ProcessRow]:
    """The direct children of `pid`, those that ended but were not reaped included."""
    return [row for row in processes() if row.parent_pid == pid]


def process_state(pid: int) -> str | None:
    """The state letter of one process, or None if there is none of that id."""
    return next((row.state for row in processes() if row.pid == pid), None)
