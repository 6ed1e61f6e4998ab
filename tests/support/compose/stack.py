"""The Compose project under test, and its edge."""

import asyncio
import json
import os
import shlex
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[3]
PROJECT = "rejoin-exercise"
API_REPLICAS = 2
WORKERS = 4

BUILD_AND_START_S = 900.0
HEALTHY_S = 90.0


async def pause(seconds: float) -> None:
    """Let some time pass."""
    loop = asyncio.get_running_loop()
    over_at = loop.time() + seconds
    await wait_until(lambda: loop.time() >= over_at, "a pause to end", seconds + 10)


@dataclass(frozen=True, slots=True)
class Stack:
    """The Compose project, and its edge."""

    compose: tuple[str, ...]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(
        self, *command: str, timeout_s: float = 120.0, stderr: int = PIPE, **more: str
    ) -> str:
        """Run a command beside the compose file; its output. Raises: RuntimeError, TimeoutError."""
        # Set but empty: not even what `.env` holds.
        without_model = dict.fromkeys(("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"), "")
        env = {**os.environ, **without_model, "API_PORT": str(self.port), **more}
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=env,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=stderr,
        )
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
        if process.returncode:
            said = (err or out).decode(errors="replace")[-2000:]
            raise RuntimeError(f"{shlex.join(command)}: {said}")
        return out.decode(errors="replace")

    async def up(self, *options: str) -> None:
        scale = ("--scale", f"worker={WORKERS}")
        command = (*self.compose, "-p", PROJECT, "up", "-d", *options, *scale)
        await self.run(*command, timeout_s=BUILD_AND_START_S)

    async def down(self) -> None:
        await self.run(*self.compose, "-p", PROJECT, "down", "--volumes", "--remove-orphans")

    async def containers(self, service: str = "") -> list[dict[str, Any]]:
        """`docker inspect` of the project's containers, by name."""
        named = (f"label=com.docker.compose.service={service}",) if service else ()
        filters = (f"label=com.docker.compose.project={PROJECT}", *named)
        options = [part for each in filters for part in ("--filter", each)]
        ids = (await self.run("docker", "ps", "-aq", *options)).split()
        found = json.loads(await self.run("docker", "inspect", *ids)) if ids else []
        return sorted(found, key=lambda container: str(container["Name"]))

    async def first(self, service: str) -> str:
        """The id of a service's first running container."""
        running = [c for c in await self.containers(service) if c["State"]["Running"]]
        return str(running[0]["Id"])

    async def busiest_worker(self, generations: Set[str]) -> tuple[str, frozenset[str]]:
        """The worker that began most of `generations`, by its log: its id, and which they are."""
        begun: dict[str, frozenset[str]] = {}
        for container in await self.containers("worker"):
            if container["State"]["Running"]:
                logged = await self.run("docker", "logs", container["Id"], stderr=STDOUT)
                lines = (json.loads(line) for line in logged.splitlines() if line.startswith("{"))
                started = (line for line in lines if line["event"] == "attempt_started")
                begun[container["Id"]] = frozenset(x["generation"] for x in started) & generations
        busiest = max(begun, key=lambda worker: len(begun[worker]))
        return busiest, begun[busiest]

    async def health(self) -> dict[str, str]:
        """What docker calls each container, by id."""
        return {
            c["Id"]: c["State"].get("Health", {}).get("Status") for c in await self.containers()
        }

    async def wait_healthy(self) -> None:
        expected = {"nginx": 1, "api": API_REPLICAS, "worker": WORKERS, "standin": 1, "redis": 1}

        async def healthy() -> bool:
            counts = dict.fromkeys(expected, 0)
            for container in await self.containers():
                service = container["Config"]["Labels"]["com.docker.compose.service"]
                state = container["State"]
                counts[service] += state.get("Health", {}).get("Status") == "healthy"
            return counts == expected

        await wait_until(healthy, f"healthy containers: {expected}", HEALTHY_S)

    async def ledger(self) -> dict[str, Any]:
        """What the stand-in was asked; it is not published, so it is read from within."""
        script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8001/ledger').read().decode())"
        standin = await self.first("standin")
        ledger = json.loads(await self.run("docker", "exec", standin, "python", "-c", script))
        assert isinstance(ledger, dict)
        return ledger

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One JSON call through the edge. Raises: HTTPError, URLError."""

        def send() -> Any:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310
            with urlopen(request, timeout=10) as response:  # noqa: S310
                return json.load(response)

        return await asyncio.to_thread(send)
