"""What a model server does wrong has a name, keeps the text so far, and leaves no call open."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import PrivateServers
from tests.support.redis_server import RedisServer
from tests.support.stack import expected_tokens, open_model
from tests.support.workshop import (
    PROVIDER_KEY,
    SharedWorker,
    Workshop,
    open_workshop,
    run_worker,
)
from worker.standin import Outcome

# Long enough for a busy machine to say a first token, short enough to wait for.
PATIENCE_S = "1"

# What the stand-in says in its errors; of that a client may see nothing.
PROVIDERS_OWN_WORDS = b"the prompt asked for this error"


@pytest.fixture(scope="module")
def worker(private_servers: PrivateServers) -> Iterator[SharedWorker]:
    """One impatient worker for all tests here, which asks once: what follows has its own tests."""
    url = private_servers.emptied("valkey").url
    told = {"first_token_timeout": PATIENCE_S, "stall_timeout": PATIENCE_S, "max_attempts": "1"}
    with run_worker(url, **told) as worker:
        yield worker


async def fail(shop: Workshop, directive: str) -> tuple[dict[str, Any], str]:
    """Run a generation that must fail; the data of its `failed`, and the text that stands."""
    generation = await shop.accept(f"[standin tokens=20 {directive}] Go wrong")
    folded = await shop.closed(generation)
    assert folded.closing_type == "failed"
    data = folded.closing_data
    assert data is not None
    assert set(data) == {"code", "message", "retryable"}
    raw = b"".join(fields[b"d"] for _, fields in await shop.log(generation))
    assert PROVIDERS_OWN_WORDS not in raw
    assert PROVIDER_KEY.encode() not in raw
    await shop.wait_idle()
    return data, folded.text


def first(count: int) -> str:
    return "".join(expected_tokens("[standin tokens=20] Go wrong")[:count])


@pytest.mark.parametrize(
    ("directive", "code", "retryable"),
    [
        ("status=400", "provider_rejected", False),
        ("status=401", "provider_unauthorized", False),
        ("status=403", "provider_unauthorized", False),
        ("status=404", "provider_not_found", False),
        ("status=422", "provider_rejected", False),
        ("status=429", "provider_rate_limited", True),
        ("status=429 retry_after=2", "provider_rate_limited", True),
        ("status=429 code=insufficient_quota", "provider_quota", False),
        ("status=500", "provider_unavailable", True),
        ("status=503", "provider_unavailable", True),
        ("status=529", "provider_unavailable", True),
    ],
)
async def test_a_refusal_by_status_has_its_code(
    shop: Workshop, directive: str, code: str, retryable: bool
) -> None:
    """A program can tell from the code whether a repeat may help; nobody was answered."""
    data, text = await fail(shop, directive)
    assert (data["code"], data["retryable"], text) == (code, retryable, "")


@pytest.mark.parametrize(
    ("directive", "code", "retryable", "outcome"),
    [
        ("cut_after=7", "provider_truncated", True, Outcome.CUT),
        ("end_after=7", "provider_truncated", True, Outcome.ENDED_EARLY),
        ("malformed_after=7", "provider_garbled", True, Outcome.MALFORMED),
        ("error_after=7", "provider_failed", True, Outcome.ERRORED),
        ("error_after=7 code=insufficient_quota", "provider_quota", False, Outcome.ERRORED),
        ("stall_after=7", "provider_stalled", True, Outcome.CLIENT_CLOSED),
    ],
)
async def test_an_answer_that_breaks_keeps_what_was_said(
    shop: Workshop, directive: str, code: str, retryable: bool, outcome: Outcome
) -> None:
    """A truncated answer never looks finished, and every token before the break is there."""
    data, text = await fail(shop, directive)
    assert (data["code"], data["retryable"]) == (code, retryable)
    assert text == first(7)
    assert [entry.outcome for entry in shop.standin.ledger.entries] == [outcome]


@pytest.mark.parametrize("directive", ["cut_after=0", "end_after=0", "cut_after=20"])
async def test_a_break_at_either_end_is_truncation_too(shop: Workshop, directive: str) -> None:
    """Without a finish reason even an answer of which all or nothing arrived is not complete."""
    data, text = await fail(shop, directive)
    assert data["code"] == "provider_truncated"
    assert text == first(int(directive.rpartition("=")[2]))


@pytest.mark.parametrize("directive", ["start_ms=60000", "first_token_ms=60000"])
async def test_a_model_that_never_begins_is_given_up(shop: Workshop, directive: str) -> None:
    """Silence before the first token, before or after the headers, has its own clock and code."""
    data, text = await fail(shop, directive)
    assert (data["code"], data["retryable"], text) == ("provider_first_token_timeout", True, "")
    (entry,) = shop.standin.ledger.entries
    assert entry.outcome is Outcome.CLIENT_CLOSED


async def test_a_model_that_thinks_aloud_has_begun(shop: Workshop) -> None:
    """Reasoning counts as the first token: what follows it is a stall."""
    data, _ = await fail(shop, "reasoning=3 stall_after=3")
    assert data["code"] == "provider_stalled"


async def test_a_server_that_does_not_listen_is_unreachable(
    valkey: RedisServer, worker: SharedWorker
) -> None:
    """A refused connection fails the generation and costs the worker nothing."""
    async with open_model(worker.model_port) as gone:
        pass
    async with open_workshop(valkey, gone) as shop:
        data, _ = await fail(shop, "pace=0")
        assert (data["code"], data["retryable"]) == ("provider_unreachable", True)


async def test_a_failure_is_told_to_the_operator_and_without_the_key(
    shop: Workshop, worker: SharedWorker
) -> None:
    """The provider's own words are in the worker's log, under the generation's id."""
    generation = await shop.accept("[standin status=401] Who am I")
    await shop.closed(generation)
    line = await worker.process.wait_logged(f'"generation": "{generation}", "attempt": 1, "code"')
    assert json.loads(line)["detail"]
    assert PROVIDER_KEY not in line
