"""The oracle is right about sound logs, and is not deceived by corrupted ones."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.fold import (
    Entry,
    Folded,
    ToolCall,
    check_ids,
    check_log,
    fold,
    fold_log,
    log_events,
)
from tests.support.sse_reader import Event


def entry(entry_id: str, kind: str, **data: Any) -> Entry:
    return entry_id.encode(), {b"t": kind.encode(), b"d": json.dumps(data).encode()}


def sound_log() -> list[Entry]:
    """Two attempts: the first dies after two tokens, the second restarts and finishes."""
    return [
        entry("100-0", "queued"),
        entry("200-0", "started", attempt=1, model="m", resume="fresh", prev="100-0"),
        entry("200-1", "token", text="Hel"),
        entry("200-2", "token", text="p"),
        entry("305-0", "started", attempt=2, model="m", resume="restart", prev="200-2"),
        entry("305-1", "reset"),
        entry("305-2", "reasoning", text="Greet."),
        entry("305-3", "token", text="Hello"),
        entry("305-4", "token", text=" world"),
        entry("305-5", "done", finish_reason="stop", usage=None),
    ]


def test_sound_log_passes() -> None:
    """Two epochs, dense, linked and closed once, are no reason to complain."""
    check_log(sound_log())


def test_fold_of_a_log_is_what_the_last_attempt_said() -> None:
    """A reset forgets text and reasoning; what comes after it stands."""
    folded = fold_log(sound_log())
    assert folded == Folded(
        text="Hello world",
        reasoning="Greet.",
        closing_type="done",
        closing_data={"finish_reason": "stop", "usage": None},
        last_event_id="305-5",
    )
    assert [attempt["resume"] for attempt in folded.attempts] == ["fresh", "restart"]


def test_log_may_consist_of_a_queued_and_a_closing_epoch() -> None:
    """A generation cancelled while queued: its closing entry begins an epoch and names prev."""
    check_log([entry("1-0", "queued"), entry("2-0", "cancelled", prev="1-0")])


def test_open_log_passes_only_as_an_open_one() -> None:
    """A log without closing entry is wrong unless the test says that it is being written."""
    check_log(sound_log()[:-1], closed=False)
    with pytest.raises(AssertionError, match="I4"):
        check_log(sound_log()[:-1])
    with pytest.raises(AssertionError, match="I4"):
        check_log(sound_log(), closed=False)


def _renamed(log: list[Entry], at: int, entry_id: str) -> list[Entry]:
    return [*log[:at], (entry_id.encode(), log[at][1]), *log[at + 1 :]]


CORRUPTIONS: dict[str, tuple[str, Callable[[list[Entry]], list[Entry]]]] = {
    "entry dropped": ("I1", lambda log: log[:3] + log[4:]),
    "entry dropped inside an epoch": ("I1", lambda log: log[:7] + log[8:]),
    "first entry of an epoch dropped": ("I1", lambda log: log[:4] + log[5:]),
    "first entry dropped": ("I1", lambda log: log[1:]),
    "whole epoch dropped": ("I1", lambda log: log[:1] + log[4:]),
    "head of the log dropped": ("I1", lambda log: log[3:]),
    "entry doubled": ("I2", lambda log: [*log[:8], log[7], *log[8:]]),
    "entry doubled under a new id": ("I1", lambda log: [*log[:8], (b"305-9", log[7][1]), *log[8:]]),
    "entries swapped": ("I", lambda log: [*log[:7], log[8], log[7], log[9]]),
    "two closings": ("I4", lambda log: [*log, entry("305-6", "failed", code="x")]),
    "token after the closing": ("I4", lambda log: [*log, entry("305-6", "token", text="!")]),
    "closing dropped": ("I4", lambda log: log[:-1]),
    "older epoch after newer": ("I5", lambda log: [*log[:8], entry("200-3", "token", text="x")]),
    "older epoch reappears as new": (
        "I5",
        lambda log: [*log[:9], entry("300-0", "done", prev="305-4")],
    ),
    "prev names another id": (
        "I1",
        lambda log: [*log[:4], entry("305-0", "started", prev="200-1"), *log[5:]],
    ),
    "prev is missing": ("I1", lambda log: [*log[:4], entry("305-0", "started"), *log[5:]]),
    "epoch begins in its middle": ("I1", lambda log: [*log[:4], *_renamed(log, 4, "305-1")[4:]]),
    "nothing left": ("empty", lambda log: []),
}


@pytest.mark.parametrize(("message", "corrupt"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_corrupted_log_is_refused(
    message: str, corrupt: Callable[[list[Entry]], list[Entry]]
) -> None:
    """Each way in which a log can be wrong is named by the invariant it breaks."""
    with pytest.raises(AssertionError, match=message):
        check_log(corrupt(sound_log()))


@given(st.data())
def test_no_single_change_of_a_sound_log_goes_unnoticed(data: st.DataObject) -> None:
    """Dropping, doubling or moving any one entry is always refused."""
    log = sound_log()
    at = data.draw(st.integers(0, len(log) - 1))
    match data.draw(st.sampled_from(["drop", "double", "move"])):
        case "drop":
            log.pop(at)
        case "double":
            log.insert(at, log[at])
        case _:
            to = data.draw(st.integers(0, len(log) - 1))
            assume(to != at)
            log.insert(to, log.pop(at))
    with pytest.raises(AssertionError, match=r"I[1-5]"):
        check_log(log)


@given(st.integers(0, 9))
def test_no_doubled_frame_escapes_a_client(at: int) -> None:
    """A client that was told any one frame twice notices."""
    events = log_events(sound_log())
    events.insert(at, events[at])
    with pytest.raises(AssertionError, match="I2" if at < 9 else "I4"):
        fold(events)


def test_frame_lost_before_a_new_epoch_does_not_escape_a_client() -> None:
    """`prev` shows a client that it never got the last frame of the epoch before."""
    events = log_events(sound_log())
    del events[3]
    with pytest.raises(AssertionError, match="I1"):
        fold(events)


def test_spliced_history_folds_to_the_same() -> None:
    """Adjacent tokens in one frame under the last id are not a gap to a client."""
    events = log_events(sound_log())
    spliced = [
        *events[:2],
        Event("token", '{"text":"Help"}', "200-2"),
        *events[4:7],
        Event("token", '{"text":"Hello world"}', "305-4"),
        events[9],
    ]
    assert fold(spliced) == fold_log(sound_log())


def test_late_reader_folds_to_the_same() -> None:
    """A history that starts at the last reset leaves out only what was forgotten."""
    assert fold(log_events(sound_log())[5:]) == fold_log(sound_log())


def test_resumed_reader_is_checked_against_its_cursor() -> None:
    """What follows a cursor must rise from it, and a new epoch must stand on it."""
    events = log_events(sound_log())
    assert fold(events[4:], cursor="200-2") == fold_log(sound_log())
    with pytest.raises(AssertionError, match="I1"):
        fold(events[4:], cursor="200-1")
    with pytest.raises(AssertionError, match="I2"):
        fold(events[3:], cursor="200-2")


def test_reset_of_the_server_starts_the_history_anew() -> None:
    """`reset` under 0-0 forgets everything, and ids may go back this once."""
    events = log_events(sound_log())
    told_twice = [*events[:8], Event("reset", "{}", "0-0"), *events]
    assert fold(told_twice) == fold_log(sound_log())


def test_zero_id_belongs_to_a_reset_only() -> None:
    """No other event may carry the id that lets ids go back."""
    with pytest.raises(AssertionError, match="0-0"):
        fold([Event("token", '{"text":"a"}', "0-0")])


def test_signals_of_the_wire_are_no_part_of_the_log() -> None:
    """heartbeat and reconnect repeat the last id and change nothing."""
    events = log_events(sound_log())
    noisy = [e for event in events for e in (event, Event("heartbeat", "", event.last_event_id))]
    assert fold(noisy) == fold_log(sound_log())


def test_nothing_may_follow_the_closing_event() -> None:
    """A client that is told more after the end was told a wrong end."""
    events = [*log_events(sound_log()), Event("token", '{"text":"!"}', "305-6")]
    with pytest.raises(AssertionError, match="I4"):
        fold(events)


def test_frame_without_an_id_of_its_own_is_refused() -> None:
    """A data frame without `id:` shows as its predecessor's id seen twice."""
    with pytest.raises(AssertionError, match="I2"):
        fold([Event("token", '{"text":"a"}', "1-1"), Event("token", '{"text":"b"}', "1-1")])


