"""The writer of a log: whatever Redis loses or repeats, the log ends as it was said.

On fakeredis and a virtual clock: back-offs take no time, and a wait without an end is a failure.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AppendRefused, ClaimLost, Fenced, LogAbsent, LogClosed
from shared.events import JOINABLE, Event, EventType
from shared.ids import GenerationId
from tests.support.faulty_client import Fault, FaultyClient
from tests.support.fold import Folded, fold_log
from tests.support.stores import Stores
from tests.support.virtual_clock import pass_time, run_virtual
from tests.support.wait import next_turn
from worker.flusher import MAX_WAITING, Flusher, LogWriter, _join

DONE = {"finish_reason": "stop", "usage": None}

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


class Scene:
    """One claimed generation, a flusher that runs, and the writer of the log."""

    def __init__(self, faults: list[Fault]) -> None:
        connection = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2)
        self.stores = Stores(connection)
        self.client = FaultyClient(connection, faults)
        self.flusher = Flusher(Stores(connection, self.client).log)
        self.generation: GenerationId
        self.writer: LogWriter

    async def open(self) -> None:
        self.generation = await self.stores.create()
        claim = await self.stores.claim(self.generation, "w/1")
        await self.client.remember(self.generation)
        self.writer = self.flusher.open_writer(self.generation, "w/1", claim.last_id)

    async def folded(self, *, closed: bool = True) -> Folded:
        return fold_log(await self.stores.entries(self.generation), closed=closed)

    async def put_all(self, *texts: str) -> None:
        for text in texts:
            await self.writer.put(Event(EventType.TOKEN, {"text": text}))

    async def close(self) -> None:
        await self.writer.close(EventType.DONE, DONE, None)


def play(act: Callable[[Scene], Coroutine[Any, Any, None]], *faults: Fault) -> None:
    """Run `act` beside a flusher, on a store that meets `faults` in turn."""

    async def main() -> None:
        scene = Scene(list(faults))
        await scene.open()
        running = asyncio.create_task(scene.flusher.run())
        try:
            await act(scene)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    run_virtual(main())


@given(st.lists(st.tuples(said_events, st.booleans()), max_size=20), st.lists(faults))
def test_whatever_is_lost_or_repeated_the_log_ends_as_it_was_said(
    said: list[tuple[Event, bool]], faults: list[Fault]
) -> None:
    """Requests, replies, scripts, room and a suffix of the writes may go: no gap, no duplicate."""

    async def act(scene: Scene) -> None:
        for event, is_followed_by_a_pause in said:
            await scene.writer.put(event)
            if is_followed_by_a_pause:
                await pass_time(timedelta(seconds=1))
        await scene.close()
        got = await scene.folded()
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

    async def act(scene: Scene) -> None:
        before = asyncio.get_running_loop().time()
        await scene.put_all("first")
        while (await scene.folded(closed=False)).text != "first":
            await next_turn()
        assert asyncio.get_running_loop().time() == before

    play(act)


def test_what_gathered_meanwhile_goes_out_as_one_entry() -> None:
    """Tokens that were put without a pause are joined; the answer is the same."""

    async def act(scene: Scene) -> None:
        await scene.put_all(*"abcdefgh")
        await scene.close()
        kinds = await scene.stores.kinds(scene.generation)
        assert kinds == ["queued", "started", "token", "done"]
        assert (await scene.folded()).text == "abcdefgh"

    play(act)


def test_an_entry_once_sent_is_not_joined_anew() -> None:
    """The reply was lost, the entry is there: what comes after it gets an id of its own."""

    async def act(scene: Scene) -> None:
        await scene.put_all("a")
        while not scene.client.met:
            await next_turn()
        await scene.put_all("b")
        await scene.close()
        kinds = await scene.stores.kinds(scene.generation)
        assert kinds == ["queued", "started", "token", "token", "done"]
        assert (await scene.folded()).text == "ab"

    play(act, Fault("reply lost", at=1))


def test_what_was_acknowledged_and_lost_is_sent_again() -> None:
    """The next append shows that Redis fell back; everything since is there again, once."""

    async def act(scene: Scene) -> None:
        for text in "abc":
            await scene.put_all(text)
            await pass_time(timedelta(seconds=1))
        await scene.put_all("d")
        await scene.close()
        assert Fault("rolled back", at=2) in scene.client.met
        assert (await scene.folded()).text == "abcd"

    # The first of the pipelines meets a new server, and is sent a second time.
    nothing = Fault("none")
    play(act, nothing, nothing, nothing, nothing, Fault("rolled back", at=2))


def test_a_server_that_forgets_its_scripts_at_once_is_only_away() -> None:
    """Twice in one round trip is a bad moment, not the end of a generation."""

    async def act(scene: Scene) -> None:
        await scene.put_all("a")
        await scene.close()
        assert (await scene.folded()).text == "a"

    play(act, Fault("new"), Fault("new"), Fault("new"), Fault("new"))


def test_one_generation_in_trouble_does_not_stop_another() -> None:
    """A log that refuses ends its own writer only."""

    async def act(scene: Scene) -> None:
        other = await scene.stores.create()
        claim = await scene.stores.claim(other, "w/2")
        writer = scene.flusher.open_writer(other, "w/2", claim.last_id)
        await scene.stores.store.cancel(other)
        await scene.put_all("a")
        await writer.put(Event(EventType.TOKEN, {"text": "late"}))
        await scene.close()
        with pytest.raises(LogClosed):
            await writer.close(EventType.DONE, DONE, None)
        assert (await scene.folded()).text == "a"
        assert await scene.stores.kinds(other) == ["queued", "started", "cancelled"]

    play(act)


async def _cancelled(scene: Scene) -> None:
    await scene.stores.store.cancel(scene.generation)


async def _taken_over(scene: Scene) -> None:
    await scene.stores.claim(scene.generation, "v/1")


async def _gone(scene: Scene) -> None:
    await scene.stores.client.call("FLUSHALL")


async def _claim_lost(scene: Scene) -> None:
    snapshot = await scene.stores.snapshot(scene.generation)
    fields = {**snapshot.fields, b"state": b"queued", b"token": b"", b"epoch": b"1"}
    key = scene.stores.keys.record(scene.generation)
    await scene.stores.client.call("HSET", key, *(part for pair in fields.items() for part in pair))


async def _epoch_issued_twice(scene: Scene) -> None:
    key = scene.stores.keys.record(scene.generation)
    await scene.stores.client.call("HSET", key, "token", "v/1")


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
    happens: Callable[[Scene], Coroutine[Any, Any, None]], refusal: type[AppendRefused]
) -> None:
    """Closing raises what happened, and every put after that too; nothing more is written."""

    async def act(scene: Scene) -> None:
        await happens(scene)
        keys = await scene.stores.all_keys()
        before = await scene.stores.entries(scene.generation)
        await scene.put_all("late")
        with pytest.raises(refusal):
            await scene.close()
        with pytest.raises(refusal):
            await scene.put_all("later")
        assert scene.writer.is_settled
        assert await scene.stores.entries(scene.generation) == before
        assert await scene.stores.all_keys() == keys

    play(act)


def test_a_producer_waits_while_too_much_is_unacknowledged() -> None:
    """Back-pressure: what Redis does not take is not gathered without limit."""

    async def act(scene: Scene) -> None:
        loop = asyncio.get_running_loop()
        await scene.put_all("x" * (MAX_WAITING - 1))
        assert loop.time() == 0
        await scene.put_all("y")
        assert loop.time() > 0
        await scene.close()
        assert len((await scene.folded()).text) == MAX_WAITING

    play(act, *(Fault("not sent") for _ in range(5)))


def test_an_abandoned_writer_sends_nothing_more() -> None:
    """What the attempt left behind when it was stopped does not reach the log."""

    async def act(scene: Scene) -> None:
        await scene.put_all("left")
        scene.writer.abandon()
        assert scene.writer.is_settled
        await pass_time(timedelta(seconds=1))
        assert await scene.stores.kinds(scene.generation) == ["queued", "started"]
        with pytest.raises(AppendRefused):
            await scene.close()

    play(act)


@given(st.lists(said_events))
def test_joined_events_say_the_same_in_fewer(said: list[Event]) -> None:
    """No two neighbours of one kind of text are left, and a client cannot tell the difference."""
    joined = _join(said)
    assert folded(joined) == folded(said)
    for one, other in pairwise(joined):
        assert not (one.type is other.type and one.type in JOINABLE)
    calls = [event for event in said if event.type not in JOINABLE]
    assert [event for event in joined if event.type not in JOINABLE] == calls
