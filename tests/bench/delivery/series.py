"""Turns of one arm under one load, over all runs: what is worth showing, and what is not."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from tests.bench.delivery.load import allow_many_files
from tests.bench.delivery.node import install_node_project
from tests.bench.delivery.oracle import check_followers
from tests.bench.delivery.programs import build_programs
from tests.bench.delivery.stages import REJOIN, Arm, Bench, Load
from tests.bench.delivery.turn import REDIS, Turn
from tests.bench.line import FULL as FULL_SCALE
from tests.bench.line import Scale
from tests.bench.process_cost import share_out_cores
from tests.bench.table import cell

NOTHING: Final = "-"


@asynccontextmanager
async def open_bench() -> AsyncIterator[Bench]:
    """Share out the cores, build the load and see that it works, install what npm brings."""
    allow_many_files()
    with share_out_cores() as cores, build_programs() as programs, install_node_project() as node:
        await check_followers(programs)
        yield Bench(cores, programs, node)


@dataclass(slots=True)
class Series:
    """One arm under one load."""

    arm: Arm
    load: Load
    turns: list[Turn] = field(default_factory=list)

    @property
    def worth(self) -> list[Turn]:
        """The turns that say something of the server."""
        return [turn for turn in self.turns if turn.worthless is None]

    @property
    def name(self) -> str:
        """For people who look for what went wrong."""
        return f"{self.arm.name}, {self.load.followers:,} followers of {self.load.logs:,} logs"

    def cell(self, what: Callable[[Turn], float], spec: str) -> str:
        """Median, least and most of what every run says."""
        turns = self.worth
        return cell([what(turn) for turn in turns], spec) if turns else NOTHING

    def redis_cell(self, what: Callable[[Turn], float], spec: str) -> str:
        """The same of an arm that has a Redis."""
        return self.cell(what, spec) if self.has_redis else NOTHING

    @property
    def has_redis(self) -> bool:
        """Whether the arm needs one."""
        return any(REDIS in turn.whole.busy for turn in self.turns)

    @property
    def arrival(self) -> str:
        """What became of the tokens."""
        turns = self.worth
        if not turns:
            return f"discarded: {self.turns[0].worthless}"
        gone = len(self.turns) - len(turns)
        discarded = f"; {gone} of {len(self.turns)} runs discarded" if gone else ""
        if all(turn.is_sound for turn in turns):
            return f"all, once, in order{discarded}"
        share = median(turn.arrived for turn in turns)
        wrong = {
            name.replace("_", " "): max(int(turn.seen[name]) for turn in turns)
            for name in ("duplicates", "wrong_ids", "lost")
        }
        told = [f"{most:,} {name}" for name, most in wrong.items() if most]
        return ", ".join([f"{share:.1%} in time", *told]) + discarded

    def carries(self, bound_ms: float) -> bool:
        """Whether the middle run's p99 is within the bound and every run is sound."""
        turns = self.worth
        return (
            bool(turns)
            and all(turn.is_sound for turn in turns)
            and median(turn.p99_ms for turn in turns) <= bound_ms
        )

    def find_worthless(self) -> Iterator[str]:
        """What makes these figures say something else than they seem to.

        A baseline may lose a run, which its row then says, but not all of them.
        """
        for run, turn in enumerate(self.turns):
            if turn.worthless is not None and (self.arm is REJOIN or not self.worth):
                yield f"{self.name}, run {run}: discarded: {turn.worthless}"

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "arm": self.arm.name,
            "logs": self.load.logs,
            "followers": self.load.followers,
            "pace": self.load.pace,
            "tokens": self.load.tokens,
            "turns": [turn.data() for turn in self.turns],
        }


def describe_sides(bench: Bench) -> list[str]:
    """What ran where, and which versions."""
    tested, rest = (
        ", ".join(str(core) for core in sorted(cores))
        for cores in (bench.cores.tested, bench.cores.rest)
    )
    notes = [
        f"The server has core {tested} for itself; Redis, writer, followers and bench share"
        f" {rest}, the other core. The producer of `resumable-stream`, which publishes by itself"
        " instead of our writer, is among them. Where that core is full, the latency is an upper"
        " bound: what is tested had to wait for what tests it."
    ]
    if bench.node is None:
        notes.append("Without `resumable-stream`: no Node here.")
    else:
        notes.append(f"{bench.node.versions}.")
    return notes


def runs_of(scale: Scale) -> int:
    """How often everything is measured: once is enough to see that it works."""
    return scale.runs if scale == FULL_SCALE else 1


def say(text: str) -> None:
    """Tell whoever waits what is being done."""
    print(text, file=sys.stderr, flush=True)


def arms_here(bench: Bench, arms: Sequence[Arm]) -> list[Arm]:
    """Without those that need what this machine lacks."""
    return [arm for arm in arms if bench.node is not None or not arm.needs_node]