def test_tool_calls_refusals_and_partial_text_are_kept_apart() -> None:
    """Every kind of delta is appended to its own; a failure leaves them standing."""
    log = [
        entry("1-0", "queued"),
        entry("1-1", "tool_call", index=0, id="c1", name="f", arguments='{"a"'),
        entry("1-2", "tool_call", index=1, id="c2", name="g", arguments=""),
        entry("1-3", "tool_call", index=0, arguments=":1}"),
        entry("1-4", "refusal", text="No."),
        entry("1-5", "token", text="But"),
        entry("1-6", "failed", code="provider_error", message="m", retryable=True),
    ]
    folded = fold_log(log)
    assert folded.tool_calls == {0: ToolCall("c1", "f", '{"a":1}'), 1: ToolCall("c2", "g", "")}
    assert (folded.text, folded.refusal, folded.closing_type) == ("But", "No.", "failed")


def test_ids_of_the_plain_surface_are_understood() -> None:
    """`<generation>/<entry>` is checked by its entry, as /chat/stream writes it."""
    check_ids(["gen_a/0-0", "gen_a/1-0", "gen_a/1-5", "gen_a/2-0"])
    with pytest.raises(AssertionError, match="I3"):
        check_ids(["gen_a/1-5", "gen_a/1-4"])


@pytest.mark.parametrize("malformed", ["", "1", "1-", "-1", "01-1", "1-1-1", "1-x", " 1-1"])
def test_malformed_id_is_refused(malformed: str) -> None:
    """An id is two plain numbers and a hyphen."""
    with pytest.raises(AssertionError, match="not an entry id"):
        check_ids([malformed])
