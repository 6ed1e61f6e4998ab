"""Processes start with the environment given, are seen to be ready, and always end."""

import os
import signal

import pytest

from tests.support.follower import Follower
from tests.support.process_table import children_of, process_state
from tests.support.processes import REPOSITORY, Process, free_port, open_process
from tests.support.wait import wait_until

WEB = "http.server"


def web_args(port: int) -> list[str]:
    return ["--bind", "127.0.0.1", str(port)]


async def test_process_is_ready_when_its_url_answers_200() -> None:
    """The body runs only once the URL answers; afterwards the process is gone."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    async with open_process(WEB, {}, url, args=web_args(port)) as process:
        async with Follower(url, "") as answer:
            assert answer.status == 200
        assert process.pid in [row.pid for row in children_of(os.getpid())]
    assert process.returncode == -signal.SIGKILL
    assert process_state(process.pid) is None


async def test_process_is_ready_when_it_logs_the_line() -> None:
    """A text in its output will do as well; stdout and stderr are both kept."""
    port = free_port()
    async with (
        open_process(WEB, {}, "Serving HTTP", args=web_args(port)) as process,
        Follower(f"http://127.0.0.1:{port}", "/pyproject.toml"),
    ):
        assert "GET /pyproject.toml" in await process.wait_logged("GET")


async def test_process_that_ends_early_fails_with_its_last_lines() -> None:
    """Waiting for what will never be ready stops at once and shows why."""
    with pytest.raises(AssertionError, match="No module named no_such_module"):
        async with open_process("no_such_module", {}, "ready"):
            pass
    with pytest.raises(AssertionError, match="No module named no_such_module"):
        async with open_process("no_such_module", {}, f"http://127.0.0.1:{free_port()}/"):
            pass


async def test_process_gets_the_given_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell sets does not reach the process; it runs in the repository."""
    monkeypatch.setenv("REDIS_URL", "redis://production")
    process = Process(["/usr/bin/env"], {"GREETING": "hello"})
    try:
        assert await process.wait() == 0
        await wait_until(lambda: "GREETING=hello" in process.lines, "the environment")
        assert [line for line in process.lines if "REDIS_URL" in line] == []
    finally:
        process.end()
    where = Process(["/bin/pwd"])
    assert await where.wait() == 0
    where.end()
    assert where.lines == [str(REPOSITORY)]


async def test_terminated_process_reports_the_signal() -> None:
    """SIGTERM without a handler ends a process with minus fifteen."""
    async with open_process(WEB, {}, "Serving HTTP", args=web_args(free_port())) as process:
        process.terminate()
        assert await process.wait() == -signal.SIGTERM


async def test_frozen_process_stands_still_and_can_be_thawed_or_killed() -> None:
    """SIGSTOP shows in the process table; SIGCONT undoes it; SIGKILL works all the same."""
    async with open_process(WEB, {}, "Serving HTTP", args=web_args(free_port())) as process:
        process.freeze()
        assert process_state(process.pid) == "T"
        process.thaw()
        await wait_until(lambda: process_state(process.pid) != "T", "the process to go on")
        process.freeze()
        process.kill()
        assert process.returncode == -signal.SIGKILL


async def test_process_that_writes_a_lot_never_blocks() -> None:
    """A megabyte of output does not stop at a full pipe."""
    process = Process(["/usr/bin/seq", "200000"])
    try:
        assert await process.wait() == 0
        await wait_until(lambda: len(process.lines) == 200_000, "all lines")
    finally:
        process.end()


def test_free_ports_differ_and_lie_below_the_ephemeral_range() -> None:
    """No port is given twice, and none can be an outgoing connection's own."""
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < 32_768
