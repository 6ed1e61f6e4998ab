"""Real processes under test: started by argument list, addressed by pid, always ended.

async with open_process("api", {"REDIS_URL": url, "PORT": str(port)}, ready=base) as api:
    api.kill()                      # SIGKILL
    assert await api.wait() == -9
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.follower import Follower
from tests.support.process_table import process_state
from tests.support.wait import DEFAULT_TIMEOUT_S, wait_until, wait_until_blocking

REPOSITORY = Path(__file__).resolve().parents[2]

# Below every platform's ephemeral range (Linux 32768 to 60999, macOS 49152 to 65535). Inside it, a
# client that keeps dialling a server we just killed is sooner or later given that very port as
# its own and connects to itself (TCP simultaneous open); the server then cannot come back.
_PORTS = range(20_000, 32_000)
_given_ports: set[int] = set()

# A developer's shell must not configure the processes under test: only this much is inherited.
_INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "VIRTUAL_ENV")

_LINES_SHOWN = 40
_DRAINED_S = 1.0


def free_port() -> int:
    """A loopback TCP port nobody listens on, never given twice by this test run."""
    for _ in range(1_000):
        port = random.choice(_PORTS)
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_ports.add(port)
        return port
    raise AssertionError(f"no free port found in {_PORTS}")


def process_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """`extra` on top of the little that a process needs from ours."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, "PYTHONUNBUFFERED": "1", **extra}


class Process:
    """One run of one program. stdout and stderr are drained into `lines` by a thread."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, *, cwd: Path = REPOSITORY
    ) -> None:
        self.argv = list(argv)
        self.lines: list[str] = []
        self._popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=process_environment(env or {}),
            cwd=cwd,
            text=True,
            errors="replace",
        )
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()

    def __repr__(self) -> str:
        return f"<Process {self.pid} {' '.join(self.argv)} returncode={self.returncode}>"

    def _drain(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal's number if one ended it; None while it runs."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    @property
    def output(self) -> str:
        """The last lines it wrote, for messages; of an ended process, its very last."""
        if not self.running:
            self._drainer.join(timeout=_DRAINED_S)  # bounded: a grandchild may hold the pipe
        return "\n".join(self.lines[-_LINES_SHOWN:])

    def signal(self, number: signal.Signals) -> None:
        """Send one signal; a process that already ended is left alone (its pid is not ours)."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and reap. Also ends a frozen process."""
        self.signal(signal.SIGKILL)
        self._popen.wait()

    def terminate(self) -> None:
        """SIGTERM; see `wait` for the end."""
        self.signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP; returns once the kernel says that it stands still."""
        self.signal(signal.SIGSTOP)
        wait_until_blocking(lambda: process_state(self.pid) == "T", f"{self} to be stopped")

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    async def wait(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> int:
        """Wait for the end and return the exit status."""
        try:
            await wait_until(lambda: not self.running, f"{self} to end", timeout_s)
        except AssertionError as error:
            error.add_note(self.output)
            raise
        return self._popen.wait()

    async def wait_logged(self, text: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> str:
        """Wait for a line that contains `text` and return it."""

        def found() -> str | None:
            line = next((line for line in self.lines if text in line), None)
            if line is None and not self.running and not self._drainer.is_alive():
                raise AssertionError(f"{self} ended without logging {text!r}:\n{self.output}")
            return line

        return await wait_until(found, f"{self} to log {text!r}", timeout_s)

    async def wait_serving(self, url: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait until a GET of `url` answers 200."""

        async def serving() -> bool:
            if not self.running:
                raise AssertionError(f"{self} ended before it answered at {url}:\n{self.output}")
            try:
                async with Follower(url, "") as answer:
                    return answer.status == 200
            except ConnectionError:
                return False

        await wait_until(serving, f"{self} to answer 200 at {url}", timeout_s)

    def end(self) -> None:
        """Kill if still running, reap, and let the log thread finish."""
        self.kill()
        self._drainer.join(timeout=_DRAINED_S)


@asynccontextmanager
async def open_process(
    module: str,
    env: Mapping[str, str],
    ready: str | None = None,
    *,
    args: Sequence[str] = (),
    timeout_s: float = 20.0,
) -> AsyncIterator[Process]:
    """Run `python -m module` from the root of the repository; killed on the way out.

    `ready` is what to wait for: an http:// URL that must answer 200, or a text that must appear
    in a line it logs. A failure to become ready shows its last lines.
    """
    process = Process([sys.executable, "-m", module, *args], env)
    try:
        if ready is not None and ready.startswith("http://"):
            await process.wait_serving(ready, timeout_s)
        elif ready is not None:
            await process.wait_logged(ready, timeout_s)
        yield process
    finally:
        process.end()
