"""I6: each attempt's text in a log is what the model said in one call, to the byte.

A log falls into sections: what stands between two beginnings of attempts, each behind the text
that stood there already. The stand-in's account says which calls there were and what each brought
along, and its script what each was going to say.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.asks import Ask
from tests.support.fold import Entry, log_events
from tests.support.sse_reader import Event
from tests.support.stack import user
from worker.standin import compose
from worker.standin.error import RequestInvalid

Call = Mapping[str, Any]
"""One request in the stand-in's account."""

_BROKEN: Final = ("cut", "ended_early")


@dataclass(slots=True)
class Section:
    """What one attempt said, and the text it stands behind."""

    begun: str
    said: str = ""


def sections_of(events: Iterable[Event]) -> list[Section]:
    """The sections of a log; most that die early are empty."""
    sections = [Section("")]
    for event in events:
        match event.type:
            case "started":
                sections.append(Section(sections[-1].begun + sections[-1].said))
            case "reset":
                sections.append(Section(""))
            case "token":
                sections[-1].said += json.loads(event.data)["text"]
    return sections


def find_speakers(ask: Ask, entries: Sequence[Entry], calls: Sequence[Call]) -> list[Call]:
    """Return the calls that said each section. In their order: who comes later asked later.

    Raises: AssertionError, a section is not the beginning of what some call said.
    """
    speakers: list[Call] = []
    first = 0
    for section in sections_of(log_events(entries)):
        if not section.said:
            continue
        for at, call in enumerate(calls[first:], first):
            if (_behind(ask, call, section) or "").startswith(section.said):
                speakers.append(call)
                first = at
                break
        else:
            raise AssertionError(
                f"I6: no call said {section.said[:60]!r} behind {len(section.begun)} characters"
            )
    return speakers


def check_end(
    ask: Ask, entries: Sequence[Entry], calls: Sequence[Call], closing: Mapping[str, Any]
) -> None:
    """Raises AssertionError unless the log may end as it does, with all that was said by then."""
    kind = entries[-1][1][b"t"].decode()
    last = sections_of(log_events(entries))[-1]
    outcomes = [(call["attempt"], call["outcome"], call["continues"]) for call in calls]
    match kind:
        case "done":
            whole = [call for call in calls if call["outcome"] == "completed"]
            assert any(_behind(ask, call, last) == last.said for call in whole), (
                f"I6: not the whole of what a completed call of {outcomes} said"
            )
        case "cancelled":
            assert ask.cancel_after is not None, "I6: nobody cancelled this one"
        case "failed" if closing["code"] == "provider_truncated":
            assert ask.fault is not None, "I6: nobody cut this one"
            broken = [call for call in calls for outcome in outcomes_of(call) if outcome in _BROKEN]
            assert any(_behind(ask, call, last, ask.fault.after) == last.said for call in broken), (
                f"I6: not what a broken call of {outcomes} said"
            )
            assert ask.is_chat or len(broken) >= 3, f"given up too early: {outcomes}"
        case "failed":
            assert closing["code"] == "worker_lost", f"I6: nothing made it fail so: {closing}"
            assert ask.is_chat, "I6: this one could have begun anew"
            assert "continue" not in ask.rungs, "I6: this one could have gone on"
            assert last.begun + last.said, "I6: this one had said nothing"


def _behind(ask: Ask, call: Call, section: Section, after: int | None = None) -> str | None:
    """What `call` said, or was going to say, behind the section's beginning.

    `after`: only so many tokens of it. None if it was not asked to go on from there.
    """
    brought = call["continues"] or 0
    # Who is connected to a response again gets what it has not had yet; who asks anew brings
    # along all there is.
    if brought > len(section.begun) or (call["surface"] == "chat" and brought < len(section.begun)):
        return None
    prefix, had_since = section.begun[:brought], section.begun[brought:]
    messages, attempt = user(ask.prompt), call["attempt"]
    try:
        script = compose(ask.model, messages, prefix=prefix or None, attempt=attempt)
    except RequestInvalid:
        return None
    rest = script.behind(had_since)
    if rest is None:
        return None
    return (rest if after is None else rest.first(after)).text("content")


def outcomes_of(call: Call) -> list[str]:
    """How the connections ended on which it was answered."""
    connections = [call["creation"], *call["retrieves"]] if call["creation"] else [call]
    return [connection["outcome"] for connection in connections]
