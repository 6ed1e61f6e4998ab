"""One line of the benchmark: a question, the way to measure it, and what came of it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    runs: int
    per_run: int


FULL = Scale(runs=3, per_run=200)
QUICK = Scale(runs=3, per_run=20)


@dataclass(slots=True)
class Result:
    """What a line found: a table for people, data for programs, and what makes it worthless."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    data: Mapping[str, Any]
    failures: Sequence[str] = field(default_factory=tuple)
    """Why the figures do not mean what they seem to; any of them fails the benchmark."""

    def markdown(self) -> str:
        """The table, then the notes."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = [f"| {' | '.join(cells)} |" for cells in lines]
        return "\n".join([*table, "", *self.notes])


@dataclass(frozen=True, slots=True)
class Line:
    """A question and how to answer it."""

    name: str
    question: str
    measure: Callable[[Scale], Coroutine[Any, Any, Result]]
