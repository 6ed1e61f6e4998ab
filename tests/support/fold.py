"""The oracle: what a log says to a client, and what may never be wrong with it.

`fold` reads events as a client would; `check_ids` judges what a client saw, `check_log` what
Redis holds. They raise AssertionError and name the invariant of the design:
I1 no gap · I2 no duplicate · I3 order · I4 exactly one closing event, last ·
I5 nothing of an older epoch after a newer one.

Written against the wire format, without the code under test.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.sse_reader import Event

CLOSING_TYPES = frozenset({"done", "cancelled", "failed"})
WIRE_ONLY_TYPES = frozenset({"heartbeat", "reconnect"})

RESET_ID = "0-0"
"""The id of the `reset` the API sends when a cursor cannot be continued: no entry has it."""

Entry = tuple[bytes, Mapping[bytes, bytes]]
"""One raw entry as redis-py's XRANGE gives it without decoding: (id, {b"t": …, b"d": …})."""


def raw_entries(rows: Iterable[Any]) -> list[Entry]:
    """Rows of XRANGE, whether redis-py made dicts of their fields or left them as they came."""
    return [
        (
            row_id,
            fields
            if isinstance(fields, dict)
            else dict(zip(fields[::2], fields[1::2], strict=True)),
        )
        for row_id, fields in rows
    ]


