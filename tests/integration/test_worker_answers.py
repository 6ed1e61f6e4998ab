"""What the model says is what the log holds: through a real worker, over real sockets."""

from collections.abc import Iterator
from typing import Any

import pytest

from shared.generation import State, Surface
from tests.conftest import PrivateServers
from tests.support.fold import Folded
from tests.support.stack import MODEL, expected_text, user
from tests.support.workshop import SharedWorker, Workshop, run_worker
from worker.standin import Outcome, Script, compose

MAX_OUTPUT = 16 * 1024


@pytest.fixture(scope="module")
def worker(private_servers: PrivateServers) -> Iterator[SharedWorker]:
    """One worker for all tests here."""
    url = private_servers.emptied("valkey").url
    with run_worker(url, max_output=str(MAX_OUTPUT)) as worker:
        yield worker


async def run(shop: Workshop, prompt: str, **options: Any) -> Folded:
    return await shop.closed(await shop.accept(prompt, **options))


def script(prompt: str, **options: Any) -> Script:
    return compose(MODEL, user(prompt), **options)


@pytest.mark.parametrize("packets", ["", " bytes=1", " bytes=7"])
@pytest.mark.parametrize("kind", ["prose", "plain", "lines", "unicode"])
async def test_the_log_holds_every_character_the_model_said(
    shop: Workshop, kind: str, packets: str
) -> None:
    """No newline, no character and no border between packets changes a text on its way."""
    prompt = f"[standin tokens=60 kind={kind}{packets}] Tell me"
    folded = await run(shop, prompt)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))


async def test_a_long_answer_at_full_speed_is_exact(shop: Workshop) -> None:
    """Joining what gathered while a round trip was in flight loses and doubles nothing."""
    prompt = "[standin tokens=2500 kind=plain] A long one"
    folded = await run(shop, prompt)
    assert (folded.closing_type, folded.text) == ("done", expected_text(prompt))


async def test_a_chat_log_knows_only_line_feeds(shop: Workshop) -> None:
    """A generation of `/chat/stream` has CR and CRLF as LF in its log, in halves too."""
    prompt = "[standin tokens=200 kind=lines bytes=1] Lines"
    folded = await run(shop, prompt, surface=Surface.CHAT)
    expected = expected_text(prompt).replace("\r\n", "\n").replace("\r", "\n")
    assert folded.text == expected


async def test_an_answer_without_a_single_token_is_done(shop: Workshop) -> None:
    """A model may say nothing and stop: that is an empty answer, not a failure."""
    prompt = "[standin tokens=0] Say nothing"
    folded = await run(shop, prompt)
    assert (folded.closing_type, folded.text) == ("done", "")


async def test_usage_is_in_the_closing_event_and_in_the_record(shop: Workshop) -> None:
    """What the provider says the answer cost is told to clients and kept."""
    prompt = "[standin tokens=12] Count"
    generation = await shop.accept(prompt)
    folded = await shop.closed(generation)
    usage = script(prompt).usage
    assert folded.closing_data == {"finish_reason": "stop", "usage": usage}
    record = await shop.record(generation)
    assert (record.state, record.usage) == (State.DONE, usage)


async def test_usage_that_the_provider_kept_to_itself_is_null(shop: Workshop) -> None:
    """Unknown is said as unknown: never zero, never left out."""
    generation = await shop.accept("[standin tokens=12 usage=none] Count")
    folded = await shop.closed(generation)
    assert folded.closing_data == {"finish_reason": "stop", "usage": None}
    assert (await shop.record(generation)).usage is None


async def test_the_reason_of_the_end_is_the_models_own(shop: Workshop) -> None:
    """`length` and `content_filter` reach the client as they are: such an answer is complete."""
    folded = await run(shop, "[standin tokens=12] Long", parameters={"max_tokens": 5})
    assert folded.closing_data is not None
    assert folded.closing_data["finish_reason"] == "length"
    assert folded.text == expected_text("[standin tokens=12] Long", limit=5)


async def test_reasoning_is_kept_apart_from_the_answer(shop: Workshop) -> None:
    """What a model thinks aloud never mixes with what it answers."""
    prompt = "[standin tokens=15 reasoning=20] Think"
    folded = await run(shop, prompt)
    expected = script(prompt)
    assert folded.reasoning == expected.text("reasoning")
    assert folded.text == expected.text("content")


async def test_a_refusal_is_not_an_answer(shop: Workshop) -> None:
    """A refusal arrives under its own name."""
    prompt = "[standin refusal=1 tokens=9] No"
    folded = await run(shop, prompt)
    assert (folded.refusal, folded.text) == (script(prompt).text("refusal"), "")


async def test_tool_calls_arrive_whole(shop: Workshop) -> None:
    """Names, ids and arguments of several calls are put together from their pieces."""
    tools = ["weather", "clock"]
    prompt = "[standin tool=3] Call"
    functions = [{"type": "function", "function": {"name": name}} for name in tools]
    folded = await run(shop, prompt, parameters={"tools": functions})
    expected = script(prompt, tools=tools)
    calls = [folded.tool_calls[index] for index in range(3)]
    assert [call.name for call in calls] == list(expected.tool_names)
    assert [call.arguments for call in calls] == [
        expected.text("tool_arguments", index) for index in range(3)
    ]
    assert len({call.id for call in calls}) == 3
    assert folded.closing_data is not None
    assert folded.closing_data["finish_reason"] == "tool_calls"


async def test_parameters_reach_the_provider_as_they_were_given(shop: Workshop) -> None:
    """Nothing a client asks for is dropped, and only the streaming is added."""
    given = {"temperature": 0.5, "seed": 7, "x_of_some_vendor": {"deep": [1, None]}}
    await run(shop, "[standin tokens=1] Pass", parameters=given)
    (entry,) = shop.standin.ledger.entries
    added = {"model", "stream", "stream_options"}
    assert {k: v for k, v in entry.parameters.items() if k not in added} == given
    assert entry.parameters["stream_options"]["include_usage"] is True


async def test_the_model_of_the_request_wins_over_the_default(shop: Workshop) -> None:
    """Who names a model gets it, and the record says which one answered."""
    generation = await shop.accept("[standin tokens=1] Which", parameters={"model": "standin-2"})
    await shop.closed(generation)
    assert [entry.model for entry in shop.standin.ledger.entries] == ["standin-2"]
    assert (await shop.record(generation)).model == "standin-2"


@pytest.mark.parametrize("kind", ["plain", "unicode"])
async def test_an_answer_that_grows_too_large_is_ended(shop: Workshop, kind: str) -> None:
    """The limit is in bytes of UTF-8; the text so far stands and the provider is told to stop."""
    prompt = f"[standin tokens=4000 kind={kind} stall_after=4000] Never end"
    expected = expected_text(prompt)
    assert len(expected.encode()) > MAX_OUTPUT
    folded = await run(shop, prompt)
    assert folded.closing_data is not None
    assert folded.closing_data["code"] == "output_too_large"
    assert expected.startswith(folded.text)
    assert MAX_OUTPUT - 100 < len(folded.text.encode()) <= MAX_OUTPUT
    (entry,) = shop.standin.ledger.entries
    await shop.wait_idle()
    assert entry.outcome is Outcome.CLIENT_CLOSED
