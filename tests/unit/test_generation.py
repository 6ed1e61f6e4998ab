"""The record and its keys, as they lie in Redis."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.generation import Record, State, Surface, decode_record
from shared.ids import BEGINNING, EntryId, GenerationId
from shared.keys import Keys

QUEUED = {
    b"v": b"1",
    b"fingerprint": b"abc",
    b"state": b"queued",
    b"epoch": b"1760000000123",
    b"created_at": b"1760000000000",
    b"deadline": b"1760000300000",
    b"timeout_ms": b"900000",
    b"retention_ms": b"3600000",
    b"tenant": b"default",
    b"surface": b"chat",
    b"request": '{"messages":[{"role":"user","content":"é"}]}'.encode(),
    b"model": b"",
}
ENDED = {
    **QUEUED,
    b"state": b"done",
    b"token": b"host-1/abc.0",
    b"model": b"m",
    b"attempts": b"2",
    b"started_at": b"1760000001500",
    b"finished_at": b"1760000009000",
    b"reset_at": b"1760000002000-1",
    b"usage": b'{"completion_tokens":3}',
}


def decoded(fields: dict[bytes, bytes]) -> Record:
    record = decode_record(fields)
    assert record is not None
    return record


def test_a_queued_record_leaves_open_what_has_not_happened() -> None:
    """No model, no owner, no start, no end, no usage, no reset, no attempt."""
    record = decoded(QUEUED)
    assert (record.state, record.surface, record.epoch) == (
        State.QUEUED,
        Surface.CHAT,
        1760000000123,
    )
    assert record.request == {"messages": [{"role": "user", "content": "é"}]}
    assert (record.model, record.worker, record.usage) == (None, None, None)
    assert (record.started_at, record.finished_at, record.attempts) == (None, None, 0)
    assert record.reset_at == BEGINNING


def test_an_ended_record_tells_its_whole_life() -> None:
    """Times are UTC with milliseconds; the owner's token names its worker."""
    record = decoded(ENDED)
    assert record.created_at == datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC)
    assert record.started_at == record.created_at + timedelta(milliseconds=1500)
    assert record.finished_at == record.created_at + timedelta(seconds=9)
    assert (record.model, record.worker, record.attempts) == ("m", "host-1", 2)
    assert record.usage == {"completion_tokens": 3}
    assert record.reset_at == EntryId(1760000002000, 1)


@pytest.mark.parametrize("fields", [{}, {**ENDED, b"erased_at": b"1"}], ids=["none", "erased"])
def test_what_is_not_there_or_was_erased_has_no_record(fields: dict[bytes, bytes]) -> None:
    """A deleted generation is hidden while its keys remain."""
    assert decode_record(fields) is None


def test_an_empty_usage_is_none() -> None:
    """A close without usage leaves an empty field."""
    assert decoded({**ENDED, b"usage": b""}).usage is None


@pytest.mark.parametrize("state", list(State))
def test_only_what_is_open_can_be_overdue(state: State) -> None:
    """At its deadline, not before; and never once it has ended."""
    record = decoded({**ENDED, b"state": state.value.encode()})
    before = record.deadline - timedelta(milliseconds=1)
    assert record.is_overdue(before) is False
    assert record.is_overdue(record.deadline) is (state in (State.QUEUED, State.RUNNING))
    assert state.is_closed is (state in (State.DONE, State.CANCELLED, State.FAILED))


def test_record_and_log_share_a_slot_of_a_cluster_under_any_prefix() -> None:
    """The hash tag, the first pair of braces with something in it, is the id alone."""
    generation = GenerationId("gen_" + "a" * 32)
    for keys in (Keys(), Keys("stage:")):
        for key in (keys.record(generation), keys.log(generation)):
            assert key[key.index("{") + 1 : key.index("}")] == generation


def test_a_prefix_keeps_deployments_apart() -> None:
    """No name of ours is the same under another prefix, and no two names are the same."""
    generation = GenerationId("gen_" + "a" * 32)

    def names(keys: Keys) -> set[str]:
        named = {keys.secret, keys.queue, keys.wake, keys.control("w")}
        return named | {keys.record(generation), keys.log(generation)}

    assert len(names(Keys())) == 6
    assert names(Keys("a:")).isdisjoint(names(Keys()) | names(Keys("b:")))
