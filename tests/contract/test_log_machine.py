"""Owners, zombies, cancels, deadlines, lost writes in any order: the log is what the model says.

The model is a list: whoever the last claim belongs to may add to it, and nobody else.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import fakeredis
import redis.asyncio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from shared.event_log import AppendReply
from shared.events import Entry, EventType, decode_entries, encode_data
from shared.failures import GENERATION_TIMEOUT, QUEUE_TIMEOUT, Failure
from shared.generation import State
from shared.generation_store import Claim, ClaimOutcome, Closed
from shared.ids import EntryId, GenerationId
from tests.support.fold import check_log
from tests.support.redis_server import RedisServer
from tests.support.stores import Snapshot, Stores, tokens

STEPS = (
    *("claim", "claim_twice", "pass_deadline"),
    *(*["append"] * 5, *["repair"] * 2, *["remember"] * 3, *["lose_writes"] * 2),
)
ENDS = ("close", "cancel", "fail", "expire")
"""Rare: a log that is closed has little left to go wrong."""

BROKEN = Failure("broken", "It broke.", False)


@dataclass(frozen=True, slots=True)
class Model:
    """What the log and its record should be."""

    log: tuple[Entry, ...]
    state: State = State.QUEUED
    owner: str = ""
    is_overdue: bool = False

    def takes(self, token: str, first: EntryId) -> bool:
        """Whether an append may change anything: by the owner, while open, without a hole."""
        stands = bool(self.log) and self.log[-1].id.successor == first
        return self.state is State.RUNNING and self.owner == token and stands


@dataclass(slots=True)
class Writer:
    """One attempt, alive or long dead, and every entry it ever encoded."""

    token: str
    seen_epoch: int
    resets: bool
    claimed: EntryId
    entries: list[Entry] = field(default_factory=list)

    @property
    def last(self) -> EntryId:
        return self.entries[-1].id if self.entries else self.claimed


class LogMachine(RuleBasedStateMachine):
    """Drives one generation of a real store."""

    def __init__(self, connect: Callable[[], redis.asyncio.Redis]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.connection = self.runner.run(_opened(connect))
        self.stores = Stores(self.connection)
        self.generation: GenerationId = self.do(self.stores.create())
        self.model = Model(tuple(self.do(self.stores.log.read(self.generation, EntryId(0, 0)))))
        self.writers: list[Writer] = []
        self.moments: list[tuple[Snapshot, Model]] = []
        self.said: dict[EntryId, Entry] = {}

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.do(self.connection.aclose())
        self.runner.close()

    @rule(data=st.data(), step=st.sampled_from([*STEPS, *STEPS, *ENDS]))
    def step(self, data: st.DataObject, step: str) -> None:
        """One rule for all, since hypothesis would leave out some of many for a whole run."""
        if step in ("append", "repair", "close", "claim_twice") and not self.writers:
            step = "claim"
        if step == "lose_writes" and not self.moments:
            step = "remember"
        getattr(self, step)(data)

    def _draw_writer(self, data: st.DataObject) -> Writer:
        """The last claimer more often than those of old."""
        return data.draw(st.sampled_from([*self.writers, *[self.writers[-1]] * 3]))

    # --- what may happen --------------------------------------------------------------------

    def claim(self, data: st.DataObject) -> None:
        """A claimer that read the epoch just now, or before somebody else claimed."""
        token, reset = f"w{len(self.writers)}/1", data.draw(st.booleans())
        held = self.model.log[-1].id.epoch
        seen = data.draw(st.sampled_from([held, held, *(w.claimed.epoch for w in self.writers)]))
        claim = self._claim(seen, token, reset=reset)
        if self.model.state.is_closed:
            assert claim.outcome is ClaimOutcome.CLOSED
            return
        if seen != held:
            assert claim.outcome is ClaimOutcome.MOVED
            return
        assert claim.outcome is ClaimOutcome.CLAIMED
        epoch, before = claim.last_id.epoch, self.model.log[-1].id
        assert epoch > before.epoch
        # The first claim sets a new deadline: until then it bounds the wait in the queue.
        overdue = self.model.is_overdue and self._attempts() > 0
        assert (claim.time_left <= timedelta(0)) is overdue
        # A lost epoch comes again once in a thousand times; the token keeps the two apart.
        self.said = {i: entry for i, entry in self.said.items() if i.epoch != epoch}
        data_of_started = encode_data({**self._started(), "prev": str(before)})
        opening = [Entry(EntryId(epoch, 0), EventType.STARTED, data_of_started)]
        if reset:
            opening.append(Entry(EntryId(epoch, 1), EventType.RESET, b"{}"))
        self.writers.append(Writer(token, seen, reset, claim.last_id))
        self.model = Model((*self.model.log, *opening), State.RUNNING, token, overdue)

    def claim_twice(self, _: st.DataObject) -> None:
        """The owner's claim arrives again, its answer having been lost: the same answer."""
        for writer in self.writers:
            if writer.token != self.model.owner:
                continue
            claim = self._claim(writer.seen_epoch, writer.token, reset=writer.resets)
            if self.model.state.is_closed:
                assert claim.outcome is ClaimOutcome.CLOSED
            else:
                assert (claim.outcome, claim.last_id) == (ClaimOutcome.CLAIMED, writer.claimed)

    def _claim(self, seen_epoch: int, token: str, *, reset: bool) -> Claim:
        claim: Claim = self.do(
            self.stores.store.claim(
                self.generation,
                seen_epoch=seen_epoch,
                token=token,
                started=self._started(),
                reset=reset,
            )
        )
        return claim

    def _attempts(self) -> int:
        return sum(entry.type is EventType.STARTED for entry in self.model.log)

    def _started(self) -> dict[str, Any]:
        return {"attempt": 1 + self._attempts(), "model": "m", "resume": "fresh"}

    def append(self, data: st.DataObject) -> None:
        """Any writer, zombies included, says something new."""
        writer = self._draw_writer(data)
        fresh = tokens(writer.last, *data.draw(st.lists(st.text("ab", max_size=2), min_size=1)))
        writer.entries += fresh
        self._send(writer, fresh)

    def repair(self, data: st.DataObject) -> None:
        """Any writer sends everything beyond where it last heard the log to end, or from before."""
        writer = self._draw_writer(data)
        if writer.entries:
            start = data.draw(st.integers(0, len(writer.entries) - 1))
            self._send(writer, writer.entries[start:])

    def _send(self, writer: Writer, entries: list[Entry]) -> None:
        reply: AppendReply = self.do(self.stores.append(self.generation, writer.token, entries))
        if self.model.takes(writer.token, entries[0].id):
            self.model = replace(self.model, log=(*self.model.log, *entries))
        self._check_reply(reply, writer)

    def close(self, data: st.DataObject) -> None:
        writer, kind = self._draw_writer(data), data.draw(st.sampled_from(["done", "failed"]))
        closing = Entry(writer.last.successor, EventType(kind), b"{}")
        reply = self.do(self.stores.close(self.generation, writer.token, closing))
        if self.model.takes(writer.token, closing.id):
            self.model = replace(self.model, log=(*self.model.log, closing), state=State(kind))
        self._check_reply(reply, writer)

    def cancel(self, _: st.DataObject) -> None:
        closed = self.do(self.stores.store.cancel(self.generation))
        self._take_over(closed, State.CANCELLED, {})

    def fail(self, _: st.DataObject) -> None:
        closed = self.do(self.stores.store.fail(self.generation, BROKEN))
        self._take_over(closed, State.FAILED, BROKEN.data)

    def pass_deadline(self, _: st.DataObject) -> None:
        """Time passes; nobody has noticed yet."""
        self.do(self.stores.pass_deadline(self.generation))
        self.model = replace(self.model, is_overdue=True)

    def expire(self, _: st.DataObject) -> None:
        """Somebody thinks that the deadline passed, rightly or by a clock of his own."""
        closed = self.do(self.stores.store.expire(self.generation))
        failure = QUEUE_TIMEOUT if self.model.state is State.QUEUED else GENERATION_TIMEOUT
        if self.model.is_overdue:
            self._take_over(closed, State.FAILED, failure.data)
        assert closed.state is self.model.state

    def _take_over(self, closed: Closed, state: State, data: dict[str, Any]) -> None:
        """Whoever holds it, an open log has ended; a closed one is as it was."""
        before = self.model.log[-1].id
        if not self.model.state.is_closed:
            (entry,) = self.do(self.stores.log.read(self.generation, before))
            assert (entry.type.value, entry.id.seq) == (state.value, 0)
            assert entry.id.epoch > before.epoch
            assert entry.data == encode_data({**data, "prev": str(before)})
            self.model = replace(self.model, log=(*self.model.log, entry), state=state)
        owner = self.model.owner.partition("/")[0] or None
        assert (closed.state, closed.worker) == (self.model.state, owner)

    def remember(self, _: st.DataObject) -> None:
        """A moment to which Redis may fall back."""
        moment = self.do(self.stores.snapshot(self.generation))
        self.moments.append((moment, self.model))

    def lose_writes(self, data: st.DataObject) -> None:
        back = data.draw(st.integers(0, len(self.moments) - 1))
        del self.moments[back + 1 :]
        snapshot, self.model = self.moments[back]
        self.do(self.stores.roll_back(self.generation, snapshot))

    # --- what must hold ---------------------------------------------------------------------

    def _check_reply(self, reply: AppendReply, writer: Writer) -> None:
        mine = self.model.owner == writer.token
        assert (reply.state, reply.mine) == (self.model.state, mine)
        assert reply.last_id == self.model.log[-1].id

    @invariant()
    def log_is_sound_and_as_the_model_says(self) -> None:
        raw = self.do(self.stores.entries(self.generation))
        check_log(raw, closed=self.model.state.is_closed)
        assert decode_entries(raw) == list(self.model.log)

    @invariant()
    def record_agrees_with_the_log(self) -> None:
        record = self.do(self.stores.store.record(self.generation))
        assert (record.state, record.token) == (self.model.state, self.model.owner)
        assert record.epoch == self.model.log[-1].id.epoch

    @invariant()
    def no_id_ever_says_two_things(self) -> None:
        """What a reader saw before a roll-back is what it would see after the repair."""
        for entry in self.model.log:
            if entry.type is EventType.TOKEN:
                assert self.said.setdefault(entry.id, entry) == entry


async def _opened(connect: Callable[[], redis.asyncio.Redis]) -> redis.asyncio.Redis:
    return connect()


def _run(connect: Callable[[], redis.asyncio.Redis]) -> None:
    class Connected(LogMachine):
        def __init__(self) -> None:
            super().__init__(connect)

    run_state_machine_as_test(Connected, settings=settings(stateful_step_count=30))


def test_any_history_leaves_a_sound_log_on_fakeredis() -> None:
    """Claims, appends, zombies, ends of all kinds, roll-backs and repairs leave I1 to I5 intact."""
    _run(lambda: fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2))


def test_any_history_leaves_a_sound_log_on_a_real_server(real_server: RedisServer) -> None:
    """The same against servers whose scripts are Redis' own."""
    _run(real_server.client)
