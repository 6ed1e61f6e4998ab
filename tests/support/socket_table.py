"""The kernel's list of TCP sockets, and which process has which. Linux only: proc(5)."""

import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ESTABLISHED = "01"
LISTENING = "0A"


def _sockets(port: int, state: str) -> dict[str, int]:
    """Inode and bytes not read of each in that state whose own port it is (IPv4).

    Of one that listens, the "bytes" are the connections that nobody accepted yet.
    """
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, its_state, queues, _, _, _, _, inode, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and its_state == state:
            found[inode] = int(queues.rpartition(":")[2], 16)
    return found


def _open_inodes(pid: int) -> Iterator[str]:
    for name in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(name.readlink())
        except FileNotFoundError:  # closed while we looked
            continue
        if target.startswith("socket:["):
            yield target.removeprefix("socket:[").removesuffix("]")


def count_sockets(port: int, pids: Iterable[int], state: str) -> Counter[int]:
    """How many sockets on `port` in that state each process has."""
    wanted = _sockets(port, state).keys()
    counts: Counter[int] = Counter()
    for pid in pids:
        try:
            counts[pid] = len(wanted & set(_open_inodes(pid)))
        except FileNotFoundError:  # the process ended
            counts[pid] = 0
    return counts


def count_waiting(port: int, pid: int) -> int:
    """How many connections wait for one process to accept them."""
    listening = _sockets(port, LISTENING)
    return sum(listening.get(inode, 0) for inode in _open_inodes(pid))


def connect(port: int, count: int) -> list[socket.socket]:
    """So many connections to loopback; the caller closes them."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
