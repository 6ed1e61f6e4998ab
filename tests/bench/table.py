"""Cells of a table: the figures of all runs in one."""

from collections.abc import Sequence
from statistics import median


def cell(figures: Sequence[float], spec: str) -> str:
    """The median, and in parentheses the least and the most, each formatted by `spec`."""
    middle, least, most = (format(f, spec) for f in (median(figures), min(figures), max(figures)))
    return f"{middle} ({least} to {most})"
