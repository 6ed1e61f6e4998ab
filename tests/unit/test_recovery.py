"""How the next attempt at a generation begins."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from shared.errors import ProviderError
from shared.events import Event, EventType
from shared.generation import Record, State, Surface, Upstream
from shared.ids import BEGINNING
from worker.recovery import (
    Plan,
    choose_resume,
    default_ladder,
    find_rungs,
    plan_attempt,
    plan_retry,
)
from worker.said import Said
from worker.settings import Rung, WorkerSettings

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
    pauses=0,
    failures=0,
    reset_at=BEGINNING,
    usage=None,
)


SETTINGS = WorkerSettings(max_deaths=2, max_attempts=3, ladder={"*": ("continue", "restart")})
BROKEN = ProviderError("provider_truncated", "Cut.", True)


def plan(record: Record, settings: WorkerSettings = SETTINGS) -> Plan | None:
    return plan_attempt(record, settings, default_model="m")


def said(*events: Event) -> Said:
    said = Said()
    for event in events:
        said.add(event)
    return said


TEXT = said(Event(EventType.TOKEN, {"text": "Half an ans"}))
CALL = said(Event(EventType.TOOL_CALL, {"index": 0, "arguments": "{"}))
THOUGHT = said(
    Event(EventType.REASONING, {"text": "Hm."}), Event(EventType.TOKEN, {"text": "Half"})
)


@pytest.mark.parametrize("surface", list(Surface))
def test_the_first_attempt_is_fresh(surface: Surface) -> None:
    """Nothing is forgotten, whoever asked."""
    first = plan(replace(RECORD, surface=surface))
    assert first is not None
    assert first.started == {"attempt": 1, "model": "m", "resume": "fresh"}
    assert first.is_first
    assert not first.reset


def test_a_later_one_begins_on_the_first_rung() -> None:
    """A restart makes clients forget in the same step as the claim, a continuation does not."""
    record = replace(RECORD, attempts=1, state=State.RUNNING)
    continued = plan(record)
    restarted = plan(record, SETTINGS.model_copy(update={"ladder": {"*": ("restart",)}}))
    assert continued is not None
    assert restarted is not None
    assert (continued.resume, continued.reset) == ("continue", False)
    assert (restarted.resume, restarted.reset) == ("restart", True)


def test_a_chat_is_never_reset() -> None:
    """Its clients cannot forget."""
    record = replace(RECORD, attempts=1, surface=Surface.CHAT)
    restarted = plan(record, SETTINGS.model_copy(update={"ladder": {"*": ("restart",)}}))
    assert restarted is not None
    assert not restarted.reset


def test_every_attempt_asks_the_model_of_the_first() -> None:
    """A model that was chosen stays; only where none was, the default serves."""
    chosen = plan(replace(RECORD, model="chosen"))
    assert chosen is not None
    assert chosen.model == "chosen"


@pytest.mark.parametrize(("attempts", "is_enough"), [(0, False), (2, False), (3, True), (4, True)])
def test_there_are_so_many_deaths_and_no_more(attempts: int, is_enough: bool) -> None:
    """A generation that kills its workers ends."""
    assert (plan(replace(RECORD, attempts=attempts)) is None) is is_enough


def test_a_hand_over_is_not_held_against_a_generation() -> None:
    """However often its workers were deployed anew while it ran."""
    assert plan(replace(RECORD, attempts=9, handovers=8)) is not None


def test_attempts_are_numbered_through_all_owners() -> None:
    """Failures in place and new owners count on; a pause between two is neither."""
    numbered = plan(replace(RECORD, attempts=2, handovers=1, pauses=1, failures=2))
    assert numbered is not None
    assert numbered.attempt == 4


@pytest.mark.parametrize(
    ("rungs", "said", "surface", "expected"),
    [
        ((), Said(), Surface.CHAT, "fresh"),
        ((), TEXT, Surface.NATIVE, None),
        (("continue", "restart"), TEXT, Surface.NATIVE, "continue"),
        (("continue", "restart"), TEXT, Surface.CHAT, "continue"),
        (("continue", "restart"), CALL, Surface.NATIVE, "restart"),
        (("continue", "restart"), THOUGHT, Surface.NATIVE, "restart"),
        (("continue", "restart"), CALL, Surface.CHAT, None),
        (("restart", "continue"), TEXT, Surface.NATIVE, "restart"),
        (("restart",), TEXT, Surface.CHAT, None),
    ],
)
def test_the_first_rung_that_applies_is_taken(
    rungs: tuple[Rung, ...], said: Said, surface: Surface, expected: str | None
) -> None:
    """A prefix carries text only; only native clients can forget."""
    assert choose_resume(rungs, said, surface, None) == expected


def test_a_model_has_the_ladder_of_the_first_pattern_it_matches() -> None:
    """And none at all where nothing matches."""
    ladder: dict[str, tuple[Rung, ...]] = {"gpt-*": ("restart",), "llama*": ("continue",)}
    settings = SETTINGS.model_copy(update={"ladder": ladder})
    found = [find_rungs(settings, model) for model in ("gpt-5.2", "llama4", "other")]
    assert found == [("restart",), ("continue",), ()]


def test_a_failure_that_a_repeat_may_mend_is_repeated_until_there_were_enough() -> None:
    """The last of the attempts is not followed by another."""
    retries = [plan_retry(BROKEN, RECORD, Said(), None, SETTINGS, attempts=n) for n in (1, 2, 3)]
    assert [retry is not None for retry in retries] == [True, True, False]
    final = ProviderError("provider_rejected", "No.", False)
    assert plan_retry(final, RECORD, Said(), None, SETTINGS, attempts=1) is None


def test_pauses_grow_and_stay_in_their_bounds() -> None:
    """Doubled each time, with jitter downwards, and never beyond what a worker waits itself."""
    settings = SETTINGS.model_copy(
        update={
            "max_attempts": 99,
            "retry_pause": timedelta(seconds=1),
            "max_retry_pause": timedelta(seconds=10),
        }
    )
    for attempts, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (60, 10)):
        retry = plan_retry(BROKEN, RECORD, Said(), None, settings, attempts=attempts)
        assert retry is not None
        assert timedelta(seconds=longest / 2) <= retry.pause <= timedelta(seconds=longest)
        assert not retry.gives_slot_back


def test_a_provider_that_names_a_long_pause_gets_it_without_a_slot() -> None:
    """Shorter ones are waited in place, to the second."""
    long, short = (
        ProviderError("provider_rate_limited", "", True, retry_after=timedelta(seconds=s))
        for s in (600, 3)
    )
    waits = [
        plan_retry(error, RECORD, Said(), None, SETTINGS, attempts=1) for error in (long, short)
    ]
    assert [(w.pause.seconds, w.gives_slot_back) for w in waits if w] == [(600, True), (3, False)]


# --- re-attach ----------------------------------------------------------------------------------

RUN = Upstream("resp_1", 7)
UNREAD = Upstream("resp_1", None)


@pytest.mark.parametrize(
    ("rungs", "said", "surface", "run", "expected"),
    [
        (("reattach", "restart"), TEXT, Surface.NATIVE, RUN, "reattach"),
        (("reattach", "restart"), CALL, Surface.NATIVE, RUN, "reattach"),
        (("reattach", "restart"), THOUGHT, Surface.CHAT, RUN, "reattach"),
        (("reattach", "restart"), Said(), Surface.NATIVE, UNREAD, "reattach"),
        (("reattach",), TEXT, Surface.NATIVE, RUN, "reattach"),
        (("reattach",), TEXT, Surface.NATIVE, None, None),
        (("reattach",), Said(), Surface.CHAT, None, "fresh"),
        (("reattach", "restart"), TEXT, Surface.NATIVE, None, "restart"),
        (("reattach", "restart"), TEXT, Surface.CHAT, None, None),
        (("reattach", "continue", "restart"), TEXT, Surface.CHAT, None, "continue"),
        (("reattach", "continue", "restart"), CALL, Surface.NATIVE, None, "restart"),
        (("reattach", "continue"), CALL, Surface.CHAT, RUN, "reattach"),
        (("continue", "reattach"), TEXT, Surface.NATIVE, RUN, "continue"),
        (("continue", "reattach"), CALL, Surface.NATIVE, RUN, "reattach"),
        (("restart", "reattach"), TEXT, Surface.NATIVE, RUN, "restart"),
        (("restart", "reattach"), TEXT, Surface.CHAT, RUN, "reattach"),
        (("restart",), TEXT, Surface.NATIVE, RUN, "restart"),
        ((), TEXT, Surface.NATIVE, RUN, None),
        ((), Said(), Surface.NATIVE, RUN, "fresh"),
    ],
)
def test_an_answer_that_goes_on_is_rejoined_where_the_ladder_says_so(
    rungs: tuple[Rung, ...],
    said: Said,
    surface: Surface,
    run: Upstream | None,
    expected: str | None,
) -> None:
    """Whatever was said and whoever asked, as long as there is something to go on with."""
    assert choose_resume(rungs, said, surface, run) == expected


@pytest.mark.parametrize("rungs", list(permutations(("reattach", "continue", "restart"))))
@pytest.mark.parametrize("surface", list(Surface))
@pytest.mark.parametrize("run", [None, RUN])
def test_what_is_announced_is_what_is_done_whatever_the_order(
    rungs: tuple[Rung, ...], surface: Surface, run: Upstream | None
) -> None:
    """The claim forgets only where the attempt restarts, and names a rung that can be taken."""
    record = replace(RECORD, attempts=1, surface=surface, upstream=run)
    begins = plan(record, SETTINGS.model_copy(update={"ladder": {"*": rungs}}))
    assert begins is not None
    first = next(rung for rung in rungs if rung != "reattach" or run is not None)
    assert (begins.resume, begins.is_first) == (first, False)
    assert begins.reset is (first == "restart" and surface is Surface.NATIVE)
    if not begins.reset and (first != "restart" or surface is Surface.NATIVE):
        assert choose_resume(rungs, TEXT, surface, run) == first


@pytest.mark.parametrize("surface", list(Surface))
def test_an_answer_that_nobody_named_is_not_announced_as_rejoined(surface: Surface) -> None:
    """Its worker died before that: the rung behind is the first."""
    settings = SETTINGS.model_copy(update={"ladder": {"*": ("reattach", "restart")}})
    record = replace(RECORD, attempts=1, surface=surface)
    lost, named = plan(record, settings), plan(replace(record, upstream=UNREAD), settings)
    assert lost is not None
    assert named is not None
    assert (lost.resume, lost.reset) == ("restart", surface is Surface.NATIVE)
    assert (named.resume, named.reset) == ("reattach", False)
    nothing_else = plan(record, SETTINGS.model_copy(update={"ladder": {"*": ("reattach",)}}))
    assert nothing_else is not None
    assert (nothing_else.resume, nothing_else.reset) == ("fresh", False)


def test_a_failure_is_followed_by_a_rejoin_as_long_as_the_answer_goes_on() -> None:
    """The same error, with and without something to go on with."""
    settings = SETTINGS.model_copy(update={"ladder": {"*": ("reattach", "continue", "restart")}})
    record = replace(RECORD, model="m")
    resumes = [
        retry.resume
        for run in (RUN, None)
        if (retry := plan_retry(BROKEN, record, TEXT, run, settings, attempts=1)) is not None
    ]
    assert resumes == ["reattach", "continue"]
    chat = replace(record, surface=Surface.CHAT)
    assert plan_retry(BROKEN, chat, CALL, None, settings, attempts=1) is None
    assert plan_retry(BROKEN, chat, CALL, RUN, settings, attempts=1) is not None
    assert plan_retry(BROKEN, chat, CALL, RUN, settings, attempts=3) is None


@pytest.mark.parametrize(
    ("base_url", "can_be_rejoined"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.OpenAI.com:443/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://x.openai.azure.com/openai/v1", True),
        ("https://evil-api.openai.com.example.org/v1", False),
        ("https://x.openai.azure.com.example.org/v1", False),
        ("https://example.org/api.openai.com", False),
        ("https://example.org/?to=.openai.azure.com", False),
        ("https://api.openai.com@example.org/v1", False),
        ("http://localhost:8000/v1", False),
        ("https://notapi.openai.com/v1", False),
        ("http://[::1]:8000/v1", False),
        ("api.openai.com/v1", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_only_servers_that_are_known_for_it_are_asked_for_runs(
    base_url: str, can_be_rejoined: bool
) -> None:
    """By their host alone; for any other the operator has to say so."""
    expected = ("reattach", "restart") if can_be_rejoined else ("restart",)
    assert default_ladder(base_url) == {"*": expected}
