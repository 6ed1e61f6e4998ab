"""A record or a log that somebody else wrote over is told by name, and ended where it can be."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.errors import GenerationUnknown, RecordUnreadable
from shared.event_log import Question
from shared.events import Entry, EventType
from shared.failures import RECORD_UNREADABLE
from shared.generation import State
from shared.ids import BEGINNING, GenerationId
from tests.support.fold import check_log
from tests.support.stores import ORDER, Stores, tokens

FIELDS: dict[str, str | bytes] = {
    "state": "dancing",
    "epoch": "x",
    "deadline": "",
    "created_at": "1" * 30,
    "attempts": "many",
    "model": b"\xff\xfe",
    "reset_at": "no id",
    "request": "not JSON",
    "surface": "moon",
}
REQUESTS = ["[]", "7", "[" * 100_000, '{"n":' + "1" * 5_000 + "}"]


async def spoil(stores: Stores, generation: GenerationId, **fields: str | bytes) -> None:
    """Write over fields of the record."""
    pairs = [part for pair in fields.items() for part in pair]
    await stores.client.call("HSET", stores.keys.record(generation), *pairs)


async def make_list(stores: Stores, key: str) -> None:
    await stores.client.call("DEL", key)
    await stores.client.call("RPUSH", key, "garbage")


async def condemn(stores: Stores, generation: GenerationId) -> None:
    await stores.store.condemn(generation, RECORD_UNREADABLE)


async def check_unreadable(stores: Stores, generation: GenerationId) -> None:
    """Whoever reads the record hears that it is unreadable, not what Python thinks of it."""
    for call in (stores.store.record, stores.log.view):
        with pytest.raises(RecordUnreadable):
            await call(generation)


async def check_ended(stores: Stores, generation: GenerationId) -> None:
    """The log has its one end, and the record can be read again and says so."""
    check_log(await stores.entries(generation))
    assert (await stores.kinds(generation))[-1] == "failed"
    record = await stores.store.record(generation)
    assert record.state is State.FAILED
    assert record.finished_at is not None
    assert (await stores.store.cancel(generation)).state is State.FAILED


@pytest.mark.parametrize("field", FIELDS)
async def test_a_garbled_field_is_told_by_name_and_its_generation_can_be_ended(
    stores: Stores, field: str
) -> None:
    """Running, with an answer begun: what was said stands, and everybody reads the end."""
    generation = await stores.create()
    claim = await stores.claim(generation, "w/1")
    await stores.append(generation, "w/1", tokens(claim.last_id, "a"))
    await spoil(stores, generation, **{field: FIELDS[field]})
    await check_unreadable(stores, generation)
    await condemn(stores, generation)
    assert await stores.kinds(generation) == ["queued", "started", "token", "failed"]
    if field == "surface":
        return  # whose wire format it speaks is not known to anybody
    await check_ended(stores, generation)


@pytest.mark.parametrize("request_json", REQUESTS, ids=["list", "number", "deep", "long"])
async def test_a_request_that_is_no_object_is_unreadable(stores: Stores, request_json: str) -> None:
    """However strange the JSON is."""
    generation = await stores.create()
    await spoil(stores, generation, request=request_json)
    await check_unreadable(stores, generation)


@pytest.mark.parametrize("missing", ["state", "epoch", "request", "deadline", "tenant"])
async def test_a_record_that_lacks_a_field_is_unreadable(stores: Stores, missing: str) -> None:
    """As one that a release before all others wrote, or half of one."""
    generation = await stores.create()
    await stores.client.call("HDEL", stores.keys.record(generation), missing)
    await check_unreadable(stores, generation)
    await condemn(stores, generation)
    assert (await stores.kinds(generation))[-1] == "failed"


Move = Callable[[Stores, GenerationId], Awaitable[Any]]
MOVES: dict[str, Move] = {
    "create": lambda s, g: s.store.create(g, ORDER),
    "record": lambda s, g: s.store.record(g),
    "claim": lambda s, g: s.store.claim(
        g, seen_epoch=1, token="w/2", started={"model": "m"}, reset=False
    ),
    "cancel": lambda s, g: s.store.cancel(g),
    "expire": lambda s, g: s.store.expire(g),
    "fail": lambda s, g: s.store.fail(g, RECORD_UNREADABLE),
    "hand_over": lambda s, g: s.store.hand_over(g, "w/1", "drain"),
    "note_failure": lambda s, g: s.store.note_failure(g, "w/1"),
    "leftover": lambda s, g: s.store.leftover(g),
    "settle": lambda s, g: s.store.settle(g, "w/1", {}, is_estimate=False),
    "erase": lambda s, g: s.store.erase(g),
    "view": lambda s, g: s.log.view(g),
}


@pytest.mark.parametrize("move", MOVES)
async def test_a_record_of_another_type_is_unreadable_to_every_move(
    stores: Stores, move: str
) -> None:
    """And no move changes what lies there."""
    generation = await stores.create()
    await make_list(stores, stores.keys.record(generation))
    with pytest.raises(RecordUnreadable):
        await MOVES[move](stores, generation)
    assert await stores.kinds(generation) == ["queued"]
    kept = await stores.client.call("LRANGE", stores.keys.record(generation), 0, -1)
    assert kept == [b"garbage"]


@pytest.mark.parametrize("move", ["claim", "cancel", "fail", "erase", "view"])
async def test_a_log_of_another_type_is_unreadable_to_every_move(stores: Stores, move: str) -> None:
    """The record alone is no generation."""
    generation = await stores.create()
    await make_list(stores, stores.keys.log(generation))
    with pytest.raises(RecordUnreadable):
        await MOVES[move](stores, generation)
    with pytest.raises(RecordUnreadable):
        await condemn(stores, generation)


async def test_a_log_outlives_its_record_of_another_type_by_its_end(stores: Stores) -> None:
    """Followers read it; what somebody put in the place of the record is left to them."""
    generation = await stores.create()
    await make_list(stores, stores.keys.record(generation))
    await condemn(stores, generation)
    await condemn(stores, generation)
    assert await stores.kinds(generation) == ["queued", "failed"]
    check_log(await stores.entries(generation))


async def test_what_has_ended_is_not_ended_again(stores: Stores) -> None:
    """A record that was garbled after the end leaves the log as it is."""
    generation = await stores.create()
    claim = await stores.claim(generation, "w/1")
    done = Entry(claim.last_id.successor, EventType.DONE, b"{}")
    await stores.close(generation, "w/1", done)
    await spoil(stores, generation, state="dancing", attempts="many")
    await condemn(stores, generation)
    assert await stores.kinds(generation) == ["queued", "started", "done"]
    assert (await stores.store.record(generation)).state is State.DONE


async def test_what_is_not_there_is_not_condemned(stores: Stores) -> None:
    """No log, no end; and nothing is made anew."""
    generation = await stores.create()
    await stores.client.call("DEL", stores.keys.log(generation))
    with pytest.raises(GenerationUnknown):
        await condemn(stores, generation)
    assert (await stores.store.record(generation)).state is State.QUEUED


async def test_the_writer_of_a_condemned_one_is_shut_out(stores: Stores) -> None:
    """Its epoch is over, like that of one who was cancelled."""
    generation = await stores.create()
    claim = await stores.claim(generation, "w/1")
    await condemn(stores, generation)
    reply = await stores.append(generation, "w/1", tokens(claim.last_id, "late"))
    assert reply.state is State.FAILED
    assert reply.epoch > claim.last_id.epoch
    assert await stores.kinds(generation) == ["queued", "started", "failed"]


async def test_lifetimes_stay_as_they_were(stores: Stores) -> None:
    """Nothing that is condemned becomes immortal."""
    generation = await stores.create()
    await spoil(stores, generation, retention_ms="long")
    await condemn(stores, generation)
    assert min(await stores.lifetimes_ms(generation)) > 0


@pytest.mark.parametrize("field", ["state", "epoch", "retention_ms"])
async def test_one_garbled_record_spoils_no_other_command_of_a_round_trip(
    stores: Stores, field: str
) -> None:
    """Its writer hears of it; all others in the same pipeline get their answers."""
    spoilt, other = await stores.create(), await stores.create()
    claims = [await stores.claim(generation, "w/1") for generation in (spoilt, other)]
    await spoil(stores, spoilt, **{field: "x"})
    replies = await stores.log.send(
        [
            stores.log.close_command(
                generation,
                "w/1",
                Entry(claim.last_id.successor, EventType.DONE, b"{}"),
                b"",
            )
            for generation, claim in zip((spoilt, other), claims, strict=True)
        ]
    )
    assert isinstance(replies[0], RecordUnreadable)
    assert not isinstance(replies[1], Exception)
    assert (await stores.store.record(other)).state is State.DONE


@pytest.mark.parametrize("key", ["record", "log"])
async def test_one_garbled_generation_spoils_no_other_view_of_a_round_trip(
    stores: Stores, key: str
) -> None:
    """Readers of many logs ask together: each gets its own answer."""
    spoilt, other = await stores.create(), await stores.create()
    await make_list(stores, getattr(stores.keys, key)(spoilt))
    asked = [Question(generation, BEGINNING) for generation in (spoilt, other)]
    views = await stores.log.view_all(asked)
    assert isinstance(views[0], RecordUnreadable)
    assert views[1] == await stores.log.view(other)