_ENTRY_ID = re.compile(r"(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """An id taken apart: `<epoch>-<seq>`. The order is the order of the log."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


def position(entry_id: str) -> Position:
    """Parse an id; `<generation>/<epoch>-<seq>`, as /chat/stream writes it, is taken too."""
    found = _ENTRY_ID.fullmatch(entry_id.rpartition("/")[2])
    assert found, f"not an entry id: {entry_id!r}"
    return Position(int(found[1]), int(found[2]))


@dataclass(slots=True)
class ToolCall:
    """One tool call, put together from its deltas."""

    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(slots=True)
class Folded:
    """What a client holds after a number of events.

    Two readers of one log are equal whatever they were spared or told twice over resets: `ids`
    and `attempts` take no part in the comparison.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    closing_type: str | None = None
    closing_data: dict[str, Any] | None = None
    last_event_id: str = ""
    ids: list[str] = field(default_factory=list, compare=False)
    attempts: list[dict[str, Any]] = field(default_factory=list, compare=False)
    """The data of every `started` seen."""

    def forget(self) -> None:
        """`reset`: everything so far, of every kind, is void."""
        self.text = self.reasoning = self.refusal = ""
        self.tool_calls = {}

    def append(self, kind: str, data: dict[str, Any]) -> None:
        """The other verb; a type without content changes nothing."""
        match kind:
            case "token":
                self.text += data["text"]
            case "reasoning":
                self.reasoning += data["text"]
            case "refusal":
                self.refusal += data["text"]
            case "tool_call":
                call = self.tool_calls.setdefault(data["index"], ToolCall())
                call.id = data.get("id") or call.id
                call.name = data.get("name") or call.name
                call.arguments += data["arguments"]
            case "started":
                self.attempts.append(data)


def _data_of(kind: str, data: str) -> dict[str, Any]:
    assert "\n" not in data, f"{kind}: data is more than one line: {data!r}"
    parsed = json.loads(data)
    assert isinstance(parsed, dict), f"{kind}: data is not a JSON object: {data!r}"
    return parsed


def fold(events: Iterable[Event], cursor: str = "") -> Folded:
    """Fold native events as a client does, over as many connections as it took.

    `cursor` is where the first connection began, if it did not begin at the beginning. The ids
    must rise (`check_ids`), and every `prev` met must be the id last seen: this is how a client
    itself can tell that nothing is missing where one epoch ends and the next begins.

    Raises:
        AssertionError: an invariant does not hold.
    """
    folded = Folded(last_event_id=cursor)
    for event in events:
        if event.type in WIRE_ONLY_TYPES:
            continue
        assert folded.closing_type is None, (
            f"I4: {event.type} {event.last_event_id} after the closing {folded.closing_type}"
        )
        data = _data_of(event.type, event.data)
        if event.last_event_id.rpartition("/")[2] == RESET_ID:
            assert event.type == "reset", f"{event.type} carries the id {RESET_ID} of a reset"
        check_ids([event.last_event_id], folded.last_event_id)
        if "prev" in data and folded.last_event_id not in ("", RESET_ID):
            assert data["prev"] == folded.last_event_id, (
                f"I1: {event.type} {event.last_event_id} stands on {data['prev']},"
                f" but the client is at {folded.last_event_id}"
            )
        if event.type == "reset":
            folded.forget()
        elif event.type in CLOSING_TYPES:
            folded.closing_type, folded.closing_data = event.type, data
        else:
            folded.append(event.type, data)
        folded.last_event_id = event.last_event_id
        folded.ids.append(event.last_event_id)
    return folded


def check_ids(ids: Sequence[str], cursor: str = "") -> None:
    """I2, I3 and I5 on what one client saw: its ids rise strictly.

    They may skip, since history arrives spliced, each frame under its last id; so a gap is not
    to be seen here (see `check_log`, and `prev` in `fold`). `0-0` is the reset after which the
    history begins anew, and ids may go back.
    """
    last = position(cursor) if cursor else None
    for entry_id in ids:
        here = position(entry_id)
        if str(here) == RESET_ID:
            last = None
            continue
        if last is not None:
            assert here != last, f"I2: {here} was seen twice"
            assert here.epoch >= last.epoch, f"I5: {here} of an older epoch after {last}"
            assert here > last, f"I3: {here} after {last}"
        last = here


def check_log(entries: Sequence[Entry], *, closed: bool = True) -> None:
    """I1 to I5 on one whole raw log; `closed` False for one still being written.

    Within an epoch ids are dense from 0; the first entry of every epoch but the log's first
    names in `prev` the id it stands on; exactly one entry closes, and it is the last.
    """
    assert entries, "the log is empty"
    last: Position | None = None
    closing: str | None = None
    for raw_id, fields in entries:
        here = position(raw_id.decode())
        kind = fields[b"t"].decode()
        data = _data_of(kind, fields[b"d"].decode())
        assert closing is None, f"I4: {kind} {here} after the closing entry {closing}"
        _check_step(last, here, data)
        if kind in CLOSING_TYPES:
            closing = f"{kind} {here}"
        last = here
    if closed:
        assert closing is not None, f"I4: no closing entry; the log ends with {kind} {last}"
    else:
        assert closing is None, f"I4: an open log holds the closing entry {closing}"


def _check_step(last: Position | None, here: Position, data: dict[str, Any]) -> None:
    """Whether an entry may stand where it does, after `last`."""
    if last is None:
        assert here.seq == 0, f"I1: the log begins with {here}"
        assert data.get("prev", RESET_ID) == RESET_ID, f"I1: {here} stands on {data['prev']}"
        return
    assert here != last, f"I2: {here} is there twice"
    assert here.epoch >= last.epoch, f"I5: {here} of an older epoch after {last}"
    if here.epoch == last.epoch:
        assert here > last, f"I3: {here} after {last}"
        assert here.seq == last.seq + 1, f"I1: {here} after {last}: something is missing"
    else:
        assert here.seq == 0, f"I1: epoch {here.epoch} begins with {here}"
        assert "prev" in data, f"I1: {here} begins an epoch and names no prev"
        assert data["prev"] == str(last), f"I1: {here} stands on {data['prev']}, after {last}"


def log_events(entries: Iterable[Entry]) -> list[Event]:
    """A raw log as the events of a client that was there from the first entry on."""
    return [
        Event(fields[b"t"].decode(), fields[b"d"].decode(), raw_id.decode())
        for raw_id, fields in entries
    ]


def fold_log(entries: Sequence[Entry], *, closed: bool = True) -> Folded:
    """Check a raw log and fold it: what every reader of it must arrive at."""
    check_log(entries, closed=closed)
    return fold(log_events(entries))
