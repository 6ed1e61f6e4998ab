"""Looks: what a writer that has nothing to say learns of its log, and who is looked at."""

import gc
import weakref
from datetime import timedelta

import pytest

from shared.errors import AppendRefused, ClaimLost, Fenced, LogAbsent, LogClosed
from shared.events import Event, EventType
from shared.generation import State, Upstream
from tests.support.faulty_client import Fault
from tests.support.stores import Snapshot
from tests.support.virtual_clock import pass_time
from tests.support.watching import SILENCE, Act, Watching, play_watched
from worker.flusher import LOOK_SLOTS
from worker.log_writer import Refusal

RUN = Upstream("run", None)


async def _cancelled(writing: Watching) -> None:
    await writing.stores.store.cancel(writing.generation)


async def _taken_over(writing: Watching) -> None:
    await writing.stores.claim(writing.generation, "v/1")


async def _gone(writing: Watching) -> None:
    await writing.stores.client.call("FLUSHALL")


async def _claim_lost(writing: Watching) -> None:
    key = writing.stores.keys.record(writing.generation)
    fields = ("state", "queued", "token", "", "epoch", 1)
    await writing.stores.client.call("HSET", key, *fields)


@pytest.mark.parametrize(
    ("happens", "refusal"),
    [(_cancelled, LogClosed), (_taken_over, Fenced), (_gone, LogAbsent), (_claim_lost, ClaimLost)],
)
@pytest.mark.parametrize("says", [True, False])
def test_a_silent_writer_learns_what_became_of_its_log(
    happens: Act, refusal: type[AppendRefused], says: bool
) -> None:
    """Within two silences, once, without a word to say; then nothing more is sent."""

    async def act(writing: Watching) -> None:
        told: list[Refusal | None] = []
        writing.writer.on_refused = lambda: told.append(writing.writer.refusal)
        if says:
            await writing.put_all("a")
        await pass_time(3 * SILENCE)
        assert told == []
        await happens(writing)
        await pass_time(2 * SILENCE)
        assert [type(refused) for refused in told] == [refusal]
        assert writing.writer.is_over
        assert writing.writer.is_settled
        sent = len(writing.log.sent)
        writing.writer.look()
        await pass_time(3 * SILENCE)
        assert (len(told), len(writing.log.sent)) == (1, sent)

    play_watched(act, looks=True)


@pytest.mark.parametrize("closed", [False, True])
def test_a_tail_that_redis_lost_in_silence_is_there_again(closed: bool) -> None:
    """Under the same ids, its end too, although there is nothing to say any more."""

    async def act(writing: Watching) -> None:
        await writing.writer.note_upstream(RUN)
        await writing.writer.put(Event(EventType.TOKEN, {"text": "a"}), 1)
        await pass_time(SILENCE)
        before = await writing.stores.snapshot(writing.generation)
        await writing.writer.put(Event(EventType.TOKEN, {"text": "b"}), 2)
        if closed:
            await writing.close()
        else:
            await writing.writer.wait_written()
        whole = await writing.stores.snapshot(writing.generation)
        await writing.stores.roll_back(writing.generation, before)
        await pass_time(2 * SILENCE)
        after = await writing.stores.snapshot(writing.generation)
        assert after.entries == whole.entries
        assert await writing.upstream() == Upstream("run", 2)
        assert writing.writer.is_closed is closed
        record = await writing.stores.store.record(writing.generation)
        assert record.state is (State.DONE if closed else State.RUNNING)

    play_watched(act, looks=True)


def test_a_question_that_comes_while_another_is_under_way_is_asked_too() -> None:
    """The answer to the first may have been true only before it."""

    async def act(writing: Watching) -> None:
        writing.writer.look()
        commands = writing.writer.commands(writing.log)
        writing.writer.look()
        (reply,) = await writing.log.send(commands)
        writing.writer.take_reply(reply)
        assert not writing.writer.is_settled
        await writing.round_trip()
        assert writing.writer.is_settled

    play_watched(act, flushes=False)


def test_a_refusal_is_told_once_however_many_replies_say_it() -> None:
    """The last words and the end go out together, and both are refused."""

    async def act(writing: Watching) -> None:
        told: list[Refusal | None] = []
        writing.writer.on_refused = lambda: told.append(writing.writer.refusal)
        await _cancelled(writing)
        await writing.put_all("a")
        with pytest.raises(LogClosed):
            await writing.close()
        assert len(writing.log.sent[-1]) == 2
        assert [type(refusal) for refusal in told] == [LogClosed]

    play_watched(act)


def test_an_abandoned_writer_neither_asks_nor_tells() -> None:
    """Whoever let it go is not called back, and Redis hears nothing more of it."""

    async def act(writing: Watching) -> None:
        told: list[None] = []
        writing.writer.on_refused = lambda: told.append(None)
        await writing.put_all("left")
        writing.writer.look()
        writing.writer.abandon()
        await _cancelled(writing)
        await pass_time(3 * SILENCE)
        assert (told, writing.log.sent) == ([], [])
        with pytest.raises(AppendRefused):
            await writing.writer.note_upstream(RUN)

    play_watched(act, looks=True)


