"""The count of what held, and the figures of each round."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Verdict:
    """What was checked, said at once on stdout."""

    passed: int = 0
    failed: int = 0
    figures: list[dict[str, object]] = field(default_factory=list)
    """One row for each round."""

    def check(self, holds: bool, sentence: str, detail: object = "") -> None:
        self.passed += holds
        self.failed += not holds
        mark = "ok    " if holds else "FAILED"
        print(f"{mark} {sentence}{f': {detail}' if detail else ''}", flush=True)

    def table(self) -> str:
        """The figures, as Markdown has tables."""
        rows = [list(self.figures[0]), ["---"] * len(self.figures[0])] if self.figures else []
        rows += [[str(value) for value in figures.values()] for figures in self.figures]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
