"""How an ownership begins, or does not: what is announced is what is done, and garbage is ended."""

import asyncio
from datetime import timedelta

import pytest

from shared.events import Entry, EventType, encode_data
from shared.generation import State, Upstream
from shared.ids import EntryId, GenerationId
from tests.support.owning import Owning, RunServer, play_owning, wait_begun
from tests.support.scripted_model import SILENCE, ended, text
from tests.support.virtual_clock import pass_time
from worker.outcome import Outcome

ABC = [text("a"), text("b"), text("c"), ended("completed")]
FAILED = ended("failed", error={"code": "server_error", "message": "oops"})
LADDER = {"*": ("reattach", "continue", "restart")}


async def resumes(owning: Owning, generation: GenerationId) -> list[str]:
    return [attempt["resume"] for attempt in (await owning.folded(generation)).attempts]


async def spoil(owning: Owning, generation: GenerationId) -> None:
    """Write over the record, as somebody else might."""
    record = owning.stores.keys.record(generation)
    await owning.stores.client.call("HSET", record, "state", "dancing", "attempts", "many")


# --- what is announced --------------------------------------------------------------------------


async def call_tool(owning: Owning, generation: GenerationId, last: EntryId) -> None:
    data = encode_data({"index": 0, "name": "f", "arguments": "{"})
    entry = Entry(last.successor, EventType.TOOL_CALL, data)
    await owning.stores.append(generation, "v/1", [entry])


def test_a_rung_that_does_not_apply_is_not_announced() -> None:
    """No prefix carries a tool call: the answer begins anew, and is said to in one step."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        last = (await owning.stores.claim(generation, "v/1")).last_id
        await call_tool(owning, generation, last)
        assert await owning.own(generation).run() is Outcome.FINISHED
        assert await resumes(owning, generation) == ["fresh", "restart"]
        kinds = await owning.stores.kinds(generation)
        assert kinds[2:5] == ["tool_call", "started", "reset"]
        assert kinds.count("reset") == 1
        assert (await owning.folded(generation)).text == "abc"

    play_owning(server, act, ladder=LADDER)


def test_where_nothing_was_said_nothing_is_announced_to_go_on() -> None:
    """Its worker died before the first word: whatever the ladder, this is a first attempt."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        await owning.stores.claim(generation, "v/1")
        assert await owning.own(generation).run() is Outcome.FINISHED
        assert await resumes(owning, generation) == ["fresh", "fresh"]
        assert "reset" not in await owning.stores.kinds(generation)

    play_owning(server, act, ladder=LADDER)


def test_a_run_whose_words_were_taken_back_is_not_announced_as_rejoined() -> None:
    """Behind its position would be a hole: it is ended, and another one asked for."""
    server = RunServer(ABC, ABC)
    server.begun.append("resp_1")

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        last = (await owning.stores.claim(generation, "v/1")).last_id
        await owning.say(generation, "v/1", last, "ab", Upstream("resp_1", 2))
        await owning.stores.claim(generation, "v/2", reset=True)
        assert await owning.own(generation).run() is Outcome.FINISHED
        assert (await resumes(owning, generation))[-1] == "fresh"
        assert (await owning.folded(generation)).text == "abc"
        assert server.ended == ["resp_1"]

    play_owning(server, act, ladder=LADDER)


# --- what is not begun --------------------------------------------------------------------------


def test_who_can_only_fail_it_leaves_it_to_who_claimed_it_meanwhile() -> None:
    """Another worker may have more rungs, or time: it is not ended under it."""
    server = RunServer(ABC)

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        last = (await owning.stores.claim(generation, "v/1")).last_id
        await call_tool(owning, generation, last)
        owning.store.before_fail = lambda: owning.stores.claim(generation, "x/1")
        assert await owning.own(generation).run() is Outcome.NOT_MINE
        record = await owning.stores.store.record(generation)
        assert (record.state, record.worker) == (State.RUNNING, "x")

    play_owning(server, act, ladder={"*": ("continue",)})


# --- garbage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_record_that_cannot_be_read_is_ended_and_its_run_with_it(attempts: int) -> None:
    """Whoever leases its job: the client hears why, and nothing goes on at the provider."""
    server = RunServer(ABC)
    server.begun.append("resp_1")

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        if attempts:
            last = (await owning.stores.claim(generation, "v/1")).last_id
            await owning.say(generation, "v/1", last, "a", Upstream("resp_1", 1))
        await spoil(owning, generation)
        assert await owning.own(generation).run() is Outcome.FINISHED
        folded = await owning.folded(generation)
        assert folded.closing_type == "failed"
        assert folded.closing_data is not None
        assert folded.closing_data["code"] == "record_unreadable"
        assert server.ended == ["resp_1"] * attempts

    play_owning(server, act)


def test_a_record_that_is_garbled_while_it_is_written_is_ended_at_the_next_word() -> None:
    """The attempt stops, its run is ended, what was said stands."""
    server = RunServer(ABC, cuts=[(1, SILENCE)])

    async def act(owning: Owning) -> None:
        generation, other = await owning.stores.create(), await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        await wait_begun(server)
        await pass_time(timedelta(seconds=1))
        await spoil(owning, generation)
        assert await task is Outcome.FINISHED
        assert owning.freed >= 1
        folded = await owning.folded(generation)
        assert (folded.closing_type, folded.text) == ("failed", "a")
        assert "resp_1" in server.ended
        assert (await owning.stores.store.record(generation)).state is State.FAILED
        assert (await owning.stores.store.record(other)).state is State.QUEUED

    play_owning(server, act)


# --- what is paid for --------------------------------------------------------------------------


def test_who_was_fenced_while_it_paused_asks_nobody_again() -> None:
    """It learns that from the log, not from the bill."""
    server = RunServer([text("a"), FAILED], ABC, ABC)

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        task = asyncio.create_task(owning.own(generation).run())
        while "retrying" not in await owning.stores.kinds(generation):
            await pass_time(timedelta(milliseconds=1))
        await owning.stores.claim(generation, "v/1")
        assert await task is Outcome.NOT_MINE
        assert server.begun == ["resp_1"]

    play_owning(server, act, retry_pause=timedelta(milliseconds=50))
