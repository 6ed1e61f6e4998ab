"""The sockets of an API process, and several processes on one port: `python -m api --processes 4`.

    parent: claims the port, starts again what ends, hands SIGTERM on, ends last
      ├─ fork ─► a process as it would be alone, but for a listening socket of its own
      └─ fork ─► …

Linux spreads connections evenly, by a hash, over the sockets that listen on a port with
SO_REUSEPORT; of processes that accept from one socket, a few would take most of them. A socket
is gone with its process, so that nothing is sent to one that died.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import structlog
from uvicorn.config import STARTUP_FAILURE

from api.settings import ApiSettings

PAUSE_S: Final = 1.0
"""At least so long lies between two starts in one place: what cannot live costs no core."""

PR_SET_PDEATHSIG: Final = 1
"""Source: prctl(2)."""

_TOLD: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_LONG_S: Final = 3600.0

Address = tuple[socket.AddressFamily, tuple[Any, ...]]

log = structlog.get_logger()


def open_sockets(settings: ApiSettings) -> list[socket.socket]:
    """Return the sockets to listen on; of several processes, once in each of them.

    Their parent does not return but ends when all of them have.
    """
    if settings.processes > 1 and sys.platform != "linux":
        sys.exit(
            "Rejoin cannot start: API_PROCESSES above 1 needs Linux, "
            "since other kernels do not spread connections over processes"
        )
    with contextlib.ExitStack() as claims:
        try:
            addresses = _resolve(settings.host, settings.port)
            if settings.processes == 1:
                return [_bind(family, address, shared=False) for family, address in addresses]
            claims.enter_context(claim(addresses))
            return _Parent(addresses, settings.processes, claims).watch()
        except OSError as error:
            sys.exit(f"Rejoin cannot start: {settings.host}:{settings.port}: {error.strerror}")


@contextlib.contextmanager
def claim(addresses: Iterable[Address]) -> Iterator[None]:
    """Refuse addresses that somebody listens on, and keep all others off them until the end.

    Sockets with SO_REUSEPORT let each other in, those of a second parent too. So a parent listens
    first without it, which Linux grants to one; beside that it binds what it keeps. As long as
    this is bound, whoever comes without SO_REUSEPORT is refused, though nobody listens.

    Raises:
        OSError: they cannot be had.
    """
    with contextlib.ExitStack() as held:
        for family, address in addresses:
            with _bind(family, address, shared=False) as first:
                first.listen()
                first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                kept = held.enter_context(_bind(family, address, shared=True))
                # Bound by both for what an earlier process left in TIME_WAIT. From now on it would
                # let in who means to listen later, and uvloop does not say where that fails.
                kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield


def _resolve(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, *_, address in found))


def _bind(family: socket.AddressFamily, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    """Open a socket that does not listen yet: nothing is sent to a process that still starts."""
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


class _Parent:
    """Keeps as many processes as there are places."""

    def __init__(self, addresses: list[Address], places: int, claims: contextlib.ExitStack) -> None:
        self._addresses = addresses
        self._claims = claims
        self._pid = os.getpid()
        self._due = [0.0] * places
        """When each empty place is to be filled."""
        self._started: dict[int, float] = {}
        """When each process that runs was started."""
        self._first: frozenset[int] | None = None
        """The processes that were started first; None until they are."""
        self._ending = False
        self._status = 0

    def watch(self) -> list[socket.socket]:
        """Return in a process that was started; end with the last of them.

        Raises:
            OSError: not even the first could be started.
        """
        # Blocked, they wait until they are asked for: none can slip in before a wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_TOLD, signal.SIGCHLD})
        while self._started or self._due:
            for due in [due for due in self._due if due <= time.monotonic()]:
                self._due.remove(due)
                if (sockets := self._start()) is not None:
                    return sockets
            if self._first is None:
                self._first = frozenset(self._started)
            wait_s = max(0.0, min(self._due) - time.monotonic()) if self._due else _LONG_S
            told = signal.sigtimedwait({*_TOLD, signal.SIGCHLD}, wait_s)
            if told is not None and told.si_signo in _TOLD:
                self._end(signal.Signals(told.si_signo))
            self._bury()
        sys.exit(self._status)

    def _start(self) -> list[socket.socket] | None:
        """Return the sockets in the process that this starts, None in the parent."""
        with contextlib.ExitStack() as opened:
            try:
                sockets = [
                    opened.enter_context(_bind(family, address, shared=True))
                    for family, address in self._addresses
                ]
                pid = os.fork()
            except OSError as error:
                if self._first is None:
                    raise
                log.error("process_not_started", reason=error.strerror)  # noqa: TRY400 - tried again
                self._due.append(time.monotonic() + PAUSE_S)
                return None
            if pid == 0:
                opened.pop_all()
                self._leave()
                return sockets
        self._started[pid] = time.monotonic()
        return None

    def _leave(self) -> None:
        """Runs in a new process: to be told as if it were alone, and not to outlive its parent."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._pid:
            sys.exit(1)
        # A terminal's Ctrl-C is handed on: told twice, uvicorn would not drain.
        os.setpgid(0, 0)
        for told in _TOLD:  # until the server is there to drain
            signal.signal(told, lambda *_: sys.exit(0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_TOLD, signal.SIGCHLD})

    def _end(self, told: signal.Signals) -> None:
        """Have all drain, as each does alone. Another parent may have the port from now on."""
        self._ending = True
        self._due.clear()
        self._claims.close()
        for pid in self._started:
            os.kill(pid, told)

    def _bury(self) -> None:
        while self._started:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if (started := self._started.pop(pid, None)) is None:
                continue  # adopted: we may be the first process of a container
            code = os.waitstatus_to_exitcode(status)
            if code == STARTUP_FAILURE and pid in (self._first or ()):
                self._end(signal.SIGTERM)
            if -code in _TOLD:
                code = 0  # told once more behind its drain, where Python has no handlers left
            if self._ending:
                self._status = max(self._status, code if code >= 0 else 128 - code)
            else:
                log.error("process_ended", pid=pid, code=code)
                self._due.append(started + PAUSE_S)
