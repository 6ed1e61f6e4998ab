"""The process table knows us, and reads both of its sources."""

import os

from tests.support.process_table import (
    ProcessRow,
    children_of,
    parse_ps,
    process_state,
    processes,
)


def test_our_own_process_is_listed_under_our_parent() -> None:
    """We run, we are our parent's child, and the command is ours."""
    own = next(row for row in processes() if row.pid == os.getpid())
    assert own.parent_pid == os.getppid()
    assert "py" in own.command
    assert own.pid in [row.pid for row in children_of(os.getppid())]


def test_absent_process_has_no_state() -> None:
    """A pid nobody has is told from a stopped process."""
    assert process_state(2**30) is None


def test_listing_of_ps_is_understood() -> None:
    """macOS has no /proc: states with flags, commands with spaces and none at all."""
    listing = "    1     0 Ss   /sbin/launchd\n  512     1 T+   redis-server *:7 [x]\n  9 512 Z\n"
    assert parse_ps(listing) == [
        ProcessRow(1, 0, "S", "/sbin/launchd"),
        ProcessRow(512, 1, "T", "redis-server *:7 [x]"),
        ProcessRow(9, 512, "Z", ""),
    ]
