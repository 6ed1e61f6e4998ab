"""The events of a generation: their names, their one-line JSON, and what they fold to.

| type | data | meaning to a client |
|---|---|---|
| `queued` | `{}` | accepted; the first entry, written by the API |
| `started` | `{attempt, model, resume, prev}` | an attempt begins; informative |
| `token` | `{text}` | append this text |
| `reset` | `{}` | forget everything so far |
| `reasoning`, `refusal` | `{text}` | the provider's other texts |
| `tool_call` | `{index, id?, name?, arguments}` | a piece of a tool call |
| `retrying` | `{attempt, reason, delay_ms}` | informative |
| `done` | `{finish_reason, usage}` | closing event |
| `cancelled` | `{usage?}` | closing event; the partial text stands |
| `failed` | `{code, message, retryable, usage?}` | closing event; the partial text stands |

An entry that opens an epoch (`started`, or a closing event by a take-over) also has `prev`, the id
of the entry it stands on. A log has exactly one closing event and it is last.
`heartbeat` and `reconnect` exist on the wire only: they have no id and are in no log.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from shared.ids import BEGINNING, EntryId, decode_entry_id, parse_entry_id

TYPE_FIELD: Final = b"t"
DATA_FIELD: Final = b"d"


class EventType(StrEnum):
    """What an entry of a log says."""

    QUEUED = "queued"
    STARTED = "started"
    TOKEN = "token"  # noqa: S105 - a model token
    RESET = "reset"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOL_CALL = "tool_call"
    RETRYING = "retrying"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


CLOSING: Final = frozenset({EventType.DONE, EventType.CANCELLED, EventType.FAILED})
"""The events that end a log."""

JOINABLE: Final = frozenset({EventType.TOKEN, EventType.REASONING, EventType.REFUSAL})
"""The events of which two neighbours say the same as one with both texts."""

_TYPES: Final = {t.value.encode(): t for t in EventType}


class Entry(NamedTuple):
    """One entry of a log. `data` is one line of JSON in UTF-8, framed as it is."""

    id: EntryId
    type: EventType
    data: bytes


Row = tuple[bytes, Any]
"""An id, and `[t, type, d, data]` or the same as a dict."""

_new: Final = tuple.__new__
"""As EntryId(…) or Entry(…), in half the time: followers are given entries by the million."""


class Run(NamedTuple):
    """Neighbouring entries of one epoch, of which no id is missing: only the first one is kept."""

    first: EntryId
    types: list[EventType]
    data: list[bytes]

    @property
    def last_id(self) -> EntryId:
        """The id of its last entry."""
        epoch, seq = self.first
        return _new(EntryId, (epoch, seq + len(self.data) - 1))

    @property
    def predecessor(self) -> EntryId:
        """See `predecessor`, of its first entry."""
        return predecessor(Entry(self.first, self.types[0], self.data[0]))

    def entries(self) -> list[Entry]:
        """Return its entries, which are at least one."""
        epoch, start = self.first
        return [
            _new(Entry, (_new(EntryId, (epoch, seq)), kind, data))
            for seq, (kind, data) in enumerate(zip(self.types, self.data, strict=True), start)
        ]


class Event(NamedTuple):
    """One event that has no id yet: what a provider said, before the writer encodes it."""

    type: EventType
    data: dict[str, Any]


def encode_data(data: dict[str, Any]) -> bytes:
    """Return `data` as one line of JSON. Lone surrogates, which UTF-8 lacks, are escaped."""
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(data, separators=(",", ":")).encode()


def decode_data(data: bytes) -> dict[str, Any]:
    """Read what `encode_data` wrote. Raises: ValueError, TypeError."""
    decoded: dict[str, Any] = json.loads(data)
    if type(decoded) is not dict:
        raise TypeError("no object")
    return decoded


def decode_entries(rows: Sequence[Row]) -> list[Entry]:
    """Read neighbouring entries of a log as Redis returns them, in its order."""
    return [entry for run in decode_runs(rows) for entry in run.entries()]


def decode_runs(rows: Sequence[Row]) -> list[Run]:
    """Read the same as runs: nearly always it is one.

    Ids rise: where the first and the last are of one epoch and as far apart as there are rows
    between them, no id in between can be another than the next one, and none is read.
    What begins an epoch must say what it stands on. Raises: one of `connections.GARBLED`.
    """
    if not rows:
        return []
    if isinstance(rows[0][1], dict):
        rows = [(raw, (b"", fields[TYPE_FIELD], b"", fields[DATA_FIELD])) for raw, fields in rows]
    first = epoch, seq = decode_entry_id(rows[0][0])
    types = [_TYPES[fields[1]] for _, fields in rows]
    data = [fields[3] for _, fields in rows]
    if rows[-1][0] == b"%d-%d" % (epoch, seq + len(rows) - 1):
        runs = [Run(first, types, data)]
    else:
        ids = [decode_entry_id(raw) for raw, _ in rows]
        runs = gather_runs(map(Entry, ids, types, data))
    for run in runs:
        if run.first.seq == 0:
            _ = run.predecessor
    return runs


def gather_runs(entries: Iterable[Entry]) -> list[Run]:
    """Return entries in order of id as the runs that they are."""
    runs: list[Run] = []
    expected: EntryId | None = None
    for entry_id, kind, data in entries:
        if entry_id == expected:
            runs[-1].types.append(kind)
            runs[-1].data.append(data)
        else:
            runs.append(Run(entry_id, [kind], [data]))
        expected = entry_id.successor
    return runs


def drop_known(runs: list[Run], known: EntryId) -> list[Run]:
    """Return what of `runs` lies beyond `known`."""
    if not runs or runs[0].first > known:
        return runs
    return gather_runs(entry for run in runs for entry in run.entries() if entry.id > known)


def predecessor(entry: Entry) -> EntryId:
    """Return the id of the entry that `entry` stands on: nothing lies between the two.

    Within an epoch ids are dense; the first entry of an epoch names it. One that fails to stands
    on nothing: its own id is returned, which is no predecessor.
    """
    if entry.id.seq > 0:
        return EntryId(entry.id.epoch, entry.id.seq - 1)
    if entry.type is EventType.QUEUED:
        return BEGINNING
    prev = decode_data(entry.data).get("prev")
    return parse_entry_id(prev) if prev else entry.id


@dataclass(slots=True)
class ToolCall:
    """A tool call as far as it has been said."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """What a log folds to: append on text, forget on `reset`, end on a closing event."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    last_id: EntryId = BEGINNING
    closing: EventType | None = None
    closing_data: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether a client has nothing it would have to forget."""
        return not (self.text or self.reasoning or self.refusal or self.tool_calls)


def fold(entries: Iterable[Entry], answer: Answer | None = None) -> Answer:
    """Fold `entries` onto `answer`; what a correct client holds after reading them."""
    answer = answer or Answer()
    texts: dict[EventType, list[str]] = {t: [] for t in JOINABLE}
    for entry in entries:
        answer.last_id = entry.id
        if entry.type in JOINABLE:
            texts[entry.type].append(decode_data(entry.data)["text"])
        elif entry.type is EventType.RESET:
            for pieces in texts.values():
                pieces.clear()
            answer.text = answer.reasoning = answer.refusal = ""
            answer.tool_calls.clear()
        elif entry.type is EventType.TOOL_CALL:
            _fold_tool_call(answer.tool_calls, decode_data(entry.data))
        elif entry.type in CLOSING:
            answer.closing, answer.closing_data = entry.type, decode_data(entry.data)
    answer.text += "".join(texts[EventType.TOKEN])
    answer.reasoning += "".join(texts[EventType.REASONING])
    answer.refusal += "".join(texts[EventType.REFUSAL])
    return answer


def _fold_tool_call(calls: dict[int, ToolCall], piece: dict[str, Any]) -> None:
    call = calls.setdefault(piece["index"], ToolCall(piece["index"]))
    call.id = piece.get("id") or call.id
    call.name = piece.get("name") or call.name
    call.arguments += piece.get("arguments", "")
