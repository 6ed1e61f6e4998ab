"""On what the figures were taken: without it they say nothing."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.processes import REPOSITORY
from tests.support.redis_server import server_binary

_LIBRARIES = ("arq", "redis", "fastapi", "uvicorn", "sse-starlette", "openai")


def describe_machine() -> dict[str, Any]:
    """Processor, cores we may use, versions, and how busy it was before we began."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "server": _first_line(server_binary("valkey"), "--version"),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "commit": _first_line("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"),
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def machine_sentence(machine: dict[str, Any]) -> str:
    """The same in one line."""
    libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
    busy = machine["load_before"] > (machine["cores"] or 1) / 2
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; Python"
        f" {machine['python']}; {machine['server']}; {libraries}; commit {machine['commit']},"
        f" {machine['taken_at']}, load {machine['load_before']} before the start"
        f"{': NOT IDLE, do not quote the p99' if busy else ''}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _first_line(*command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return (ran.stdout or "unknown").splitlines()[0].strip()
