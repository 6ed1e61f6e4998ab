"""The judge is first shown to fail: on each way in which a real answer can be wrong."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from tests.chaos.asks import Ask, ProviderFault
from tests.chaos.clients import Reader
from tests.chaos.lost import Past
from tests.chaos.verdict import Evidence, judge
from tests.support.fold import RESET_ID, Entry, position
from tests.support.sse_reader import Event

CALM = Ask(
    number=-1,
    key="calm",
    prompt="[standin tokens=24 pace=60 vary=1 cut_after=9 times=1] Before the storm",
    fault=ProviderFault("cut", after=9, times=1),
    readers=2,
)
"""Two attempts, of which the second counts: a log with everything in it that may go wrong."""

Corrupt = Callable[[Evidence], Evidence]
Log = list[Entry]


def check_judge(calm: Evidence) -> int:
    """Returns how many corruptions were tried.

    Raises: AssertionError, one went unnoticed, or what is right was refused.
    """
    for right in (calm, _sent_away_behind_a_reset(calm), _named_and_never_made(calm)):
        judge(right)
    for name, corrupt in CORRUPTIONS.items():
        try:
            judge(corrupt(calm))
        except AssertionError:
            continue
        raise AssertionError(f"the judge lets pass: {name}")
    return len(CORRUPTIONS)


def _entry(entry_id: str, kind: str, **data: Any) -> Entry:
    return entry_id.encode(), {b"t": kind.encode(), b"d": json.dumps(data).encode()}


def _in_log(change: Callable[[Log], object]) -> Corrupt:
    """Change the log, and let record, snapshot and readers be what they were."""

    def corrupt(calm: Evidence) -> Evidence:
        log = list(calm.log)
        change(log)
        return replace(calm, log=log)

    return corrupt


def _in_reader(change: Callable[[list[Event]], object]) -> Corrupt:
    """Change what the last of the readers was told."""

    def corrupt(calm: Evidence) -> Evidence:
        reader = copy(calm.readers[-1])
        reader.events = list(reader.events)
        change(reader.events)
        return replace(calm, readers=[*calm.readers[:-1], reader])

    return corrupt


def _in_both(change: Callable[[Log], object]) -> Corrupt:
    """Change the log, and have all readers and the snapshot say the same as it: only the model's
    script can tell.
    """

    def corrupt(calm: Evidence) -> Evidence:
        log = list(calm.log)
        change(log)
        events = [Event(f[b"t"].decode(), f[b"d"].decode(), i.decode()) for i, f in log]
        text = "".join(json.loads(event.data)["text"] for event in events if _is_token(event))
        reader = Reader(events, has_ended=True)
        told = {**calm.snapshot, "text": text, "last_event_id": events[-1].last_event_id}
        return replace(calm, log=log, readers=[reader], snapshot=told)

    return corrupt


def _is_token(event: Event) -> bool:
    return event.type == "token"


def _tokens(log: Sequence[Entry]) -> list[int]:
    """Where the tokens stand that count: those behind the last reset."""
    reset = max(at for at, (_, fields) in enumerate(log) if fields[b"t"] == b"reset")
    return [at for at, (_, f) in enumerate(log) if f[b"t"] == b"token" and at > reset]


def _middle(log: Sequence[Entry]) -> int:
    tokens = _tokens(log)
    return tokens[len(tokens) // 2]


def _swap(items: list[Any], at: int) -> None:
    items[at], items[at + 1] = items[at + 1], items[at]


def _spoil(fields: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The same with one byte of its text changed."""
    text = json.loads(fields[b"d"])["text"]
    wrong = ("x" if text[:1] != "x" else "y") + text[1:]
    return {b"t": b"token", b"d": json.dumps({"text": wrong}).encode()}


def _spoil_entry(log: Log) -> None:
    at = _middle(log)
    log[at] = (log[at][0], _spoil(log[at][1]))


def _splice_old(log: Log) -> None:
    """An entry of the epoch in which it was accepted, behind those of the attempt."""
    old = position(log[0][0].decode())
    log.insert(_middle(log), _entry(f"{old.epoch}-{old.seq + 1}", "token", text="old"))


