"""`make run`, as a newcomer types it: everything starts, stays up, and leaves nothing."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.process_table import ProcessRow, process_state, processes
from tests.support.processes import Process, free_port
from tests.support.wait import wait_until, wait_until_blocking

# Several Python processes import their dependencies at once, on a machine that may be busy.
START_TIMEOUT_S = 60.0
# Idle workers end at once, but supervisor looks only once a second, and stops in three steps.
STOP_TIMEOUT_S = 30.0
KEY = "sk-never-shown"

# A session of its own, as a terminal gives it, so that Ctrl-C can be sent to the whole group.
IN_A_SESSION = "import os; os.setsid(); os.execvp('make', ['make', 'run'])"


class Stack:
    """One `make run` with a port and a folder of its own."""

    def __init__(self, run_dir: Path, **env: str) -> None:
        self.url = f"http://127.0.0.1:{env.setdefault('API_PORT', str(free_port()))}"
        env = {"RUN_DIR": str(run_dir), "OPENAI_API_KEY": "", "REDIS_URL": "", **env}
        self.make = Process([sys.executable, "-c", IN_A_SESSION], env)

    @property
    def output(self) -> str:
        return "\n".join(self.make.lines)

    def wait_up(self) -> None:
        """Wait for the address to be printed."""

        def up() -> bool:
            assert self.make.running, f"make run ended:\n{self.output}"
            return f"Rejoin is up: {self.url}" in self.make.lines

        wait_until_blocking(up, "make run to print its address", START_TIMEOUT_S)

    def processes(self) -> list[ProcessRow]:
        """Everything below make."""
        rows = processes()
        pids = {self.make.pid}
        while found := {row.pid for row in rows if row.parent_pid in pids} - pids:
            pids |= found
        return [row for row in rows if row.pid in pids - {self.make.pid}]

    def pids(self, program: str) -> set[int]:
        """The processes whose command line ends so, or begins so."""
        return {
            row.pid
            for row in self.processes()
            if row.command.endswith(program) or row.command.startswith(program)
        }

    def redis_client(self) -> redis.Redis:
        """A client of the embedded Valkey, by the address that was printed."""
        said = next(line for line in self.make.lines if "starting a Valkey" in line)
        return redis.Redis.from_url(said.split()[-1])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM to make, or Ctrl-C, which a terminal sends to the whole group; wait."""
        if number == signal.SIGINT:
            os.killpg(self.make.pid, signal.SIGINT)
        else:
            self.make.signal(number)
        wait_until_blocking(lambda: not self.make.running, "make run to end", STOP_TIMEOUT_S)


@contextmanager
def open_stack(run_dir: Path, **env: str) -> Iterator[Stack]:
    """A stack that is up; stopped on the way out if the test did not do so itself."""
    stack = Stack(run_dir, **env)
    try:
        stack.wait_up()
        yield stack
        if stack.make.running:
            stack.stop()
    finally:
        print(stack.output)  # shown where a test fails
        if stack.make.running:
            os.killpg(stack.make.pid, signal.SIGKILL)
        stack.make.end()


def is_over(started: list[ProcessRow]) -> bool:
    """Whether they have all ended: what nobody has reaped yet is over too."""
    return all(process_state(row.pid) in (None, "Z") for row in started)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests that do not end it."""
    run_dir = tmp_path_factory.mktemp("run")
    with open_stack(run_dir, OPENAI_BASE_URL="http://127.0.0.1:9/v1") as stack:
        yield stack


async def test_the_printed_address_answers(stack: Stack) -> None:
    """Whoever opens the printed address finds a service that is ready."""
    await stack.make.wait_serving(f"{stack.url}/readyz")


@pytest.mark.parametrize("program", ["-m worker", "-m api", "-m worker.standin", "valkey-server"])
async def test_a_killed_process_comes_back(stack: Stack, program: str) -> None:
    """Whichever process dies is started again, and the service is ready again."""
    before = stack.pids(program)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)

    def came_back() -> bool:
        now = stack.pids(program)
        return victim not in now and len(now) == len(before)

    await wait_until(came_back, f"{program} to come back", START_TIMEOUT_S)
    await stack.make.wait_serving(f"{stack.url}/readyz", START_TIMEOUT_S)


async def test_an_address_without_a_key_is_said_to_be_ignored(stack: Stack) -> None:
    """Who sets a model's address but no key learns that the stand-in answers instead."""
    assert "OPENAI_BASE_URL is ignored, because OPENAI_API_KEY is not set" in stack.make.lines


async def test_a_taken_port_is_refused_in_one_line(stack: Stack, tmp_path: Path) -> None:
    """Where another listens, nothing is started and the line names the port and the way out."""
    port = stack.url.rpartition(":")[2]
    second = Stack(tmp_path / "second", API_PORT=port)
    assert await second.make.wait(START_TIMEOUT_S) != 0
    assert second.make.lines[0] == (
        f"Rejoin cannot start: port {port} on 127.0.0.1 cannot be had (Address already in use); "
        "stop what uses it, or choose another: API_PORT=... make run"
    )
    assert not (tmp_path / "second").exists()


async def test_a_folder_in_use_is_refused(stack: Stack, tmp_path: Path) -> None:
    """Two servers never write one log's files."""
    with open_stack(tmp_path) as first:
        second = Stack(tmp_path)
        assert await second.make.wait(START_TIMEOUT_S) != 0
        assert second.make.lines[0].startswith(f"Rejoin cannot start: another run uses {tmp_path}")
        assert first.make.running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stop_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end every process that was started, and those it started."""
    with open_stack(tmp_path) as stack:
        started = stack.processes()
        stack.stop(number)
        await wait_until(lambda: is_over(started), "all processes to end", STOP_TIMEOUT_S)


async def test_a_killed_launcher_takes_everything_with_it(tmp_path: Path) -> None:
    """Even SIGKILL, which nobody can answer, leaves no process behind."""
    with open_stack(tmp_path) as stack:
        started = stack.processes()
        os.killpg(stack.make.pid, signal.SIGKILL)
        await wait_until(lambda: is_over(started), "all processes to end", STOP_TIMEOUT_S)


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """The embedded Valkey keeps its data: earlier generations can still be shown."""
    with open_stack(tmp_path) as stack, stack.redis_client() as client:
        client.set("kept", "yes", ex=600)
    with open_stack(tmp_path) as stack, stack.redis_client() as client:
        assert client.get("kept") == b"yes"


async def test_with_a_key_no_stand_in_is_started(tmp_path: Path) -> None:
    """A real key is for the real provider: no stand-in runs that could be handed it."""
    with open_stack(tmp_path, OPENAI_API_KEY=KEY, WORKERS="1") as stack:
        assert stack.pids("-m worker.standin") == set()
        assert len(stack.pids("-m worker")) == 1


def test_a_key_is_in_no_command_line_and_no_file(tmp_path: Path) -> None:
    """A key is inherited, never written where others of this machine can read it."""
    with open_stack(tmp_path, OPENAI_API_KEY=KEY, WORKERS="1") as stack:
        assert [row for row in stack.processes() if KEY in row.command] == []
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path for path in files if KEY.encode() in path.read_bytes()] == []
        assert KEY not in stack.output
