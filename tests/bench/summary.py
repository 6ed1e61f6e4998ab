"""Many numbers as a few: percentiles of a run, and their spread over the runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not below `percent` of all (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, ceil(len(ranked) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure of every run: the one in the middle, and how far the others lie from it."""

    middle: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.middle:.1f} ({self.least:.1f} to {self.most:.1f})"


def spread(runs: Sequence[Sequence[float]], percent: float) -> Spread:
    """The percentile of each run, and their spread."""
    figures = [percentile(run, percent) for run in runs]
    return Spread(median(figures), min(figures), max(figures))
