"""Creating a generation: once for one request, all of it or nothing."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.errors import GenerationGone, GenerationUnknown, IdempotencyConflict
from shared.generation import Order, State, Surface
from shared.ids import BEGINNING, draw_generation_id
from tests.support.fold import check_log
from tests.support.stores import ORDER, Stores, tokens


async def test_a_new_generation_is_queued_and_its_log_begins_with_that(stores: Stores) -> None:
    """Record and first entry are there together, with one epoch."""
    generation = draw_generation_id()
    assert await stores.store.create(generation, ORDER) == ("created", State.QUEUED)
    check_log(await stores.entries(generation), closed=False)
    assert await stores.kinds(generation) == ["queued"]
    view = await stores.log.view(generation)
    assert view.record is not None
    assert (view.last_id.epoch, view.last_id.seq) == (view.record.epoch, 0)


async def test_the_record_says_what_was_asked(stores: Stores) -> None:
    """Request, tenant, surface, model and deadline are read back as they were given."""
    generation = await stores.create(surface=Surface.CHAT)
    record = await stores.store.record(generation)
    assert record.request == ORDER.request
    assert (record.tenant, record.surface, record.model) == ("default", Surface.CHAT, "m")
    assert record.deadline - record.created_at == ORDER.queue_timeout
    assert (record.state, record.attempts, record.worker) == (State.QUEUED, 0, None)
    assert (record.started_at, record.finished_at, record.usage) == (None, None, None)
    assert record.reset_at == BEGINNING


async def test_a_request_without_a_model_leaves_the_choice_open(stores: Stores) -> None:
    """No model is None, not an empty name."""
    generation = await stores.create(request={"messages": []})
    assert (await stores.store.record(generation)).model is None


async def test_the_same_request_finds_what_it_made_before(stores: Stores) -> None:
    """A repeat, whatever the order of its members, changes nothing and learns the state."""
    generation = await stores.create()
    before = await stores.snapshot(generation)
    again = replace(ORDER, request=dict(reversed(ORDER.request.items())))
    assert await stores.store.create(generation, again) == ("existing", State.QUEUED)
    after = await stores.snapshot(generation)
    assert (before.fields, before.entries) == (after.fields, after.entries)


async def test_a_repeat_learns_that_the_generation_runs_or_has_ended(stores: Stores) -> None:
    """The state of an existing generation is the present one."""
    generation = await stores.create()
    await stores.claim(generation, "w/1")
    assert await stores.store.create(generation, ORDER) == ("existing", State.RUNNING)
    await stores.store.cancel(generation)
    assert await stores.store.create(generation, ORDER) == ("existing", State.CANCELLED)


@pytest.mark.parametrize(
    "other",
    [
        replace(ORDER, request={**ORDER.request, "temperature": 1}),
        replace(ORDER, surface=Surface.CHAT),
    ],
    ids=["request", "surface"],
)
async def test_another_request_under_the_same_id_is_a_conflict(
    stores: Stores, other: Order
) -> None:
    """What was created is never overwritten, nor passed off as the answer to something else."""
    generation = await stores.create()
    before = await stores.snapshot(generation)
    with pytest.raises(IdempotencyConflict):
        await stores.store.create(generation, other)
    after = await stores.snapshot(generation)
    assert (before.fields, before.entries) == (after.fields, after.entries)


async def test_other_time_outs_are_not_another_request(stores: Stores) -> None:
    """A deploy with other settings does not turn a repeat into a conflict."""
    generation = await stores.create()
    other = replace(ORDER, queue_timeout=timedelta(seconds=1), retention=timedelta(seconds=2))
    assert await stores.store.create(generation, other) == ("existing", State.QUEUED)


async def test_an_erased_generation_is_gone_and_not_made_anew(stores: Stores) -> None:
    """While the keys of a deleted one remain, its id stays taken."""
    generation = await stores.create()
    await stores.store.erase(generation)
    with pytest.raises(GenerationGone):
        await stores.store.create(generation, ORDER)
    with pytest.raises(GenerationGone):
        await stores.store.create(generation, replace(ORDER, request={"messages": []}))


async def test_an_unknown_generation_has_no_record(stores: Stores) -> None:
    """Asking for one that never was is an error, not an empty record."""
    with pytest.raises(GenerationUnknown):
        await stores.store.record(draw_generation_id())


async def test_the_request_survives_every_character(stores: Stores) -> None:
    """What the client said reaches the worker unchanged, NUL, emoji and half surrogates too."""
    said = "\x00\r\n\u2028 é 👋 \ud83d \ufeff"
    request = {"messages": [{"role": "user", "content": said}]}
    generation = await stores.create(request=request)
    assert (await stores.store.record(generation)).request == request


async def test_a_view_shows_record_last_id_and_what_lies_beyond_the_cursor(stores: Stores) -> None:
    """One round trip shows three things that agree with each other."""
    generation = await stores.create()
    claim = await stores.claim(generation, "w/1")
    entries = tokens(claim.last_id, "a", "b", "c")
    await stores.append(generation, "w/1", entries)
    view = await stores.log.view(generation, entries[0].id)
    assert view.entries == entries[1:]
    assert view.last_id == entries[-1].id
    assert view.record is not None
    assert view.record.epoch == view.last_id.epoch
    page = await stores.log.view(generation, claim.last_id, count=2)
    assert (page.entries, page.last_id) == (entries[:2], entries[-1].id)


async def test_a_view_of_nothing_is_empty(stores: Stores) -> None:
    """No record, no entries, and the cursor before everything."""
    view = await stores.log.view(draw_generation_id())
    assert (view.record, view.entries, view.last_id) == (None, [], BEGINNING)


async def test_reading_is_exclusive_ordered_and_bounded(stores: Stores) -> None:
    """A cursor is the last entry one has; pages follow each other without gap or overlap."""
    generation = await stores.create()
    claim = await stores.claim(generation, "w/1")
    await stores.append(generation, "w/1", tokens(claim.last_id, *"abcdefg"))
    read, cursor = [], claim.last_id
    while page := await stores.log.read(generation, cursor, count=3):
        assert len(page) <= 3
        read += [json.loads(entry.data)["text"] for entry in page]
        cursor = page[-1].id
    assert read == list("abcdefg")
