"""The judge: I1 to I6 of the design, and what was paid, for one generation and all its readers.

What Redis was made to forget is known to the byte (`lost.py`), so it excuses exactly this much:

- a reader that had read something forgotten is told to forget it too, and hears the answer anew;
  what it had heard until then stood in the log when Redis died;
- a closing entry that was forgotten, and whose writer had died, or let go, or lost its claim with
  it, may be followed by another end; who had read it keeps the old answer, whole as it was;
- a generation that was forgotten altogether is unknown until its client asks again.

`corrupted.py` shows before each run that these functions fail on what is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.asks import Ask
from tests.chaos.clients import Reader
from tests.chaos.lost import Past
from tests.chaos.spoken import Call, check_end, find_speakers
from tests.support.fold import (
    RESET_ID,
    WIRE_ONLY_TYPES,
    Entry,
    Folded,
    fold,
    fold_log,
    log_events,
    position,
)
from tests.support.fold_chat import fold_chat
from tests.support.sse_reader import Event

CURSOR_LOST = "cursor_lost"
"""How `/chat/stream` ends for a reader that it cannot tell to forget."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known of one generation."""

    ask: Ask
    readers: Sequence[Reader]
    log: Sequence[Entry]
    """In the end; empty if there is none."""
    state: str
    """What the record says."""
    snapshot: Mapping[str, Any]
    """What the API says."""
    calls: Sequence[Call]
    """Its requests in the model's account, in the order they came."""
    pasts: Sequence[Past] = ()
    """What Redis forgot of it, in the order it did."""
    undone: Sequence[Past] = ()
    """Those of them whose end nobody was left to write again."""
    cancelled_as: str | None = None
    lingering: Sequence[int] = ()
    """The calls that went on long after another attempt had taken their place."""
    was_left_alone: bool = False
    """Whether certainly nothing happened to it that costs another call."""


def judge(evidence: Evidence) -> str:
    """Return how it ended. Raises: AssertionError, an invariant does not hold."""
    for past in evidence.pasts:
        _check_log(evidence, past.entries, closed=past.is_closed)
    if evidence.was_left_alone:
        assert len(evidence.calls) <= 1, "I8: paid for more than once, although nothing happened"
    assert not evidence.lingering, f"I8: not closed when they did not count: {evidence.lingering}"
    if not evidence.log:
        assert _may_be_unknown(evidence), "I1: it vanished"
        for reader in evidence.readers:
            _check_reader(evidence, reader, [past for past in evidence.pasts if past.is_closed])
        return "unknown"
    folded = _check_log(evidence, evidence.log, closed=True)
    assert evidence.state == folded.closing_type, "the record says another end than the log"
    shown = [evidence.snapshot[name] for name in ("status", "text", "last_event_id")]
    held = [folded.closing_type, folded.text, folded.last_event_id]
    assert shown == held, "the snapshot shows something else than the log"
    if evidence.cancelled_as is not None and not evidence.undone:
        assert evidence.cancelled_as == folded.closing_type, "the end was not what cancel showed"
    closed_again = [past for past in evidence.pasts if _is_closed_again(past, folded)]
    for reader in evidence.readers:
        _check_reader(evidence, reader, [*closed_again, *evidence.undone])
    return folded.closing_type or ""


def _may_be_unknown(evidence: Evidence) -> bool:
    """Whether Redis forgot it altogether; or died while it was accepted on `/chat/stream`, which
    names an id before it knows whether the record was made.
    """
    was_seen = any(reader.events for reader in evidence.readers)
    return any(past.kept is None for past in evidence.pasts) or (
        evidence.ask.is_chat and not was_seen
    )


def _is_closed_again(past: Past, final: Folded) -> bool:
    """Whether an end that Redis forgot was written again by another: the same, under a new id."""
    if not past.is_closed:
        return False
    said = fold_log(past.entries)
    same = (said.closing_type, said.text) == (final.closing_type, final.text)
    return same and position(said.last_event_id).seq == 0


def _check_log(evidence: Evidence, entries: Sequence[Entry], *, closed: bool) -> Folded:
    """I1 to I6 of one log."""
    folded = fold_log(entries, closed=closed)
    speakers = find_speakers(evidence.ask, entries, evidence.calls)
    if "reattach" in evidence.ask.rungs and not evidence.pasts and evidence.ask.fault is None:
        said_by = {call["number"] for call in speakers}
        assert len(said_by) <= 1, f"I8: paid for again instead of re-attached to: calls {said_by}"
    if closed:
        assert folded.closing_data is not None
        check_end(evidence.ask, entries, evidence.calls, folded.closing_data)
    return folded


