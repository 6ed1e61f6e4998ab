"""Appending to and closing a log: all or nothing, once, by its owner only."""

import json

import pytest

from shared.event_log import AppendReply
from shared.events import Entry, EventType, encode_data
from shared.generation import State
from shared.ids import BEGINNING, EntryId, GenerationId, draw_generation_id
from tests.support.fold import check_log, fold_log
from tests.support.stores import Stores, tokens

DONE = {"finish_reason": "stop", "usage": None}


async def running(stores: Stores) -> tuple[GenerationId, EntryId]:
    """A generation that `w/1` holds, and the id its next entry stands on."""
    generation = await stores.create()
    return generation, (await stores.claim(generation, "w/1")).last_id


def closing(last: EntryId, kind: EventType = EventType.DONE) -> Entry:
    return Entry(last.successor, kind, encode_data(DONE))


async def unchanged(stores: Stores, generation: GenerationId, before: object) -> bool:
    now = await stores.snapshot(generation)
    return (now.fields, now.entries) == before


async def contents(stores: Stores, generation: GenerationId) -> object:
    now = await stores.snapshot(generation)
    return now.fields, now.entries


async def test_the_owner_appends_under_the_ids_it_chose(stores: Stores) -> None:
    """Entries lie in the log as they were encoded, dense after the claim."""
    generation, last = await running(stores)
    entries = tokens(last, "a", "b", "c")
    reply = await stores.append(generation, "w/1", entries)
    assert reply == AppendReply(State.RUNNING, True, last.epoch, entries[-1].id)
    assert await stores.log.read(generation, last) == entries
    check_log(await stores.entries(generation), closed=False)


async def test_data_is_stored_byte_for_byte(stores: Stores) -> None:
    """No character of a token is changed on its way through the log."""
    generation, last = await running(stores)
    entries = tokens(last, "\x00", "\r\n", " x ", "é👋\u2028", '"\\', "\ud83d", "")
    await stores.append(generation, "w/1", entries)
    assert await stores.log.read(generation, last) == entries


async def test_the_same_append_sent_twice_adds_nothing(stores: Stores) -> None:
    """A repeat is answered with the last id of the log, as the first was."""
    generation, last = await running(stores)
    entries = tokens(last, "a", "b")
    first = await stores.append(generation, "w/1", entries)
    assert await stores.append(generation, "w/1", entries) == first
    later = tokens(entries[-1].id, "c")
    await stores.append(generation, "w/1", later)
    assert (await stores.append(generation, "w/1", entries)).last_id == later[-1].id
    assert await stores.log.read(generation, last) == [*entries, *later]


@pytest.mark.parametrize("skipped", [1, 2])
async def test_an_append_with_a_hole_before_it_is_refused_whole(
    stores: Stores, skipped: int
) -> None:
    """The log must end right before the first entry; it answers where it does end."""
    generation, last = await running(stores)
    before = await contents(stores, generation)
    entries = tokens(last, *"abcde")
    reply = await stores.append(generation, "w/1", entries[skipped:])
    assert reply == AppendReply(State.RUNNING, True, last.epoch, last)
    assert await unchanged(stores, generation, before)


async def test_an_append_that_overlaps_what_is_there_adds_nothing(stores: Stores) -> None:
    """Entries that are partly known are not sorted out by Redis: the writer sends the rest."""
    generation, last = await running(stores)
    entries = tokens(last, *"abcd")
    await stores.append(generation, "w/1", entries[:2])
    reply = await stores.append(generation, "w/1", entries)
    assert reply.last_id == entries[1].id
    assert await stores.log.read(generation, last) == entries[:2]


async def test_an_entry_that_cannot_be_added_takes_none_of_its_neighbours_along(
    stores: Stores,
) -> None:
    """Where the log ends elsewhere than a batch assumes, not even a part of it is written."""
    generation, last = await running(stores)
    await stores.append(generation, "w/1", tokens(last, "a"))
    before = await contents(stores, generation)
    await stores.append(generation, "w/1", tokens(last, *"xyz"))
    await stores.append(generation, "w/1", tokens(EntryId(last.epoch, 5), *"xyz"))
    await stores.append(generation, "w/1", tokens(EntryId(last.epoch + 1, 1), *"xyz"))
    assert await unchanged(stores, generation, before)


async def test_append_is_refused_once_a_newer_epoch_has_written(stores: Stores) -> None:
    """A zombie adds nothing, whether its entries follow its own last one or the new owner's."""
    generation, last = await running(stores)
    taken = (await stores.claim(generation, "v/1")).last_id
    before = await contents(stores, generation)
    for base in (last, taken):
        reply = await stores.append(generation, "w/1", tokens(base, "z"))
        assert (reply.mine, reply.epoch, reply.last_id) == (False, taken.epoch, taken)
    assert await unchanged(stores, generation, before)


async def test_close_is_refused_once_a_newer_epoch_has_written(stores: Stores) -> None:
    """A zombie ends nothing."""
    generation, last = await running(stores)
    taken = (await stores.claim(generation, "v/1")).last_id
    before = await contents(stores, generation)
    for base in (last, taken):
        reply = await stores.close(generation, "w/1", closing(base))
        assert (reply.state, reply.mine, reply.epoch) == (State.RUNNING, False, taken.epoch)
    assert await unchanged(stores, generation, before)


