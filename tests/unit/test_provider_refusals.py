"""What a model server refuses, by names that a program can branch on."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from shared.errors import ProviderError, ProviderRefused, ProviderUnreachable
from tests.support.scripted_model import BREAK, ScriptedModel, ask, chunk, frame


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "provider_rejected", False),
        (401, "provider_unauthorized", False),
        (403, "provider_unauthorized", False),
        (404, "provider_not_found", False),
        (408, "provider_unavailable", True),
        (418, "provider_rejected", False),
        (422, "provider_rejected", False),
        (429, "provider_rate_limited", True),
        (500, "provider_unavailable", True),
        (503, "provider_unavailable", True),
        (529, "provider_unavailable", True),
    ],
)
def test_a_refusal_is_named_by_its_status(status: int, code: str, retryable: bool) -> None:
    """Stable codes; the server's own words are for the log only."""
    words = frame({"x": 1}).replace(b"data: ", b"")
    server = ScriptedModel([words], status, {"content-type": "application/json"})
    with pytest.raises(ProviderRefused) as refusal:
        ask(server)
    error = refusal.value
    assert (error.code, error.retryable, error.status) == (code, retryable, status)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("2", timedelta(seconds=2)),
        ("0.5", timedelta(seconds=0.5)),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
    ],
)
def test_the_pause_a_server_asks_for_is_read(header: str, expected: timedelta | None) -> None:
    """In seconds; anything else is as if it had not said one."""
    with pytest.raises(ProviderRefused) as refusal:
        ask(ScriptedModel([b"{}"], 429, {"retry-after": header}))
    assert refusal.value.retry_after == expected


def _quota() -> ScriptedModel:
    return ScriptedModel([json.dumps({"error": {"code": "insufficient_quota"}}).encode()], 429)


def _in_band() -> ScriptedModel:
    return ScriptedModel([chunk(content="a"), frame({"error": {"message": "overloaded"}})])


@pytest.mark.parametrize(
    ("make", "kind", "code", "retryable"),
    [
        (_quota, ProviderRefused, "provider_quota", False),
        (_in_band, ProviderRefused, "provider_failed", True),
        (lambda: ScriptedModel([BREAK]), ProviderUnreachable, "provider_unreachable", True),
    ],
    ids=["quota", "in band", "unreachable"],
)
def test_other_troubles_have_names_too(
    make: Callable[[], ScriptedModel], kind: type[ProviderError], code: str, retryable: bool
) -> None:
    """A used-up quota is not a rate limit; an error may come long after the 200."""
    with pytest.raises(kind) as refusal:
        ask(make())
    assert (refusal.value.code, refusal.value.retryable) == (code, retryable)
