"""What follows a failed attempt: retries before the first token, then the recovery ladder."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from shared.generation import Surface
from shared.ids import GenerationId
from tests.conftest import PrivateServers
from tests.support.fold import log_events
from tests.support.stack import expected_text
from tests.support.wait import wait_until
from tests.support.workshop import SharedWorker, Workshop, run_worker
from worker.standin import Outcome

# Short pauses, so that the tests are; who waits longer for a provider gives its slot back.
QUICK = {"retry_pause": "0.05", "max_retry_pause": "2", "max_generations": "1"}
CONTINUE = json.dumps({"stand*": ["continue", "restart"]})


@pytest.fixture(scope="module")
def worker(private_servers: PrivateServers) -> Iterator[SharedWorker]:
    """One worker for all tests here that need no death; it runs one generation at a time."""
    url = private_servers.emptied("valkey").url
    with run_worker(url, ladder=CONTINUE, **QUICK) as worker:
        yield worker


async def data_of(shop: Workshop, generation: GenerationId, kind: str) -> list[dict[str, Any]]:
    """The data of all entries of one type."""
    events = log_events(await shop.log(generation))
    return [json.loads(event.data) for event in events if event.type == kind]


def outcomes(shop: Workshop) -> list[Outcome]:
    return [entry.outcome for entry in shop.standin.ledger.entries]


async def test_a_refusal_before_the_first_token_is_retried(shop: Workshop) -> None:
    """A hiccup of the provider costs a pause, and the client sees why."""
    prompt = "[standin tokens=20 status=500 times=2] Hiccup"
    generation = await shop.accept(prompt)
    folded = await shop.closed(generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert "reset" not in await shop.types(generation)
    assert outcomes(shop) == [Outcome.REFUSED, Outcome.REFUSED, Outcome.COMPLETED]
    retrying = await data_of(shop, generation, "retrying")
    assert [(r["attempt"], r["reason"]) for r in retrying] == [
        (2, "provider_unavailable"),
        (3, "provider_unavailable"),
    ]
    started = await data_of(shop, generation, "started")
    assert [(s["attempt"], s["resume"]) for s in started] == [(n, "fresh") for n in (1, 2, 3)]


async def test_a_provider_is_not_asked_again_before_it_said(shop: Workshop) -> None:
    """`Retry-After` is honoured to the second."""
    prompt = "[standin tokens=5 status=429 retry_after=1 times=1] Wait"
    generation = await shop.accept(prompt)
    assert (await shop.closed(generation)).text == expected_text(prompt)
    refused, answered = shop.standin.ledger.entries
    assert refused.ended_at is not None
    assert answered.received_at - refused.ended_at >= 1
    assert [r["delay_ms"] for r in await data_of(shop, generation, "retrying")] == [1000]


async def test_a_long_pause_is_not_waited_in_the_slot(shop: Workshop) -> None:
    """Others run meanwhile; the generation comes back when its time has come, as no death."""
    patient = "[standin tokens=5 status=429 retry_after=600 times=1] Much later"
    generation = await shop.accept(patient)
    await shop.wait_type(generation, "retrying")
    other = "[standin tokens=5] Now"
    assert (await shop.closed(await shop.accept(other))).text == expected_text(other)

    async def is_let_go() -> bool:
        return await shop.owner(generation) is None

    await wait_until(is_let_go, "the job to be given back")
    assert (await shop.record(generation)).state.value == "running"
    await shop.make_due(generation)
    folded = await shop.closed(generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(patient))
    record = await shop.record(generation)
    assert (record.attempts - record.handovers, record.failures) == (1, 1)
    attempts = [s["attempt"] for s in await data_of(shop, generation, "started")]
    assert attempts == [1, 2]


@pytest.mark.parametrize(
    ("directive", "code"),
    [
        ("status=400", "provider_rejected"),
        ("status=401", "provider_unauthorized"),
        ("status=429 code=insufficient_quota", "provider_quota"),
    ],
)
async def test_what_a_repeat_cannot_mend_is_not_repeated(
    shop: Workshop, directive: str, code: str
) -> None:
    """A bad request, a bad key and an empty purse fail at once."""
    generation = await shop.accept(f"[standin tokens=5 {directive}] No use")
    folded = await shop.closed(generation)
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == code
    assert outcomes(shop) == [Outcome.REFUSED]


async def test_failures_are_bounded(shop: Workshop) -> None:
    """Three attempts by default, then the client is told, with a code of its own."""
    generation = await shop.accept("[standin tokens=5 status=503] Never")
    folded = await shop.closed(generation)
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == "provider_unavailable"
    assert outcomes(shop) == [Outcome.REFUSED] * 3


@pytest.mark.parametrize("surface", list(Surface))
async def test_a_cut_answer_is_continued_from_where_it_stands(
    shop: Workshop, surface: Surface
) -> None:
    """The partial text is the assistant's prefix: nothing is forgotten, nothing said twice."""
    prompt = "[standin tokens=40 kind=plain cut_after=15 times=1] Go on"
    generation = await shop.accept(prompt, surface=surface)
    folded = await shop.closed(generation)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))
    assert "reset" not in await shop.types(generation)
    first, second = shop.standin.ledger.entries
    assert (first.outcome, second.outcome) == (Outcome.CUT, Outcome.COMPLETED)
    assert (first.tokens_sent, second.tokens_sent) == (15, 25)
    resumes = [s["resume"] for s in await data_of(shop, generation, "started")]
    assert resumes == ["fresh", "continue"]


async def test_what_a_prefix_cannot_carry_is_begun_anew(shop: Workshop) -> None:
    """Half a tool call cannot be sent back: clients forget it."""
    prompt = "[standin tokens=20 tool=1 cut_after=4 times=1 vary=1] Call"
    generation = await shop.accept(prompt)
    folded = await shop.closed(generation)
    assert folded.closing_type == "done"
    types = await shop.types(generation)
    assert types.count("reset") == 1
    assert folded.tool_calls
