"""Bring the compose stack up, follow generations through its edge, and hurt it meanwhile.

    .venv/bin/python -m tests.support.compose.exercise --compose "docker compose"

Needs a Docker daemon on this machine, and the base images: pulled, or made by `make-base-images`.
Uses a Compose project of its own, removed at the end with its volume (`--keep` leaves it), and the
stand-in alone: no key of the environment or of `.env` is used.

Each round asks for some generations, follows each with several clients, and while all of them are
under way does to one container what an operator or an accident would. Then it must hold that every
client was told the same as the snapshot says and as the stand-in meant, in order and closed once,
and that each generation was asked of the model as often as the round allows.
"""

import argparse
import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.event_source import Followed, follow_until_closed
from tests.support.fold import CLOSING_TYPES, fold
from tests.support.follower import Follower
from tests.support.wait import wait_until
from worker.standin import answer, request_key

ROOT = Path(__file__).resolve().parents[3]
PROJECT = "rejoin-exercise"
API_REPLICAS = 2
WORKERS = 4
MARKER_KEY = "a-key-that-only-workers-may-see"

BUILD_AND_START_S = 900.0
HEALTHY_S = 90.0
# A worker's drain and the grace period of its container are 30 s and 35 s.
STOPPED_S = 33.0
# Into an answer, so that it is surely under way, yet has most of its tokens before it.
TOKENS_BEFORE_HURT = 10


@dataclass(slots=True)
class Verdict:
    """What was checked, said at once on stdout."""

    passed: int = 0
    failed: int = 0

    def check(self, holds: bool, sentence: str, detail: object = "") -> None:
        self.passed += holds
        self.failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'} {sentence}{f': {detail}' if detail else ''}")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Stack:
    """The Compose project, and its edge."""

    compose: tuple[str, ...]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(self, *command: str, timeout_s: float = 120.0, **more: str) -> str:
        """Run a command beside the compose file; its output. Raises: RuntimeError, TimeoutError."""
        # Set but empty: not even what `.env` holds.
        without_model = dict.fromkeys(("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"), "")
        env = {**os.environ, **without_model, "API_PORT": str(self.port), **more}
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
        if process.returncode:
            raise RuntimeError(f"{shlex.join(command)}: {err.decode(errors='replace')[-2000:]}")
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


@dataclass(frozen=True, slots=True)
class Round:
    """Something that happens while clients follow."""

    name: str
    hurt: Callable[[Stack], Awaitable[None]]
    asked_once: bool = True
    """Whether no generation may be asked of the model again: nothing of its worker was lost."""
    cuts: bool = False
    """Whether some clients must have lost their connection, or the round hurt nobody."""


async def kill(stack: Stack, service: str) -> None:
    await stack.run("docker", "kill", "--signal", "KILL", await stack.first(service))


async def stop_worker(stack: Stack) -> None:
    """As `compose stop`, an update or a smaller scale does it."""
    await stack.run("docker", "stop", "--time", "35", await stack.first("worker"))


async def restart_redis(stack: Stack) -> None:
    redis = await stack.first("redis")
    await stack.run("docker", "kill", "--signal", "KILL", redis)
    await stack.run("docker", "start", redis)


ROUNDS = (
    Round("an API replica is killed", lambda stack: kill(stack, "api"), cuts=True),
    Round("a worker is told to stop", stop_worker),
    Round("a worker is killed", lambda stack: kill(stack, "worker"), asked_once=False),
    Round("Redis is killed and started again", restart_redis),
)


async def play(stack: Stack, this: Round, options: argparse.Namespace, verdict: Verdict) -> None:
    """One round; leaves the stack whole again."""
    print(f"\n{this.name}: {options.generations} generations, {options.followers} clients each")
    directive = f"[standin tokens={options.tokens} pace={options.pace:g}]"
    prompts = [f"{directive} {this.name}, {n}" for n in range(options.generations)]
    before = len((await stack.ledger())["requests"])
    made = [await stack.call("POST", "/v1/generations", {"prompt": p}) for p in prompts]
    paths = [str(generation["events_url"]) for generation in made]
    timeout_s = 4 * options.tokens / options.pace + 60

    async def follow(path: str) -> Followed | AssertionError:
        try:
            return await follow_until_closed(stack.url, path, timeout_s=timeout_s)
        except AssertionError as error:
            return error

    async with asyncio.TaskGroup() as group:
        clients = [
            [group.create_task(follow(path)) for _ in range(options.followers)] for path in paths
        ]
        await wait_under_way(stack, paths)
        began = time.monotonic()
        await this.hurt(stack)
        hurt_s = time.monotonic() - began

    followed = [[client.result() for client in of_one] for of_one in clients]
    snapshots = [await stack.call("GET", f"/v1/generations/{g['id']}") for g in made]
    entries = (await stack.ledger())["requests"][before:]
    judge(this, prompts, followed, snapshots, entries, verdict)
    if this.hurt is stop_worker:
        states = [container["State"] for container in await stack.containers("worker")]
        codes = [state["ExitCode"] for state in states if not state["Running"]]
        verdict.check(
            hurt_s < STOPPED_S and codes == [0],
            "it drained and ended by itself",
            f"{hurt_s:.1f} s, exit codes {codes}",
        )
    await stack.up("--no-recreate")
    await stack.wait_healthy()


async def wait_under_way(stack: Stack, paths: Sequence[str]) -> None:
    """Until the first tokens of all generations have come."""
    async with AsyncExitStack() as opened:
        for path in paths:
            watcher = await opened.enter_async_context(Follower(stack.url, path))
            while sum(event.type == "token" for event in watcher.events) < TOKENS_BEFORE_HURT:
                await watcher.read_until("token")


