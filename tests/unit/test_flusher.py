"""The writer of a log: whatever Redis loses or repeats, the log ends as it was said.

On fakeredis and a virtual clock: back-offs take no time, and a wait without an end is a failure.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AppendRefused, ClaimLost, Fenced, LogAbsent, LogClosed
from shared.events import JOINABLE, Event, EventType
from tests.support.faulty_client import Fault
from tests.support.fold import Folded
from tests.support.virtual_clock import pass_time
from tests.support.wait import next_turn
from tests.support.writing import DONE, Writing, play
from worker.log_writer import MAX_WAITING, _join

said_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        Event,
        st.sampled_from([EventType.TOKEN, EventType.TOKEN, *sorted(JOINABLE)]),
        st.fixed_dictionaries({"text": st.text(max_size=3)}),
    ),
    st.builds(
        Event,
        st.just(EventType.TOOL_CALL),
        st.fixed_dictionaries({"index": st.integers(0, 1), "arguments": st.text(max_size=3)}),
    ),
)
faults = st.builds(
    Fault,
    st.sampled_from(["not sent", "reply lost", "sent twice", "full", "rolled back", "new", "none"]),
    st.integers(0, 3),
)


def folded(said: list[Event]) -> Folded:
    """What a client should hold."""
    answer = Folded()
    for event in said:
        answer.append(event.type.value, event.data)
    return answer


@given(st.lists(st.tuples(said_events, st.booleans()), max_size=20), st.lists(faults))
def test_whatever_is_lost_or_repeated_the_log_ends_as_it_was_said(
    said: list[tuple[Event, bool]], faults: list[Fault]
) -> None:
    """Requests, replies, scripts, room and a suffix of the writes may go: no gap, no duplicate."""

    async def act(writing: Writing) -> None:
        for event, is_followed_by_a_pause in said:
            await writing.writer.put(event)
            if is_followed_by_a_pause:
                await pass_time(timedelta(seconds=1))
        await writing.close()
        got = await writing.folded()
        expected = folded([event for event, _ in said])
        assert (got.text, got.reasoning, got.refusal) == (
            expected.text,
            expected.reasoning,
            expected.refusal,
        )
        assert got.tool_calls == expected.tool_calls
        assert (got.closing_type, got.closing_data) == ("done", DONE)

    play(act, *faults)


def test_an_idle_flusher_sends_the_first_token_at_once() -> None:
    """It waits neither for a second one nor for a clock."""

    async def act(writing: Writing) -> None:
        before = asyncio.get_running_loop().time()
        await writing.put_all("first")
        while (await writing.folded(closed=False)).text != "first":
            await next_turn()
        assert asyncio.get_running_loop().time() == before

    play(act)


def test_what_gathered_meanwhile_goes_out_as_one_entry() -> None:
    """Tokens that were put without a pause are joined; the answer is the same."""

    async def act(writing: Writing) -> None:
        await writing.put_all(*"abcdefgh")
        await writing.close()
        kinds = await writing.stores.kinds(writing.generation)
        assert kinds == ["queued", "started", "token", "done"]
        assert (await writing.folded()).text == "abcdefgh"

    play(act)


def test_an_entry_once_sent_is_not_joined_anew() -> None:
    """The reply was lost, the entry is there: what comes after it gets an id of its own."""

    async def act(writing: Writing) -> None:
        await writing.put_all("a")
        while not writing.client.met:
            await next_turn()
        await writing.put_all("b")
        await writing.close()
        kinds = await writing.stores.kinds(writing.generation)
        assert kinds == ["queued", "started", "token", "token", "done"]
        assert (await writing.folded()).text == "ab"

    play(act, Fault("reply lost", at=1))


def test_what_was_acknowledged_and_lost_is_sent_again() -> None:
    """The next append shows that Redis fell back; everything since is there again, once."""

    async def act(writing: Writing) -> None:
        for text in "abc":
            await writing.put_all(text)
            await pass_time(timedelta(seconds=1))
        await writing.put_all("d")
        await writing.close()
        assert Fault("rolled back", at=2) in writing.client.met
        assert (await writing.folded()).text == "abcd"

    # The first of the pipelines meets a new server, and is sent a second time.
    nothing = Fault("none")
    play(act, nothing, nothing, nothing, nothing, Fault("rolled back", at=2))


def test_a_server_that_forgets_its_scripts_at_once_is_only_away() -> None:
    """Twice in one round trip is a bad moment, not the end of a generation."""

    async def act(writing: Writing) -> None:
        await writing.put_all("a")
        await writing.close()
        assert (await writing.folded()).text == "a"

    play(act, Fault("new"), Fault("new"), Fault("new"), Fault("new"))


def test_one_generation_in_trouble_does_not_stop_another() -> None:
    """A log that refuses ends its own writer only."""

    async def act(writing: Writing) -> None:
        other = await writing.stores.create()
        claim = await writing.stores.claim(other, "w/2")
        writer = writing.flusher.open_writer(other, "w/2", claim.last_id)
        await writing.stores.store.cancel(other)
        await writing.put_all("a")
        await writer.put(Event(EventType.TOKEN, {"text": "late"}))
        await writing.close()
        with pytest.raises(LogClosed):
            await writer.close(EventType.DONE, DONE, None)
        assert (await writing.folded()).text == "a"
        assert await writing.stores.kinds(other) == ["queued", "started", "cancelled"]

    play(act)


async def _cancelled(writing: Writing) -> None:
    await writing.stores.store.cancel(writing.generation)


async def _taken_over(writing: Writing) -> None:
    await writing.stores.claim(writing.generation, "v/1")


async def _gone(writing: Writing) -> None:
    await writing.stores.client.call("FLUSHALL")


async def _claim_lost(writing: Writing) -> None:
    snapshot = await writing.stores.snapshot(writing.generation)
    fields = {**snapshot.fields, b"state": b"queued", b"token": b"", b"epoch": b"1"}
    key = writing.stores.keys.record(writing.generation)
    await writing.stores.client.call(
        "HSET", key, *(part for pair in fields.items() for part in pair)
    )


async def _epoch_issued_twice(writing: Writing) -> None:
    key = writing.stores.keys.record(writing.generation)
    await writing.stores.client.call("HSET", key, "token", "v/1")


@pytest.mark.parametrize(
    ("happens", "refusal"),
    [
        (_cancelled, LogClosed),
        (_taken_over, Fenced),
        (_epoch_issued_twice, Fenced),
        (_gone, LogAbsent),
        (_claim_lost, ClaimLost),
    ],
)
def test_a_writer_is_told_why_its_log_refuses(
    happens: Callable[[Writing], Coroutine[Any, Any, None]], refusal: type[AppendRefused]
) -> None:
    """Closing raises what happened, and every put after that too; nothing more is written."""

    async def act(writing: Writing) -> None:
        await happens(writing)
        keys = await writing.stores.all_keys()
        before = await writing.stores.entries(writing.generation)
        await writing.put_all("late")
        with pytest.raises(refusal):
            await writing.close()
        with pytest.raises(refusal):
            await writing.put_all("later")
        assert writing.writer.is_settled
        assert await writing.stores.entries(writing.generation) == before
        assert await writing.stores.all_keys() == keys

    play(act)


def test_a_producer_waits_while_too_much_is_unacknowledged() -> None:
    """Back-pressure: what Redis does not take is not gathered without limit."""

    async def act(writing: Writing) -> None:
        loop = asyncio.get_running_loop()
        await writing.put_all("x" * (MAX_WAITING - 1))
        assert loop.time() == 0
        await writing.put_all("y")
        assert loop.time() > 0
        await writing.close()
        assert len((await writing.folded()).text) == MAX_WAITING

    play(act, *(Fault("not sent") for _ in range(5)))


def test_an_abandoned_writer_sends_nothing_more() -> None:
    """What the attempt left behind when it was stopped does not reach the log."""

    async def act(writing: Writing) -> None:
        await writing.put_all("left")
        writing.writer.abandon()
        assert writing.writer.is_settled
        await pass_time(timedelta(seconds=1))
        assert await writing.stores.kinds(writing.generation) == ["queued", "started"]
        with pytest.raises(AppendRefused):
            await writing.close()

    play(act)


@given(st.lists(said_events))
def test_joined_events_say_the_same_in_fewer(said: list[Event]) -> None:
    """No two neighbours of one kind of text are left, and a client cannot tell the difference."""
    numbered = _join([(event, number) for number, event in enumerate(said)])
    joined = [event for event, _ in numbered]
    numbers = [number for _, number in numbered if number is not None]
    assert numbers == sorted(set(numbers))
    assert numbers[-1:] == [len(said) - 1][: len(said)], "the last number stands for all"
    assert folded(joined) == folded(said)
    for one, other in pairwise(joined):
        assert not (one.type is other.type and one.type in JOINABLE)
    calls = [event for event in said if event.type not in JOINABLE]
    assert [event for event in joined if event.type not in JOINABLE] == calls
