"""Runs and who owns them: whatever comes between two steps, no word is lost, doubled or orphaned.

The worker's own code from the claim to the provider's socket; on fakeredis and a virtual clock.
"""

import asyncio
from datetime import timedelta

import pytest

from shared.events import Entry, EventType
from shared.generation import State, Upstream
from tests.support.owning import Owning, RunServer, drained, play_owning, wait_begun
from tests.support.scripted_model import SILENCE, ended, text
from tests.support.virtual_clock import pass_time
from worker.attempts import HAND_OVER_S
from worker.outcome import Outcome

A_WHILE = timedelta(seconds=1)
LONG_ENOUGH = timedelta(seconds=10)
END = ended("completed")
ABC = [text("a"), text("b"), text("c"), END]
FAILED = ended("failed", error={"code": "server_error", "message": "oops"})
DONE = b'{"finish_reason":"stop","usage":null}'
"""The data of a closing entry."""


def test_what_the_last_owner_wrote_before_the_claim_is_not_said_twice() -> None:
    """It still ran when its record was read: only the claim knows where it really stood."""
    server = RunServer(ABC)
    server.begun.append("resp_1")

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        last = (await owning.stores.claim(generation, "v/1")).last_id
        last = await owning.say(generation, "v/1", last, "a", Upstream("resp_1", 1))
        late = Upstream("resp_1", 2)
        owning.store.before_claim = lambda: owning.say(generation, "v/1", last, "b", late)
        assert await owning.own(generation).run() is Outcome.FINISHED
        assert (await owning.folded(generation)).text == "abc"
        assert server.read_from == [2]

    play_owning(server, act)


def test_a_run_that_was_asked_for_by_a_fenced_owner_is_ended() -> None:
    """It is in no record: nobody else could ever end it."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        server.gate = asyncio.Event()
        generation = await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        await wait_begun(server)
        await owning.stores.claim(generation, "v/1")
        await pass_time(A_WHILE)
        server.gate.set()
        assert await task is Outcome.NOT_MINE
        assert server.ended == ["resp_1"]
        assert await owning.upstream(generation) is None
        assert (server.left_open, owning.freed) == (0, 1)

    play_owning(server, act)


@pytest.mark.parametrize("closes", [False, True])
def test_a_run_that_was_named_but_not_noted_is_ended(closes: bool) -> None:
    """Another owned the log before the note came, and was done with it perhaps."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        server.gate = asyncio.Event()
        generation = await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        await wait_begun(server)
        last = (await owning.stores.claim(generation, "v/1")).last_id
        if closes:
            closing = Entry(last.successor, EventType.DONE, DONE)
            await owning.stores.close(generation, "v/1", closing)
        server.gate.set()
        assert await task is Outcome.NOT_MINE
        assert (server.ended, server.left_open) == (["resp_1"], 0)

    play_owning(server, act)


def test_a_run_that_the_next_owner_goes_on_with_is_not_ended() -> None:
    """It is noted: a fenced owner only lets go of its connection."""
    server = RunServer(ABC, cuts=[(1, SILENCE)])

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        await pass_time(A_WHILE)
        assert await owning.own(generation, "v/1").run() is Outcome.FINISHED
        assert await task is Outcome.NOT_MINE
        assert (await owning.folded(generation)).text == "abc"
        assert (server.begun, server.read_from, server.ended) == (["resp_1"], [1], [])
        assert server.left_open == 0

    play_owning(server, act)


