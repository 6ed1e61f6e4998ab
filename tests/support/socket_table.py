"""The kernel's list of TCP sockets, and which process has which. Linux only: proc(5)."""

import socket
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_STATES = {"01": "established", "0A": "listening"}


def _inodes(port: int, wanted: str) -> set[str]:
    """Of the sockets in that state whose own port it is (IPv4)."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if int(local.rpartition(":")[2], 16) == port and _STATES.get(state) == wanted:
            found.add(rest[5])
    return found


def _open_inodes(pid: int) -> Iterable[str]:
    for name in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(name.readlink())
        except FileNotFoundError:  # closed while we looked
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def count_sockets(port: int, pids: Iterable[int], state: str) -> Counter[int]:
    """How many sockets on `port` that are "established" or "listening" each process has."""
    wanted = _inodes(port, state)
    counts: Counter[int] = Counter()
    for pid in pids:
        try:
            counts[pid] = len(wanted.intersection(_open_inodes(pid)))
        except FileNotFoundError:  # the process ended
            counts[pid] = 0
    return counts


def connect(port: int, count: int) -> list[socket.socket]:
    """So many connections to loopback; the caller closes them."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
