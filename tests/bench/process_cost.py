"""What a process costs: processor time, memory, and the cores it may use. Read from Linux' /proc.

The bench lets one process under test have a core of its own; whatever feeds it shares the others.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Process


@dataclass(frozen=True, slots=True)
class Cores:
    """How the cores of this machine are shared out."""

    tested: frozenset[int]
    """For the process under test alone."""
    rest: frozenset[int]
    """For everything else; the same where there is only one core."""


@contextmanager
def share_out_cores() -> Iterator[Cores]:
    """Leave one core to the process under test: we, and all we start, stay on the others."""
    if not hasattr(os, "sched_getaffinity"):
        raise AssertionError("this line reads Linux' /proc and pins processes to cores")
    ours = frozenset(os.sched_getaffinity(0))
    tested = frozenset({max(ours)})
    cores = Cores(tested, ours - tested or tested)
    os.sched_setaffinity(0, cores.rest)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, ours)


def pin(process: Process, cores: frozenset[int]) -> None:
    """Let a process use only these cores, with all the threads it has; new ones inherit."""
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def processor_seconds(pid: int) -> float:
    """Processor time a process has used so far, in the kernel too, with all its threads."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    # The name stands in parentheses and may itself hold spaces and parentheses: proc(5).
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private_kib(pid: int) -> int:
    """Memory that would be free again if the process ended, in KiB: what it shares not counted."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(line.split()[:2] for line in rollup.splitlines()[1:])
    return int(fields["Private_Clean:"]) + int(fields["Private_Dirty:"])


def waited_seconds(pid: int) -> float:
    """How long a process was ready to run and had no core, its first thread: the event loop's."""
    _, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(waited_ns) / 1e9


class Meter:
    """Wall time, and what some processes use of it, from now on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._busy = self._read(processor_seconds)
        self._waited = self._read(waited_seconds)
        self._began_at = time.perf_counter()

    def read(self) -> "Cost":
        """What it was until now."""
        seconds = time.perf_counter() - self._began_at
        busy, waited = self._read(processor_seconds), self._read(waited_seconds)
        return Cost(
            seconds,
            {name: busy[name] - self._busy[name] for name in self._pids},
            {name: waited[name] - self._waited[name] for name in self._pids},
        )

    def _read(self, of: Callable[[int], float]) -> dict[str, float]:
        return {name: of(pid) for name, pid in self._pids.items()}


@dataclass(frozen=True, slots=True)
class Cost:
    """What some processes used in a while."""

    seconds: float
    """Of wall time."""
    busy: Mapping[str, float]
    """Seconds of processor time, by process."""
    waited: Mapping[str, float]
    """Seconds in which it would have run and something else did."""

    def share(self, name: str) -> float:
        """Of one core: 1 is all of it."""
        return self.busy[name] / self.seconds
