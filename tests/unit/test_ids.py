"""Ids: one spelling, one order, and a name for each request that nobody can guess."""

import string

import fakeredis
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from shared.errors import CursorMalformed, GenerationUnknown
from shared.ids import (
    BEGINNING,
    MAX_PART,
    EntryId,
    decode_entry_id,
    derive_generation_id,
    draw_generation_id,
    parse_entry_id,
    parse_generation_id,
)
from tests.support.virtual_clock import run_virtual

SECRET = b"s" * 32

parts = st.integers(0, MAX_PART)
entry_ids = st.builds(EntryId, parts, parts)
# Few values near each other, so that equal halves and differing lengths occur.
near_ids = st.builds(EntryId, st.integers(1, 12), st.integers(0, 12))


@given(entry_ids)
def test_an_entry_id_is_read_back_from_its_text(entry_id: EntryId) -> None:
    """Text and id name each other, as a cursor and as Redis writes it."""
    assert parse_entry_id(str(entry_id)) == entry_id
    assert decode_entry_id(str(entry_id).encode()) == entry_id


@given(st.lists(st.one_of(near_ids, entry_ids), min_size=1, max_size=8, unique=True))
def test_order_of_ids_is_the_order_of_redis(ids: list[EntryId]) -> None:
    """What sorts last here is what a stream takes as newer, and the other way round."""
    assume(BEGINNING not in ids)

    async def in_order_of_redis() -> list[EntryId]:
        async with fakeredis.FakeAsyncRedis(protocol=2) as client:
            accepted: list[EntryId] = []
            for entry_id in ids:
                try:
                    await client.xadd("log", {"t": "x"}, id=str(entry_id))
                except ResponseError:
                    continue
                accepted.append(entry_id)
            return accepted

    highest, expected = BEGINNING, []
    for entry_id in ids:
        if entry_id > highest:
            highest = entry_id
            expected.append(entry_id)
    assert run_virtual(in_order_of_redis()) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "0", "1-", "-1", "--1", "1--1", "1-2-3", "1-*", "*", "$", ">", "(1-0", "+"),
        *("01-0", "1-00", "1-01", "00-0", "1 -0", "1- 0", " 1-0", "1-0 ", "+1-0", "1-+0"),
        *("1-0\n", "1-0\r", "\n1-0", "1-0\0", "\x001-0", "1\0-0", "1-0\r\n", "1-0\u2028"),
        *("\u0661-\u0662", "1-\u0662", "\uff11-\uff10", "\xb2-0", "1\u20110", "1\u20130"),
        *("0x1-0", "1e3-0", "1_0-0", "1.0-0"),
        *(f"{2**64}-0", f"0-{2**64}", f"{10**19 * 2}-0", "9" * 40 + "-0", "0-" + "9" * 40),
        *("null", "undefined", "gen_x/1-0", "1-0,2-0", "9" * 5000 + "-0"),
    ],
)
def test_a_malformed_cursor_is_refused(text: str) -> None:
    """There is one spelling of each id; everything else is an error and never a guess."""
    with pytest.raises(CursorMalformed):
        parse_entry_id(text)


@given(st.text(alphabet="0123456789-+ \n\r\0\u0661a", max_size=24))
def test_whatever_is_accepted_is_spelled_canonically(text: str) -> None:
    """A cursor that passes is the text of the id it stands for."""
    try:
        entry_id = parse_entry_id(text)
    except CursorMalformed:
        return
    assert str(entry_id) == text


def test_the_outermost_ids_are_accepted() -> None:
    """Zero, and the largest id that Redis can hold."""
    assert parse_entry_id("0-0") == BEGINNING
    assert parse_entry_id(f"{MAX_PART}-{MAX_PART}") == EntryId(MAX_PART, MAX_PART)


def test_the_successor_stays_in_its_epoch() -> None:
    """Ids within an epoch are dense."""
    assert EntryId(7, 9).successor == EntryId(7, 10)


# --- generation ids -----------------------------------------------------------------------------


def test_drawn_ids_are_all_different_and_well_formed() -> None:
    """Each names one generation, and is accepted where ids are read."""
    drawn = {draw_generation_id() for _ in range(1000)}
    assert len(drawn) == 1000
    assert {parse_generation_id(generation) for generation in drawn} == drawn


@pytest.mark.parametrize(
    "text",
    [
        *("", "gen_", "gen_" + "a" * 31, "gen_" + "a" * 33, "GEN_" + "a" * 32, "a" * 36),
        *("gen_" + "A" * 32, "gen_" + "1" * 32, "gen_" + "a" * 31 + "\n", "gen_" + "a" * 32 + "\n"),
        *(" gen_" + "a" * 32, "gen_" + "é" * 32, "gen_" + "a" * 31 + "\0", "gen_{a}" + "a" * 29),
        *("../gen_" + "a" * 32, "gen_" + "a" * 31 + "/", "gen_" + "\uff12" * 32),
    ],
)
def test_what_is_no_generation_id_is_unknown(text: str) -> None:
    """No key is ever built from a text that cannot be an id."""
    with pytest.raises(GenerationUnknown):
        parse_generation_id(text)


texts = st.lists(st.text(alphabet=string.ascii_lowercase[:3], max_size=3), max_size=4)


@given(texts, texts)
def test_derived_ids_are_unambiguous_in_their_parts(one: list[str], other: list[str]) -> None:
    """Two requests share an id only if every part is the same: no joining makes two alike."""
    same = derive_generation_id(*one, secret=SECRET) == derive_generation_id(*other, secret=SECRET)
    assert same == (one == other)


@given(st.lists(st.text(), max_size=3))
def test_a_derived_id_is_an_id_like_any_other(key: list[str]) -> None:
    """Whatever characters a key has (half surrogates are refused at the door)."""
    derived = derive_generation_id(*key, secret=SECRET)
    assert parse_generation_id(derived) == derived == derive_generation_id(*key, secret=SECRET)


def test_a_derived_id_depends_on_the_secret() -> None:
    """Knowing somebody's idempotency key is not knowing the id."""
    ids = {
        derive_generation_id("tenant", "key", secret=secret)
        for secret in (b"", b"a", b"b", b"a" * 64, b"a" * 65, b"a" * 128)
    }
    assert len(ids) == 6