def judge(
    this: Round,
    prompts: Sequence[str],
    followed: Sequence[Sequence[Followed | AssertionError]],
    snapshots: Sequence[Mapping[str, Any]],
    entries: Sequence[Mapping[str, Any]],
    verdict: Verdict,
) -> None:
    """Compare what clients saw, what the API tells, what the model was asked."""
    wrong: list[str] = []
    model = str(entries[0]["model"]) if entries else ""
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    for number, (of_one, snapshot) in enumerate(zip(followed, snapshots, strict=True)):
        meant = "".join(answer(model, messages[number]))
        if snapshot["status"] != "done" or snapshot["text"] != meant:
            wrong.append(f"{number}: snapshot is {snapshot['status']}, or not what the model said")
        for client in of_one:
            try:
                if isinstance(client, AssertionError):
                    raise client
                folded = fold(client.events)
            except AssertionError as error:
                wrong.append(f"{number}: {error}")
                continue
            if folded.closing_type != "done" or folded.text != snapshot["text"]:
                wrong.append(f"{number}: a client has {folded.closing_type} and {folded.text!r}")
    clients = [client for of_one in followed for client in of_one if isinstance(client, Followed)]
    verdict.check(
        not wrong,
        "every client has every token once, in order, as the snapshot and the model",
        wrong[:5] or f"{len(clients)} clients, {sum(len(c.events) for c in clients)} events",
    )
    again = sum(client.connections > 1 for client in clients)
    if this.cuts:
        verdict.check(again > 0, "clients lost their connection and came back", again)

    keys = [request_key(model, each) for each in messages]
    asked = dict.fromkeys(keys, 0)
    for entry in entries:
        asked[str(entry["key"])] = asked.get(str(entry["key"]), 0) + 1
    most = max(asked.values(), default=0)
    as_expected = set(asked) == set(keys) and min(asked.values(), default=0) >= 1
    verdict.check(
        as_expected and (most == 1 or not this.asked_once),
        "each generation was asked of the model" + (" once" if this.asked_once else ""),
        f"{len(keys)} generations, {len(entries)} requests, at most {most} for one",
    )


async def check_unbuffered(stack: Stack, verdict: Verdict) -> None:
    """What the model says over two seconds must not arrive in one piece."""
    prompt = "[standin tokens=80 pace=40] slowly"
    made = await stack.call("POST", "/v1/generations", {"prompt": prompt})
    moments: list[float] = []
    async with Follower(stack.url, str(made["events_url"])) as follower:
        async for event in follower:
            moments.append(time.monotonic())
            if event.type in CLOSING_TYPES:
                break
    apart = sum(later - earlier > 0.005 for earlier, later in pairwise(moments))
    spread = moments[-1] - moments[0]
    verdict.check(
        apart >= 40 and spread > 1.5,
        "tokens pass the edge one by one",
        f"{len(moments)} events at {apart + 1} moments over {spread:.1f} s",
    )
    verdict.check(
        follower.headers.get("content-encoding") is None
        and follower.headers.get("x-accel-buffering") == "no",
        "the stream is not compressed, and the next proxy is told not to hold it back",
    )


async def check_refusals(stack: Stack, verdict: Verdict) -> None:
    """What the edge itself must not let pass, and what it must leave to the API."""

    async def status(method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
        try:
            await stack.call(method, path, body)
        except HTTPError as error:
            with error:
                return f"{error.code} {error.headers.get('Content-Type', '').partition(';')[0]}"
        return "2xx"

    for mebibytes, whose in ((1.5, "the API's"), (3, "the edge's")):
        told = await status("POST", "/v1/generations", {"prompt": "x" * int(mebibytes * 2**20)})
        verdict.check(told == "413 application/problem+json", f"too large a body, {whose}", told)
    told = await status("GET", "/metrics")
    verdict.check(told.startswith("404"), "figures are not public", told)


async def check_hardened(stack: Stack, verdict: Verdict) -> None:
    """No container is more than it must be."""
    weak = []
    for container in await stack.containers():
        host, config = container["HostConfig"], container["Config"]
        plain = config["User"] not in ("", "root", "0", "0:0")
        closed = host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
        if not (plain and closed and "no-new-privileges:true" in (host["SecurityOpt"] or ())):
            weak.append(container["Name"])
    verdict.check(not weak, "plain users, read-only, without capabilities", weak)

    command = (*stack.compose, "-p", PROJECT, "config")
    config_text = await stack.run(*command, OPENAI_API_KEY=MARKER_KEY)
    keys = [line.strip() for line in config_text.splitlines() if MARKER_KEY in line]
    verdict.check(len(keys) == 1, "a key is given to one service, the worker", len(keys))


async def main() -> int:
    """Exit code 0 if everything held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compose", default="docker compose", help="docker-compose, or a path")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--followers", type=int, default=3, help="clients per generation")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--pace", type=float, default=40.0, help="tokens per second")
    parser.add_argument("--only", default="", help="rounds whose name has this in it")
    parser.add_argument("--keep", action="store_true", help="leave the stack up")
    options = parser.parse_args()
    stack = Stack(tuple(shlex.split(options.compose)), options.port)
    verdict = Verdict()
    try:
        began = time.monotonic()
        await stack.up("--build")
        await stack.wait_healthy()
        print(f"up and healthy after {time.monotonic() - began:.0f} s, {WORKERS} workers")
        await check_hardened(stack, verdict)
        await check_unbuffered(stack, verdict)
        await check_refusals(stack, verdict)
        for this in ROUNDS:
            if options.only in this.name:
                await play(stack, this, options, verdict)
    finally:
        if not options.keep:
            await stack.down()
    print(f"\n{verdict.passed} passed, {verdict.failed} failed")
    return 1 if verdict.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
