"""A run is ended, tells what it cost, or is refused to who comes back to it."""

import json
from datetime import timedelta
from typing import Any

import pytest

from shared.errors import (
    ProviderError,
    ProviderGarbled,
    ProviderRefused,
    ProviderSilent,
    ProviderTruncated,
    ProviderUnreachable,
)
from shared.generation import Upstream
from tests.support.scripted_model import (
    BREAK,
    DONE,
    RUN,
    SILENCE,
    ScriptedModel,
    ask_run,
    created,
    end_run,
    ended,
    frames,
    rejoin,
    text,
)
from worker.provider.model_server import CONTROL_TIMEOUT
from worker.provider.responses import translate_usage

COST = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
IN_OUR_WORDS = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def replies(*scripts: tuple[int, object]) -> ScriptedModel:
    """A server that answers with one object after the other."""
    kind = {"content-type": "application/json"}
    (status, data), *others = scripts
    server = ScriptedModel([json.dumps(data).encode()], status, kind)
    for status, data in others:
        server.then_json(data, status)
    return server


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        (COST, IN_OUR_WORDS),
        ({**COST, "input_tokens_details": None}, IN_OUR_WORDS),
        ({**COST, "input_tokens_details": [1]}, IN_OUR_WORDS),
        ({"input_tokens": 3}, None),
        ({**COST, "output_tokens": "4"}, None),
        ({**COST, "total_tokens": None}, None),
        ([1], None),
        ("x", None),
        (
            {
                **COST,
                "input_tokens_details": {"cached_tokens": 1},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            {
                **IN_OUR_WORDS,
                "prompt_tokens_details": {"cached_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
        ),
    ],
)
def test_what_a_run_cost_is_said_in_the_words_of_chat_completions(
    usage: object, expected: dict[str, Any] | None
) -> None:
    """Nothing is made up where the server says nothing; a bill that is odd spoils no answer."""
    assert translate_usage({"usage": usage}) == expected
    for status in ("completed", "incomplete"):
        heard = ask_run(ScriptedModel([*frames(created(), ended(status, usage=usage)), DONE]))
        assert (heard.error, heard.finish.usage) == (None, expected)
    assert end_run(replies((200, {"id": RUN, "usage": usage})), RUN) == expected


ENDED = (200, {"id": RUN, "status": "cancelled", "usage": COST})


@pytest.mark.parametrize(
    ("server", "cost", "asked"),
    [
        (replies(ENDED), IN_OUR_WORDS, ["POST cancel"]),
        (replies((200, {"id": RUN, "usage": None})), None, ["POST cancel"]),
        (replies((200, ["x"])), None, ["POST cancel"]),
        (replies((400, {}), ENDED), IN_OUR_WORDS, ["POST cancel", "GET"]),
        (replies((400, {}), (404, {})), None, ["POST cancel", "GET"]),
        (replies((404, {})), None, ["POST cancel"]),
    ],
    ids=["ended", "no cost", "no object", "had ended", "had ended and is gone", "gone"],
)
def test_a_run_is_ended_and_tells_what_it_cost(
    server: ScriptedModel, cost: dict[str, Any] | None, asked: list[str]
) -> None:
    """One that has ended is asked what it cost; one that nobody knows needs no end."""
    assert end_run(server, RUN) == cost
    path = f"/v1/responses/{RUN}"
    assert server.requests == [
        f"POST {path}/cancel" if request == "POST cancel" else f"GET {path}" for request in asked
    ]


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        (replies((503, {})), ProviderRefused),
        (replies((429, {})), ProviderRefused),
        (replies((409, {})), ProviderRefused),
        (replies((400, {}), (500, {})), ProviderRefused),
        (ScriptedModel([BREAK]), ProviderUnreachable),
        (ScriptedModel([SILENCE]), ProviderSilent),
        (ScriptedModel([b"{"], 200, {"content-type": "application/json"}), ProviderGarbled),
    ],
    ids=["503", "429", "409", "400 then 500", "unreachable", "silent", "garbled"],
)
def test_whoever_could_not_end_a_run_knows_it(
    server: ScriptedModel, kind: type[ProviderError]
) -> None:
    """All of these may be mended by another try, and none takes longer than a few seconds."""
    with pytest.raises(kind) as refusal:
        end_run(server, RUN)
    assert refusal.value.retryable
    assert len(server.requests) <= 2
    assert timedelta(seconds=5) >= CONTROL_TIMEOUT


def test_a_rejoin_is_refused_by_name() -> None:
    """Its status tells whether the run is gone or the server in trouble."""
    for status, retryable in ((404, False), (400, False), (503, True)):
        heard = rejoin(replies((status, {})), Upstream(RUN, 3))
        assert isinstance(heard.error, ProviderRefused)
        assert (heard.error.status, heard.error.retryable) == (status, retryable)
    broken = rejoin(ScriptedModel([*frames(text("b"), first=4), BREAK]), Upstream(RUN, 3))
    assert isinstance(broken.error, ProviderTruncated)
