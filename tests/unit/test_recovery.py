"""How the next attempt at a generation begins."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared.generation import Record, State, Surface
from shared.ids import BEGINNING
from worker.recovery import plan_attempt

RECORD = Record(
    state=State.QUEUED,
    epoch=1,
    token="",
    tenant="default",
    surface=Surface.NATIVE,
    request={"messages": []},
    model=None,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    started_at=None,
    finished_at=None,
    deadline=datetime(2026, 1, 2, tzinfo=UTC),
    attempts=0,
    handovers=0,
    reset_at=BEGINNING,
    usage=None,
)


@pytest.mark.parametrize("surface", list(Surface))
def test_the_first_attempt_is_fresh(surface: Surface) -> None:
    """Nothing is forgotten and nothing has to be empty, whoever asked."""
    plan = plan_attempt(replace(RECORD, surface=surface), default_model="m", max_deaths=2)
    assert plan is not None
    assert plan.started == {"attempt": 1, "model": "m", "resume": "fresh"}
    assert (plan.reset, plan.needs_empty_log) == (False, False)


def test_a_later_attempt_restarts_and_makes_clients_forget() -> None:
    """Where the surface can say so, in the same step as the claim."""
    record = replace(RECORD, attempts=1, state=State.RUNNING)
    plan = plan_attempt(record, default_model="m", max_deaths=2)
    assert plan is not None
    assert plan.started == {"attempt": 2, "model": "m", "resume": "restart"}
    assert (plan.reset, plan.needs_empty_log) == (True, False)


def test_a_chat_that_has_said_something_is_not_restarted() -> None:
    """Its clients cannot forget: only an attempt that left nothing may be repeated."""
    record = replace(RECORD, attempts=1, surface=Surface.CHAT)
    plan = plan_attempt(record, default_model="m", max_deaths=2)
    assert plan is not None
    assert (plan.reset, plan.needs_empty_log) == (False, True)


def test_every_attempt_asks_the_model_of_the_first() -> None:
    """A model that was chosen stays; only where none was, the default serves."""
    plan = plan_attempt(replace(RECORD, model="chosen"), default_model="m", max_deaths=2)
    assert plan is not None
    assert plan.model == "chosen"


@pytest.mark.parametrize(("attempts", "is_enough"), [(0, False), (2, False), (3, True), (4, True)])
def test_there_are_so_many_attempts_and_no_more(attempts: int, is_enough: bool) -> None:
    """A generation that kills its workers ends."""
    plan = plan_attempt(replace(RECORD, attempts=attempts), default_model="m", max_deaths=2)
    assert (plan is None) is is_enough


def test_a_hand_over_is_not_held_against_a_generation() -> None:
    """However often its workers were deployed anew while it ran."""
    record = replace(RECORD, attempts=9, handovers=8)
    assert plan_attempt(record, default_model="m", max_deaths=2) is not None
