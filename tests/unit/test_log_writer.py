"""The writer of a log and its provider's answer: the record stands where the log ends.

On fakeredis and a virtual clock, as `test_flusher.py`; here every state that Redis was in is seen.
"""

from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.event_log import LogView
from shared.events import Event, EventType, decode_data
from shared.generation import State, Upstream
from tests.support.faulty_client import Fault
from tests.support.virtual_clock import pass_time
from tests.support.watching import SILENCE, Watching, play_watched
from worker.log_writer import MAX_BATCH

RUN = Upstream("run", None)

Step = Literal["token", "other", "run", "none", "rejoin", "pause"]
steps: st.SearchStrategy[Step] = st.sampled_from(
    ["token", "token", "token", "other", "run", "none", "rejoin", "pause"]
)
faults = st.builds(
    Fault,
    st.sampled_from(["not sent", "reply lost", "sent twice", "full", "rolled back", "new", "none"]),
    st.integers(0, 3),
)


def positions(plan: Sequence[Step]) -> list[Upstream | None]:
    """Where the answer stands after each step; before the first, nothing is named."""
    runs, at, named = count(1), count(), list[Upstream | None]([None])
    for step in plan:
        now = named[-1]
        if step == "run":
            now = Upstream(f"run {next(runs)}", None)
        elif step == "none":
            now = None
        elif step == "token" and now is not None:
            now = Upstream(now.id, next(at))
        named.append(now)
    return named


def last_said(view: LogView) -> int:
    """The step of the last token in the log; each says its own number."""
    tokens = [entry for entry in view.entries if entry.type is EventType.TOKEN]
    return int(decode_data(tokens[-1].data)["text"].split()[-1]) if tokens else 0


@given(st.lists(steps, max_size=15), st.lists(faults, max_size=12))
@example(["run", "token", "run"], [])
@example(["run", "token", "pause", "none"], [])
@example(["run", "token", "pause", "token"], [Fault("none")] * 4 + [Fault("rolled back", 2)])
def test_the_record_stands_where_the_log_ends(plan: list[Step], faults: list[Fault]) -> None:
    """Whatever is lost or repeated: in no state of Redis ahead of the log, and in none behind."""
    named = positions(plan)

    async def act(writing: Watching) -> None:
        writer = writing.writer
        for number, step in enumerate(plan, start=1):
            now = named[number]
            if step == "token":
                token = Event(EventType.TOKEN, {"text": f" {number}"})
                await writer.put(token, None if now is None else now.at)
            elif step == "other":
                await writer.put(Event(EventType.RETRYING, {"attempt": number}))
            elif step == "pause":
                await pass_time(timedelta(seconds=1))
            elif step == "rejoin":
                if now is not None:
                    writer.resume_upstream(now)
            else:
                await writer.note_upstream(now)
                assert await writing.upstream() == now, "noted, and told so too early"
        await writing.close()
        for view in writing.log.views:
            assert view.record is not None
            said = last_said(view)
            behind = next((n for n in range(said, len(plan)) if plan[n] == "token"), len(plan))
            assert view.record.upstream in named[said : behind + 1]
        if plan[-1:] == ["token"]:
            assert await writing.upstream() == named[-1]

    play_watched(act, *faults)


def test_a_run_is_named_before_its_first_token() -> None:
    """Whoever takes over between the two knows what to go on with."""

    async def act(writing: Watching) -> None:
        await writing.writer.note_upstream(RUN)
        record = await writing.stores.store.record(writing.generation)
        assert (record.state, record.upstream) == (State.RUNNING, RUN)
        assert await writing.stores.kinds(writing.generation) == ["queued", "started"]

    play_watched(act)


@pytest.mark.parametrize("noted", [Upstream("run 2", None), None])
def test_a_name_that_redis_lost_in_silence_is_noted_again(noted: Upstream | None) -> None:
    """Nothing is said for long, nothing else would show it: the look at the silent log does."""

    async def act(writing: Watching) -> None:
        await writing.writer.note_upstream(RUN)
        before = await writing.stores.snapshot(writing.generation)
        await writing.writer.note_upstream(noted)
        await writing.stores.roll_back(writing.generation, before)
        assert await writing.upstream() == RUN
        await pass_time(2 * SILENCE)
        assert await writing.upstream() == noted

    play_watched(act, looks=True)


def test_an_answer_that_no_provider_goes_on_with_notes_nothing() -> None:
    """Its record stays as it was: a stale name of an earlier attempt is not kept alive."""

    async def act(writing: Watching) -> None:
        await writing.writer.put(Event(EventType.TOKEN, {"text": "a"}), 7)
        await writing.close()
        assert b"upstream_id" not in await writing.stores.fields(writing.generation)

    play_watched(act)


def test_a_backlog_goes_out_in_parts_each_with_its_own_position() -> None:
    """Who dies between two of them has not told of more than there is."""

    async def act(writing: Watching) -> None:
        await writing.writer.note_upstream(RUN)
        for number in range(3 * MAX_BATCH // 2):
            piece = Event(EventType.TOOL_CALL, {"index": 0, "arguments": "x"})
            await writing.writer.put(piece, number)
        await writing.close()
        seen = set()
        for view in writing.log.views:
            record = view.record
            written = sum(entry.type is EventType.TOOL_CALL for entry in view.entries)
            assert record is not None
            assert record.upstream == Upstream("run", written - 1 if written else None)
            seen.add(written)
        assert seen == {0, MAX_BATCH, 3 * MAX_BATCH // 2}

    play_watched(act)


def test_what_stays_unsaid_is_not_noted_either() -> None:
    """After another closed the log the last words are dropped, and so is where they stood."""

    async def act(writing: Watching) -> None:
        writing.writer.resume_upstream(RUN)
        await writing.writer.put(Event(EventType.TOKEN, {"text": "a"}), 1)
        await writing.round_trip()
        before = await writing.view()
        await writing.writer.put(Event(EventType.TOKEN, {"text": "b"}), 2)
        assert writing.writer.commands(writing.log)
        writing.writer.reopen()
        await writing.round_trip()
        assert writing.writer.is_settled
        assert await writing.view() == before
        assert await writing.upstream() == Upstream("run", 1)

    play_watched(act, flushes=False)


def test_settled_is_who_has_nothing_to_send_or_to_ask() -> None:
    """A look counts until it is answered; an end until it is written; a refusal ends all."""

    async def act(writing: Watching) -> None:
        writer = writing.writer
        assert writer.is_settled
        await writing.put_all("a")
        assert not writer.is_settled
        await writer.wait_written()
        assert writer.is_settled
        writer.look()
        assert not writer.is_settled
        await writer.wait_written()
        assert writer.is_settled
        assert not writer.is_closed
        await writing.close()
        assert writer.is_settled
        assert writer.is_closed
        writer.look()
        assert not writer.is_settled
        writer.abandon()
        assert writer.is_settled

    play_watched(act)
