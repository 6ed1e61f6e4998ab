"""What a run was and did, to be read by people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.clients import Reader
from tests.chaos.verdict import CURSOR_LOST, Evidence
from tests.support.fold import RESET_ID
from tests.support.redis_server import Kind


@dataclass(slots=True)
class Report:
    """Counts, and the two longest waits."""

    seed: int
    kind: Kind
    corruptions: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    readers: Counter[str] = field(default_factory=Counter)
    forgotten: Counter[str] = field(default_factory=Counter)
    paid: Counter[int] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    left_alone: int = 0
    longest_outage_s: float = 0.0
    longest_stall_s: float = 0.0
    stall_bound_s: float = 0.0
    longest_silence_s: float = 0.0
    silence_bound_s: float = 0.0

    def add(self, evidence: Evidence, end: str, causes: Sequence[str]) -> None:
        """Count one generation that was judged."""
        self.ends[end] += 1
        for reader in evidence.readers:
            self._add_reader(reader)
        for past in evidence.pasts:
            self.forgotten["generations cut back"] += 1
            self.forgotten["forgotten altogether"] += past.kept is None
            self.forgotten["ends forgotten"] += past.is_closed
            self.forgotten["repaired"] += _is_prefix(past.entries, evidence.log)
        self.forgotten["ends undone"] += len(evidence.undone)
        times = sum(call["tokens_generated"] > 0 for call in evidence.calls)
        self.paid[times] += 1
        if times > 1:
            self.causes.update(causes)
        self.left_alone += evidence.was_left_alone

    def _add_reader(self, reader: Reader) -> None:
        self.readers["readers"] += 1
        self.readers["connections"] += reader.connections
        self.readers["told to begin anew"] += sum(
            event.last_event_id == RESET_ID for event in reader.events
        )
        self.readers["told that it is unknown"] += reader.not_found
        self.readers["cursors lost on the chat surface"] += any(
            event.type == "failed" and CURSOR_LOST in event.data for event in reader.events
        )
        self.longest_silence_s = max(self.longest_silence_s, reader.longest_silence_s)

    def __str__(self) -> str:
        paid = ", ".join(f"{count} x {times}" for times, count in sorted(self.paid.items()))
        return "\n  ".join(
            [
                f"chaos: SEED={self.seed} SERVER={self.kind}",
                f"the judge refused {self.corruptions} corruptions of a calm answer",
                f"faults: {_told(self.hits)}",
                f"{self.ends.total()} generations: {_told(self.ends)}",
                f"readers: {_told(self.readers)}",
                f"Redis forgot: {_told(self.forgotten)}",
                f"calls paid for each: {paid}; more than one because of: {_told(self.causes)}",
                f"{self.left_alone} that nothing happened to, each paid for once at most",
                f"Redis away {self.longest_outage_s:.1f} s at most",
                f"longest stall {self.longest_stall_s:.1f} s of {self.stall_bound_s:.1f} s allowed,"
                f" longest silence for a reader {self.longest_silence_s:.1f} s"
                f" of {self.silence_bound_s:.1f} s",
            ]
        )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"


def _is_prefix(entries: Sequence[object], log: Sequence[object]) -> bool:
    return list(log[: len(entries)]) == list(entries)