def test_a_run_is_not_noted_after_it_was_ended() -> None:
    """The lease was lost while the log was away: the note that waited is not delivered later."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        back = asyncio.Event()

        async def is_away() -> bool:
            return not back.is_set()

        owning.log.is_away = is_away
        generation = await owning.stores.create()
        own = owning.own(generation)
        task = asyncio.create_task(own.run())
        await wait_begun(server)
        await pass_time(A_WHILE)
        server.end_gate = asyncio.Event()
        own.stop(Outcome.NOT_MINE)
        await pass_time(A_WHILE)
        back.set()
        await pass_time(A_WHILE)
        server.end_gate.set()
        assert await task is Outcome.NOT_MINE
        assert server.ended == ["resp_1"]
        assert await owning.upstream(generation) is None

    play_owning(server, act)


def test_a_run_that_somebody_ended_is_as_good_as_gone() -> None:
    """The next rung goes on: it was not this answer that failed."""
    server = RunServer([text("a"), text("b"), ended("cancelled", "incomplete")], ABC)
    server.begun.append("resp_1")

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        last = (await owning.stores.claim(generation, "v/1")).last_id
        await owning.say(generation, "v/1", last, "a", Upstream("resp_1", 1))
        assert await owning.own(generation).run() is Outcome.FINISHED
        folded = await owning.folded(generation)
        assert (folded.closing_type, folded.text) == ("done", "abc")
        assert [attempt["resume"] for attempt in folded.attempts][-2:] == ["reattach", "restart"]

    play_owning(server, act)


def test_a_position_in_what_was_taken_back_is_none() -> None:
    """The log was reset, its owner died before it let go of the run: what is behind is a part."""
    server = RunServer(ABC, ABC)
    server.begun.append("resp_1")

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        last = (await owning.stores.claim(generation, "v/1")).last_id
        await owning.say(generation, "v/1", last, "ab", Upstream("resp_1", 2))
        await owning.stores.claim(generation, "v/2", reset=True)
        assert await owning.own(generation).run() is Outcome.FINISHED
        assert (await owning.folded(generation)).text == "abc"
        assert (server.read_from, server.ended) == ([], ["resp_1"])

    play_owning(server, act)


# --- drained ------------------------------------------------------------------------------------


def test_a_run_without_a_name_is_handed_over_by_it() -> None:
    """Drained while it was asked for: its first event is waited for, and noted."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        server.gate = asyncio.Event()
        generation = await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        await wait_begun(server)
        task.cancel()
        await pass_time(timedelta(seconds=HAND_OVER_S / 2))
        server.gate.set()
        await drained(task)
        assert await owning.upstream(generation) == Upstream("resp_1", None)
        assert (server.ended, server.left_open) == ([], 0)
        assert await owning.own(generation, "v/1").run() is Outcome.FINISHED
        assert (await owning.folded(generation)).text == "abc"
        assert (server.begun, server.read_from) == (["resp_1"], [None])

    play_owning(server, act)


def test_a_hand_over_waits_no_longer_than_a_drain() -> None:
    """A provider that does not answer keeps no worker from ending."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        server.gate = asyncio.Event()
        generation = await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        await wait_begun(server)
        before = asyncio.get_running_loop().time()
        task.cancel()
        await drained(task)
        assert asyncio.get_running_loop().time() - before <= HAND_OVER_S
        assert server.left_open == 0

    play_owning(server, act)


def test_a_run_that_followed_another_is_handed_over_from_its_beginning() -> None:
    """How far the one before was read says nothing about it."""
    server = RunServer([text("a"), text("b"), FAILED], ABC)

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        await wait_begun(server)
        server.gate = asyncio.Event()
        await wait_begun(server, 2)
        task.cancel()
        await pass_time(timedelta(seconds=HAND_OVER_S / 2))
        server.gate.set()
        await drained(task)
        assert await owning.upstream(generation) == Upstream("resp_2", None)
        assert await owning.own(generation, "v/1").run() is Outcome.FINISHED
        assert (await owning.folded(generation)).text == "abc"

    play_owning(server, act)


def test_words_that_wait_for_room_are_handed_over_with_their_place() -> None:
    """Drained while the log is away and its writer full: what was taken is written once."""
    large = "x" * 300_000
    server = RunServer([text("a"), text(large), text("c"), END])

    async def act(owning: Owning) -> None:
        generation, back = await owning.stores.create(), asyncio.Event()

        async def is_away_behind_the_note() -> bool:
            return not back.is_set() and await owning.upstream(generation) is not None

        owning.log.is_away = is_away_behind_the_note
        task = asyncio.create_task(owning.own(generation).run())
        await pass_time(A_WHILE)
        task.cancel()
        await pass_time(timedelta(seconds=HAND_OVER_S / 4))
        back.set()
        await drained(task)
        assert await owning.own(generation, "v/1").run() is Outcome.FINISHED
        assert (await owning.folded(generation)).text == f"a{large}c"

    play_owning(server, act)


# --- cancelled ----------------------------------------------------------------------------------


def test_a_cancel_that_is_heard_before_the_claim_ends_the_last_owners_run() -> None:
    """The job goes: whoever has it then is the last who can."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        last = (await owning.stores.claim(generation, "w/0")).last_id
        await owning.say(generation, "w/0", last, "a", Upstream("resp_1", 1))
        own = owning.own(generation)
        task = asyncio.create_task(own.run())
        await pass_time(timedelta(0))
        await owning.stores.store.cancel(generation)
        own.stop()
        assert await task is Outcome.FINISHED
        record = await owning.stores.store.record(generation)
        assert record.state is State.CANCELLED
        assert record.usage is not None
        assert server.ended == ["resp_1"]

    play_owning(server, act)


def test_a_run_is_ended_although_redis_is_away() -> None:
    """What the provider does costs money by the second."""
    server = RunServer(ABC, cuts=[(1, SILENCE)])

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        own = owning.own(generation)
        task = asyncio.create_task(own.run())
        await pass_time(A_WHILE)
        await owning.stores.store.cancel(generation)
        owning.store.is_away = True
        own.stop()
        await pass_time(LONG_ENOUGH)
        assert server.ended == ["resp_1"]
        owning.store.is_away = False
        assert await task is Outcome.FINISHED

    play_owning(server, act)