async def test_a_queued_log_takes_nothing(stores: Stores) -> None:
    """Without a claim nobody writes, not even with the token that is not there yet."""
    generation = await stores.create()
    last = (await stores.log.view(generation)).last_id
    before = await contents(stores, generation)
    for token in ("", "w/1"):
        reply = await stores.append(generation, token, tokens(last, "a"))
        assert (reply.state, reply.mine) == (State.QUEUED, False)
    assert await unchanged(stores, generation, before)


async def test_a_closed_log_takes_nothing_from_its_own_writer(stores: Stores) -> None:
    """After the closing entry the same token is refused, and told the state and the end."""
    generation, last = await running(stores)
    await stores.close(generation, "w/1", closing(last))
    before = await contents(stores, generation)
    reply = await stores.append(generation, "w/1", tokens(last.successor, "late"))
    assert reply == AppendReply(State.DONE, True, last.epoch, last.successor)
    again = await stores.close(generation, "w/1", closing(last.successor, EventType.FAILED))
    assert again == reply
    assert await unchanged(stores, generation, before)
    check_log(await stores.entries(generation))


async def test_a_cancelled_log_takes_nothing_from_its_writer(stores: Stores) -> None:
    """A cancel opens an epoch of its own: the writer sees a state and an epoch not its own."""
    generation, last = await running(stores)
    await stores.store.cancel(generation)
    before = await contents(stores, generation)
    reply = await stores.append(generation, "w/1", tokens(last, "late"))
    assert reply.state is State.CANCELLED
    assert reply.epoch > last.epoch
    assert await unchanged(stores, generation, before)


@pytest.mark.parametrize("missing", ["both", "record", "log"])
async def test_append_and_close_never_create_keys(stores: Stores, missing: str) -> None:
    """Where record or log is gone the writer is told so, and nothing comes back to life."""
    generation, last = await running(stores)
    gone = {
        "both": (stores.keys.record(generation), stores.keys.log(generation)),
        "record": (stores.keys.record(generation),),
        "log": (stores.keys.log(generation),),
    }[missing]
    await stores.client.call("DEL", *gone)
    before = await stores.all_keys()
    appended = await stores.append(generation, "w/1", tokens(last, "a"))
    closed = await stores.close(generation, "w/1", closing(last))
    assert appended.state is None
    assert closed.state is None
    assert await stores.all_keys() == before


async def test_append_to_nothing_creates_nothing(stores: Stores) -> None:
    """A generation that never was is answered like one that is gone."""
    reply = await stores.append(draw_generation_id(), "w/1", tokens(EntryId(1, 0), "a"))
    assert reply == AppendReply(None, False, 0, BEGINNING)
    assert await stores.all_keys() == set()


async def test_close_writes_entry_state_usage_and_time_together(stores: Stores) -> None:
    """The closing entry is the last one, and the record says the same."""
    generation, last = await running(stores)
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    reply = await stores.close(generation, "w/1", closing(last), json.dumps(usage).encode())
    assert reply == AppendReply(State.DONE, True, last.epoch, last.successor)
    assert fold_log(await stores.entries(generation)).closing_data == DONE
    record = await stores.store.record(generation)
    assert (record.state, record.usage) == (State.DONE, usage)
    assert record.finished_at is not None


async def test_a_close_sent_twice_is_one_close(stores: Stores) -> None:
    """The repeat gets the same answer and changes nothing, its time included."""
    generation, last = await running(stores)
    first = await stores.close(generation, "w/1", closing(last, EventType.FAILED), b"{}")
    before = await contents(stores, generation)
    assert await stores.close(generation, "w/1", closing(last, EventType.FAILED), b"{}") == first
    assert await unchanged(stores, generation, before)


async def test_a_close_with_a_hole_before_it_is_refused(stores: Stores) -> None:
    """An answer whose last tokens are missing is not ended."""
    generation, last = await running(stores)
    before = await contents(stores, generation)
    reply = await stores.close(generation, "w/1", closing(last.successor))
    assert (reply.state, reply.last_id) == (State.RUNNING, last)
    assert await unchanged(stores, generation, before)


async def test_logs_of_other_generations_are_sent_together_and_stay_apart(stores: Stores) -> None:
    """One round trip carries many logs; one that refuses does not touch the others."""
    held = [await running(stores) for _ in range(4)]
    fenced = held[2][0]
    await stores.claim(fenced, "v/1")
    replies = await stores.log.send(
        [
            stores.log.append_command(generation, "w/1", last.successor, tokens(last, "a", "b"))
            for generation, last in held
        ]
    )
    assert [isinstance(reply, AppendReply) and reply.mine for reply in replies] == [
        *(True, True),
        *(False, True),
    ]
    assert await stores.kinds(fenced) == ["queued", "started", "started"]
    for generation, last in held:
        if generation != fenced:
            assert await stores.log.read(generation, last) == tokens(last, "a", "b")