# --- after another closed it --------------------------------------------------------------------


async def shut_out(writing: Watching, *, unsaid: bool) -> Snapshot:
    """A writer that has heard that another closed its log; what there was before."""
    await writing.put_all("a")
    await writing.writer.wait_written()
    before = await writing.stores.snapshot(writing.generation)
    await _cancelled(writing)
    if unsaid:
        await writing.put_all("b")
    writing.writer.look()
    with pytest.raises(LogClosed):
        await writing.writer.wait_written()
    return before


@pytest.mark.parametrize("unsaid", [False, True])
def test_an_end_by_another_that_still_stands_is_told_again(unsaid: bool) -> None:
    """Whoever looks once more finds the log closed, and has changed nothing."""

    async def act(writing: Watching) -> None:
        await shut_out(writing, unsaid=unsaid)
        before = await writing.stores.entries(writing.generation)
        writing.writer.reopen()
        assert not writing.writer.is_over
        with pytest.raises(LogClosed):
            await writing.writer.wait_written()
        assert await writing.stores.entries(writing.generation) == before

    play_watched(act)


@pytest.mark.parametrize("unsaid", [False, True])
@pytest.mark.parametrize("lost", ["end", "end and tail"])
def test_an_end_by_another_that_redis_lost_is_noticed(lost: str, unsaid: bool) -> None:
    """The log is open again, whole as far as it was ever seen, and nothing more."""

    async def act(writing: Watching) -> None:
        begun = await writing.stores.snapshot(writing.generation)
        before = await shut_out(writing, unsaid=unsaid)
        await writing.stores.roll_back(writing.generation, before if lost == "end" else begun)
        writing.writer.reopen()
        await writing.writer.wait_written()
        assert writing.writer.is_settled
        assert await writing.stores.entries(writing.generation) == before.entries

    play_watched(act)


def test_more_in_the_log_than_was_ever_heard_of_is_no_trouble() -> None:
    """The reply to the last words was lost, then an end: nothing is left to send for it."""

    async def act(writing: Watching) -> None:
        await writing.put_all("a")
        await writing.round_trip(reply_lost=True)
        assert (await writing.folded(closed=False)).text == "a"
        writing.writer.reopen()
        await writing.round_trip()
        assert writing.writer.is_settled

    play_watched(act, flushes=False)


def test_what_another_did_to_the_log_is_not_forgotten_by_asking_again() -> None:
    """Only an end can be lost: who was shut out by a newer owner stays out."""

    async def act(writing: Watching) -> None:
        await _taken_over(writing)
        writing.writer.look()
        with pytest.raises(Fenced):
            await writing.writer.wait_written()
        writing.writer.reopen()
        with pytest.raises(Fenced):
            await writing.writer.wait_written()

    play_watched(act)


# --- who is looked at ---------------------------------------------------------------------------


def test_only_a_silent_log_is_looked_at() -> None:
    """Whoever writes is told by the replies; silence is asked about twice a second, no more."""

    async def act(writing: Watching) -> None:
        silent = await writing.another()
        for _ in range(40):
            await writing.put_all("a")
            await pass_time(SILENCE / 4)
        assert writing.log.looks_at(writing.generation) == 0
        looks = writing.log.looks_at(silent.generation)
        assert 5 <= looks <= 10

    play_watched(act, looks=True)


def test_many_silent_logs_are_not_looked_at_all_at_once() -> None:
    """One pipeline for all of them would hold Redis up."""

    async def act(writing: Watching) -> None:
        others = [await writing.another() for _ in range(LOOK_SLOTS * 3 - 1)]
        await pass_time(4 * SILENCE)
        assert max(len(commands) for commands in writing.log.sent) <= 3
        assert all(writing.log.looks_at(other.generation) >= 2 for other in others)

    play_watched(act, looks=True)


def test_while_redis_is_away_one_look_is_enough() -> None:
    """What was asked is asked until there is an answer; no second question is added to it."""

    async def act(writing: Watching) -> None:
        await pass_time(SILENCE * 2)
        assert not writing.writer.is_settled
        await pass_time(timedelta(seconds=2))
        assert writing.writer.is_settled
        assert writing.log.looks_at(writing.generation) == len(writing.log.sent)

    play_watched(act, *[Fault("not sent")] * 5, looks=True)


def test_a_writer_whose_time_is_over_is_forgotten() -> None:
    """It holds the whole of its epoch: that goes as soon as nobody needs it."""

    async def act(writing: Watching) -> None:
        other = await writing.another()
        remembered = weakref.ref(other)
        await pass_time(2 * SILENCE)
        other.abandon()
        del other
        await pass_time(2 * SILENCE)
        gc.collect()
        assert remembered() is None

    play_watched(act, looks=True)