def _check_reader(evidence: Evidence, reader: Reader, other_ends: Sequence[Past]) -> None:
    """A reader holds what the log says in the end, or said when it ended for that reader."""
    assert reader.has_ended, "a reader never saw the end"
    if evidence.ask.is_chat and reader.not_found:
        assert _may_be_unknown(evidence), "unknown, but not forgotten"
        return _check_told_once(
            reader.events, [past.entries for past in evidence.pasts], is_chat=True
        )
    check = _check_chat if evidence.ask.is_chat else _check_native
    ends = [
        entries for entries in (evidence.log, *(past.entries for past in other_ends)) if entries
    ]
    assert ends, "a reader saw an end that nobody wrote"
    errors = []
    for entries in ends:
        try:
            return check(evidence, reader, entries)
        except AssertionError as error:
            errors.append(error)
    raise errors[0]


def _check_native(evidence: Evidence, reader: Reader, entries: Sequence[Entry]) -> None:
    assert reader.not_found == 0 or any(past.kept is None for past in evidence.pasts), (
        "a reader was told that its generation is unknown, although Redis had not forgotten it"
    )
    assert fold(reader.events) == fold_log(entries), "a reader holds something else than the log"
    # A `reconnect` has no id of its own: behind a reset it carries that one's.
    anew = sum(e.type == "reset" and e.last_event_id == RESET_ID for e in reader.events)
    assert anew <= len(evidence.pasts), (
        f"told to begin anew {anew} times; Redis forgot something {len(evidence.pasts)} times"
    )
    *before, last = _parts(reader.events)
    _check_told(last, entries)
    logs = [entries, *(past.entries for past in evidence.pasts)]
    for part in before:
        _check_told_once(part, logs)


def _check_chat(evidence: Evidence, reader: Reader, entries: Sequence[Entry]) -> None:
    """This surface cannot say forget: it ends instead."""
    told = [event for event in reader.events if event.type not in WIRE_ONLY_TYPES]
    logs = [past.entries for past in evidence.pasts]
    if told and told[-1].type == "failed" and CURSOR_LOST in told[-1].data:
        assert evidence.pasts, "its cursor was lost, although Redis forgot nothing of it"
        return _check_told_once(told[:-1], logs, is_chat=True)
    held, said = fold_chat(told), fold_log(entries)
    assert held.text == said.text, "a reader holds another text than the log"
    assert held.closing_type == said.closing_type, "a reader was told another end"
    return _check_told(told, entries, is_chat=True)


def _parts(events: Sequence[Event]) -> list[list[Event]]:
    """What a reader was told, divided where it was told to forget.

    One that had read what Redis forgot hears either the API's own `reset`, with the id 0-0, or that
    of the next attempt, which takes back whatever the reader has.
    """
    parts: list[list[Event]] = [[]]
    for event in events:
        if event.type in WIRE_ONLY_TYPES:
            continue
        if event.type == "reset":
            parts.append([])
        if event.last_event_id != RESET_ID:
            parts[-1].append(event)
    return parts


def _check_told_once(
    events: Sequence[Event], logs: Sequence[Sequence[Entry]], *, is_chat: bool = False
) -> None:
    """What was told, if anything was, stood in one of the logs."""
    if not events:
        return
    errors = []
    for entries in logs:
        try:
            return _check_told(events, entries, is_chat=is_chat)
        except AssertionError as error:
            errors.append(error)
    raise AssertionError(f"a reader was told what never stood in the log: {errors}")


def _check_told(
    events: Sequence[Event], entries: Sequence[Entry], *, is_chat: bool = False
) -> None:
    """After every single event the reader holds what the log says up to its id."""
    texts = _texts(log_events(entries), is_chat=False)
    for entry_id, text in _texts(events, is_chat=is_chat).items():
        assert entry_id in texts, f"a reader was told {entry_id}, which the log does not hold"
        assert texts[entry_id] == text, f"I6: at {entry_id} a reader holds another text"


def _texts(events: Sequence[Event], *, is_chat: bool) -> dict[str, str]:
    """The text that a reader holds at each id."""
    texts, text = {}, ""
    for event in events:
        if event.type == "token":
            text += event.data if is_chat else fold([event]).text
        elif event.type == "reset":
            text = ""
        texts[event.last_event_id.rpartition("/")[2]] = text
    return texts
