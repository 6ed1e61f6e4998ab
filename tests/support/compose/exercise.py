"""Bring the compose stack up, follow generations through its edge, and hurt it meanwhile.

    .venv/bin/python -m tests.support.compose.exercise --compose "docker compose"

Needs a Docker daemon on this machine, and the base images: pulled, or made by `make-base-images`.
Uses a Compose project of its own, removed at the end with its volume (`--keep` leaves it), and the
stand-in alone: no key of the environment or of `.env` is used.

Each round asks for some generations, follows each with several clients, and while all of them are
under way does to one container what an operator or an accident would. Then it must hold that every
client was told the same as the snapshot says and as the stand-in meant, in order and closed once,
that a reader had to wait no longer than the README says, and that no generation was asked of the
model again but those whose worker was lost.
"""

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.error import HTTPError

from tests.support.compose.judge import Seen, judge
from tests.support.compose.reader import longest_silence
from tests.support.compose.rounds import ROUNDS, Round
from tests.support.compose.stack import PROJECT, WORKERS, Stack
from tests.support.compose.verdict import Verdict
from tests.support.event_source import Followed, follow_until_closed
from tests.support.fold import CLOSING_TYPES, fold
from tests.support.follower import Follower

MARKER_KEY = "a-key-that-only-workers-may-see"
# Characters into an answer: surely under way, and most of it still to come.
TEXT_BEFORE_HURT = 40


async def play(stack: Stack, this: Round, options: argparse.Namespace, verdict: Verdict) -> None:
    """One round; leaves the stack whole again."""
    print(f"\n{this.name}: {options.generations} generations, {options.followers} clients each")
    directive = f"[standin tokens={options.tokens} pace={options.pace:g}]"
    prompts = [f"{directive} {this.name}, {n}" for n in range(options.generations)]
    began = time.monotonic()
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
        silences = [
            group.create_task(longest_silence(stack.url, path, timeout_s=timeout_s))
            for path in paths
        ]
        await wait_under_way(stack, paths)
        anew = await this.hurt(stack, verdict, {str(generation["id"]) for generation in made})

    seen = Seen(
        prompts=prompts,
        followed=[[client.result() for client in of_one] for of_one in clients],
        snapshots=[await stack.call("GET", f"/v1/generations/{g['id']}") for g in made],
        requests=(await stack.ledger())["requests"][before:],
        silences=[silence.result() for silence in silences],
        began=began,
    )
    judge(verdict, this, seen, anew)
    await stack.up("--no-recreate")
    await stack.wait_healthy()


async def wait_under_way(stack: Stack, paths: Sequence[str]) -> None:
    """Until some text of all generations has come."""
    for path in paths:
        async with Follower(stack.url, path) as watcher:
            while len(fold(watcher.events).text) < TEXT_BEFORE_HURT:
                await anext(watcher)


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
    print("\n" + verdict.table())
    print(f"\n{verdict.passed} passed, {verdict.failed} failed")
    return 1 if verdict.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