def _close_twice(log: Log) -> None:
    last = position(log[-1][0].decode())
    log.append((f"{last.epoch}-{last.seq + 1}".encode(), log[-1][1]))


def _drop_and_renumber(log: Log) -> None:
    """As if the entry had never been: dense ids, but a word is missing."""
    at = _middle(log)
    ids = [entry_id for entry_id, _ in log]
    del log[at]
    log[:] = [(ids[number], fields) for number, (_, fields) in enumerate(log)]


def _take_old_text(log: Log) -> None:
    """A token of the attempt that failed in the place of one of those that count."""
    old = next(fields for _, fields in log if fields[b"t"] == b"token")
    at = _tokens(log)[0]
    log[at] = (log[at][0], old)


def _drop_reset(log: Log) -> None:
    """What the failed attempt said stands before the answer; the rest is dense."""
    at = next(at for at, (_, fields) in enumerate(log) if fields[b"t"] == b"reset")
    log[at] = (log[at][0], {b"t": b"retrying", b"d": b"{}"})


def _drop_frame(events: list[Event]) -> None:
    at = max(at for at, event in enumerate(events) if event.type == "token")
    del events[at]


def _double_frame(events: list[Event]) -> None:
    at = max(at for at, event in enumerate(events) if event.type == "token")
    events.insert(at, events[at])


def _spoil_frame(events: list[Event]) -> None:
    at = max(at for at, event in enumerate(events) if event.type == "token")
    fields = {b"d": events[at].data.encode()}
    events[at] = replace(events[at], data=_spoil(fields)[b"d"].decode())


def _begin_anew(events: list[Event]) -> None:
    events[:] = [*events[:-1], Event("reset", "{}", "0-0"), *events]


def _sent_away_behind_a_reset(calm: Evidence) -> Evidence:
    """What is right though it looks odd: told once to forget, and to come back before any entry."""
    past = Past(at=0.0, entries=calm.log, kept=None, writer=None, finished_at=None)
    anew = [Event("reset", "{}", RESET_ID), Event("reconnect", "{}", RESET_ID)]
    told = _in_reader(
        lambda events: events.__setitem__(slice(None), [*events[:-1], *anew, *events])
    )
    return replace(told(calm), pasts=[past])


def _named_and_never_made(calm: Evidence) -> Evidence:
    """The same: Redis died while `/chat/stream` accepted it, and its client knew its id by then."""
    nobody = replace(calm, log=(), state="", snapshot={}, calls=())
    ask = replace(calm.ask, is_chat=True, readers=1)
    return replace(nobody, ask=ask, readers=[Reader(has_ended=True, not_found=1)])


def _pay_twice(calm: Evidence) -> Evidence:
    return replace(calm, was_left_alone=True)


def _linger(calm: Evidence) -> Evidence:
    return replace(calm, lingering=[1])


def _vanish(calm: Evidence) -> Evidence:
    return replace(calm, log=())


CORRUPTIONS: Mapping[str, Corrupt] = {
    "an entry dropped": _in_log(lambda log: log.pop(_middle(log))),
    "an entry doubled": _in_log(lambda log: log.insert(_middle(log), log[_middle(log)])),
    "two entries swapped": _in_log(lambda log: _swap(log, _middle(log))),
    "an older epoch after a newer": _in_log(_splice_old),
    "cut off before its end": _in_log(lambda log: log.pop()),
    "closed twice": _in_log(_close_twice),
    "a wrong byte": _in_log(_spoil_entry),
    "a wrong byte that everybody saw": _in_both(_spoil_entry),
    "a word less that nobody misses": _in_both(_drop_and_renumber),
    "a word of the attempt before": _in_both(_take_old_text),
    "two attempts in one answer": _in_both(_drop_reset),
    "cut off, and everybody content": _in_both(lambda log: log.pop()),
    "a frame never told": _in_reader(_drop_frame),
    "a frame told twice": _in_reader(_double_frame),
    "a wrong byte told": _in_reader(_spoil_frame),
    "no end told": _in_reader(lambda events: events.pop()),
    "told to begin anew for nothing": _in_reader(_begin_anew),
    "paid twice for nothing": _pay_twice,
    "a call left open": _linger,
    "vanished": _vanish,
}
