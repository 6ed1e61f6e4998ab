"""The load: a writer that appends, followers that read, each a process of its own."""

import json
import resource
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.delivery.programs import Programs
from tests.support.processes import Process

PATIENCE_S: Final = 60.0

AT_ONCE: Final = 200
"""Connections that are opened at a time, where it is not the opening that is measured."""

NEVER: Final = 10**12
"""The number of a token that no log gets."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a follower begins: its cursor, and the number of the token it must get first."""

    cursor: str
    next: int


FROM_THE_BEGINNING: Final = Place("-", 1)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one follower asks for, first and after it was cut."""

    path: str
    place: Place = FROM_THE_BEGINNING
    after_cut: Place = FROM_THE_BEGINNING


@dataclass(frozen=True, slots=True)
class Stream:
    """One log that is written to: its key, and the epoch that is ours."""

    key: str
    epoch: int


class Program:
    """A running program that tells by lines of JSON what happens."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self) -> None:
        """Tell it to go on: a writer begins, followers are cut and come back."""
        self.process.signal(signal.SIGUSR1)

    async def wait_said(self, event: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait for an event, and return it."""
        line = await self.process.wait_logged(f'"event": "{event}"', timeout_s)
        said: dict[str, Any] = json.loads(line)
        return said


class Followers(Program):
    """Clients of one server."""

    async def wait_ready(self) -> float:
        """Return when all have got a head, and how many ms that took."""
        ready = await self.wait_said("ready")
        if ready["refused"]:
            raise AssertionError(f"not everybody was let in: {ready}\n{self.process.output}")
        return float(ready["ms"])

    async def finish(self, grace_s: float) -> dict[str, Any]:
        """Give them `grace_s` for what is still on its way, and have them tell what they saw."""
        try:
            return await self.wait_said("report", grace_s)
        except AssertionError:
            self.process.terminate()
        return await self.wait_said("report")


@contextmanager
def open_program(
    command: Sequence[object], env: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Start a program; killed on the way out."""
    process = Process([str(part) for part in command], env)
    try:
        yield Program(process)
    finally:
        process.end()


@asynccontextmanager
async def open_followers(
    programs: Programs,
    port: int,
    asks: Sequence[Ask],
    *,
    last: int,
    measure_from: int = 1,
    catch_up_to: int = 0,
    at_once: int = AT_ONCE,
) -> AsyncIterator[Followers]:
    """Start them. They end by themselves once each of them has token `last`."""
    path = programs.folder / "asked"
    rows = (
        f"{a.path} {a.place.cursor} {a.place.next} {a.after_cut.cursor} {a.after_cut.next}\n"
        for a in asks
    )
    path.write_text("".join(rows))
    arguments = (port, path, at_once, last, measure_from, catch_up_to)
    with open_program([programs.followers, *arguments]) as program:
        yield Followers(program.process)


@asynccontextmanager
async def open_writer(
    programs: Programs,
    port: int,
    streams: Sequence[Stream],
    *,
    pace: float,
    last: int,
    first: int = 1,
) -> AsyncIterator[Program]:
    """Start it: tokens `first` to `last` for every stream, `pace` a second; 0: no pause."""
    path = programs.folder / "written"
    path.write_text("".join(f"{stream.key} {stream.epoch}\n" for stream in streams))
    with open_program([programs.writer, port, path, pace, first, last]) as program:
        yield program


async def write_at_once(
    programs: Programs, port: int, streams: Sequence[Stream], *, last: int, first: int = 1
) -> dict[str, Any]:
    """Append without a pace, and return what the writer said."""
    async with open_writer(programs, port, streams, pace=0, last=last, first=first) as writer:
        return check_written(await writer.wait_said("ended"))


def check_written(said: dict[str, Any]) -> dict[str, Any]:
    """Raises: AssertionError: Redis refused something."""
    assert said["errors"] == 0, said["first_error"]
    return said


def allow_many_files() -> None:
    """Each follower is an open file, and so is each connection of a server to Redis."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
