"""What Rejoin promises when something dies, and how long it may take.

The only place where these bounds are written down: the README's table is made from them
(`tests.support.promises_table`), the tests that show them take them from here, and
tests/unit/test_readme.py sees to it that they do:

    bound = PROMISES["worker killed"].bound.within(worker_env)
    assert took <= bound + SLACK
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pydantic import TypeAdapter
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from shared.settings import Duration
from worker.lease import LOOP_HANGS_AFTER
from worker.settings import WorkerSettings

SLACK: Final = timedelta(seconds=0.5)
"""What a busy machine may add to a bound before a test calls the promise broken."""

_SETTINGS: Final[Mapping[str, type[BaseSettings]]] = {
    "WORKER_": WorkerSettings,
    "API_": ApiSettings,
}
_DURATION: Final[TypeAdapter[timedelta]] = TypeAdapter(Duration)


@dataclass(frozen=True, slots=True)
class Bound:
    """How long it may take: the sum of settings, by their variables, and of fixed durations."""

    terms: tuple[str | timedelta, ...] = ()
    """Without any, time is not what bounds it."""
    after: str = ""
    """What must have happened before the time counts."""

    def within(self, env: Mapping[str, str] | None = None) -> timedelta:
        """Return the bound for processes that are told `env`, which by default is nothing."""
        return sum((_length(term, env or {}) for term in self.terms), timedelta(0))

    def __str__(self) -> str:
        words = [_name(term) if isinstance(term, str) else _show(term) for term in self.terms]
        formula = " + ".join([self.after, *words] if self.after else words)
        is_its_own_sum = all(isinstance(term, timedelta) for term in self.terms)
        return formula if is_its_own_sum else f"{formula}: {_show(self.within())}"


@dataclass(frozen=True, slots=True)
class Promise:
    """One row of the README's table."""

    dies: str
    client_sees: str
    bound: Bound
    shown_by: tuple[str, ...]
    """Tests, as `path::name`, or a file of which every test is about this row."""


def _default(variable: str) -> object:
    prefix, settings = next(each for each in _SETTINGS.items() if variable.startswith(each[0]))
    return settings.model_fields[variable.removeprefix(prefix).lower()].default


def _length(term: str | timedelta, env: Mapping[str, str]) -> timedelta:
    if isinstance(term, timedelta):
        return term
    return _DURATION.validate_python(env.get(term, _default(term)))


def _name(variable: str) -> str:
    prefix = next(each for each in _SETTINGS if variable.startswith(each))
    return variable.removeprefix(prefix).lower().replace("_", " ")


def _show(length: timedelta) -> str:
    minutes, seconds = divmod(length.total_seconds(), 60)
    parts = [f"{minutes:g} min"] if minutes else []
    return " ".join([*parts, f"{seconds:g} s"] if seconds or not parts else parts)


_NEXT_REQUEST = Bound(after="its next request")
_TAKE_OVER = ("WORKER_LEASE", "WORKER_MARK", timedelta(seconds=1))
_LADDER = "`started`, then the answer goes on or, after a `reset`, begins anew"

_WIRE = "tests/integration/test_resume_wire.py"
_DEATHS = "tests/chaos/test_promises_deaths.py"
_KILLS = "tests/chaos/test_kills.py"
_OUTAGES = "tests/chaos/test_promises_outages.py"

PROMISES: Final[Mapping[str, Promise]] = {
    "connection lost": Promise(
        "its own connection",
        "resumes by id",
        _NEXT_REQUEST,
        (
            f"{_WIRE}::test_a_cut_at_any_byte_of_the_history_loses_nothing",
            f"{_WIRE}::test_a_cut_at_any_byte_while_live_loses_nothing",
        ),
    ),
    "API killed": Promise(
        "an API process",
        "resumes on another",
        _NEXT_REQUEST,
        (f"{_OUTAGES}::test_a_killed_api_costs_its_followers_one_request",),
    ),
    "worker killed": Promise(
        "a worker (kill, freeze)",
        _LADDER,
        Bound(_TAKE_OVER),
        (
            f"{_KILLS}::test_a_killed_workers_answer_goes_on_in_time_whenever_it_was_killed",
            f"{_DEATHS}::test_a_frozen_worker_is_followed_by_another_in_time",
        ),
    ),
    "worker hangs": Promise(
        "a worker whose event loop hangs",
        "the same",
        Bound((LOOP_HANGS_AFTER, *_TAKE_OVER)),
        (f"{_DEATHS}::test_a_worker_whose_loop_hangs_is_followed_by_another_in_time",),
    ),
    "worker told to end": Promise(
        "a worker (SIGTERM)",
        "nothing, or the same, at once",
        Bound(("WORKER_DRAIN",)),
        (f"{_DEATHS}::test_a_worker_told_to_end_hands_over_what_its_drain_cannot_finish",),
    ),
    "no worker begins": Promise(
        "all workers, before they began",
        "`queued`, then `failed` with `queue_timeout`",
        Bound(("API_QUEUE_TIMEOUT", timedelta(seconds=5))),
        (f"{_OUTAGES}::test_without_any_worker_every_client_is_told_in_time",),
    ),
    "no worker goes on": Promise(
        "all workers, in the middle of an answer",
        "a pause, then `failed` with `generation_timeout`",
        Bound(("API_GENERATION_TIMEOUT", timedelta(seconds=5))),
        (f"{_OUTAGES}::test_without_any_worker_every_client_is_told_in_time",),
    ),
    "Redis restarted": Promise(
        "Redis, with AOF",
        "a pause; running attempts go on",
        Bound((timedelta(seconds=2),), after="its restart"),
        (f"{_OUTAGES}::test_running_attempts_go_on_in_time_after_a_restart_of_redis",),
    ),
    "Redis lost writes": Promise(
        "Redis, and its last writes with it",
        "a repaired tail, or `reset` and all of it anew",
        Bound(("WORKER_LEASE", "WORKER_MARK", timedelta(seconds=2)), after="its restart"),
        ("tests/chaos/test_lost_writes.py",),
    ),
    "provider never begins": Promise(
        "the provider, before its first token",
        f"`retrying`, {_default('WORKER_MAX_ATTEMPTS')} attempts in all, then `failed` with a code",
        Bound(("WORKER_FIRST_TOKEN_TIMEOUT",)),
        (f"{_OUTAGES}::test_a_provider_that_falls_silent_is_given_up_in_time",),
    ),
    "provider stops": Promise(
        "the provider, in the middle of an answer",
        "`retrying`, then the answer goes on or begins anew, then `failed` with a code",
        Bound(("WORKER_STALL_TIMEOUT",)),
        (f"{_OUTAGES}::test_a_provider_that_falls_silent_is_given_up_in_time",),
    ),
}
