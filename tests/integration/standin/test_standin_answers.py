"""The stand-in over real sockets, through the official client it must satisfy: its answers."""

import json

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall

from tests.support.sdk_client import (
    MODEL,
    asking,
    finish_reasons,
    only_outcome,
    read,
    said,
    tokens,
)
from worker.standin import (
    Outcome,
    Standin,
    answer,
    compose,
)


@pytest.mark.parametrize("kind", ["prose", "plain", "lines", "unicode"])
async def test_a_streamed_answer_is_the_oracle_token_by_token(
    standin: Standin, client: AsyncOpenAI, kind: str
) -> None:
    """Every chunk is one token of the computed answer, whatever characters it holds."""
    prompt = f"Where to? [standin kind={kind} tokens=150]"
    chunks, error = await read(client, prompt)
    assert error is None
    assert tokens(chunks) == list(answer(MODEL, asking(prompt)))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert finish_reasons(chunks) == ["stop"]
    assert await only_outcome(standin) == Outcome.COMPLETED


async def test_usage_comes_last_when_asked_for(client: AsyncOpenAI) -> None:
    """include_usage adds one chunk without a choice, and null before it."""
    chunks, _ = await read(client, "Why?", stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 40
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_usage_is_left_out_when_not_asked_for_or_told_so(client: AsyncOpenAI) -> None:
    """usage=none stands for servers that know no usage."""
    silent, _ = await read(client, "[standin usage=none]", stream_options={"include_usage": True})
    unasked, _ = await read(client, "Why?")
    assert [chunk.usage for chunk in silent + unasked if chunk.usage] == []


async def test_a_whole_answer_is_the_same_text(client: AsyncOpenAI) -> None:
    """Without stream the completion is one object with text, reason and usage."""
    completion = await client.chat.completions.create(model=MODEL, messages=asking("Why?"))
    assert completion.choices[0].message.content == said("Why?")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 40


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_ends_the_answer_with_length(
    client: AsyncOpenAI, parameter: str
) -> None:
    """The first tokens come, and the reason why no more do."""
    chunks, _ = await read(client, "Why?", **{parameter: 7})
    assert tokens(chunks) == list(answer(MODEL, asking("Why?"), default_tokens=40, limit=7))
    assert finish_reasons(chunks) == ["length"]


async def test_a_finish_reason_can_be_dictated(client: AsyncOpenAI) -> None:
    """finish= stands whatever ended the answer."""
    chunks, _ = await read(client, "[standin finish=content_filter]")
    assert finish_reasons(chunks) == ["content_filter"]


async def test_tool_calls_come_in_pieces_that_join(client: AsyncOpenAI) -> None:
    """Names and ids come once, arguments in deltas that make JSON."""
    prompt = "[standin tool=2]"
    chunks, _ = await read(client, prompt)
    pieces = [p for c in chunks for choice in c.choices for p in choice.delta.tool_calls or ()]
    functions = [(piece.index, piece.function) for piece in pieces if piece.function]
    script = compose(MODEL, asking(prompt))
    assert [piece.index for piece in pieces if piece.id] == [0, 1]
    assert [f.name for _, f in functions if f.name] == ["look_up", "look_up"]
    for call in (0, 1):
        arguments = "".join(f.arguments or "" for index, f in functions if index == call)
        assert arguments == script.text("tool_arguments", call)
        assert json.loads(arguments)
    assert finish_reasons(chunks) == ["tool_calls"]


async def test_a_whole_answer_can_be_tool_calls(client: AsyncOpenAI) -> None:
    """Without stream the calls stand in the message, in the place of content."""
    completion = await client.chat.completions.create(
        model=MODEL, messages=asking("[standin tool=1]")
    )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert json.loads(call.function.arguments)
    assert completion.choices[0].message.content is None


async def test_reasoning_precedes_the_answer(client: AsyncOpenAI) -> None:
    """reasoning=N sends N deltas of their own kind first."""
    prompt = "[standin reasoning=3 tokens=2]"
    chunks, _ = await read(client, prompt)
    deltas = [chunk.choices[0].delta for chunk in chunks[1:-1]]
    script = compose(MODEL, asking(prompt))
    thoughts = [(delta.model_extra or {}).get("reasoning_content", "") for delta in deltas]
    assert "".join(thoughts[:3]) == script.text("reasoning")
    assert thoughts[3:] == ["", ""]
    assert "".join(tokens(chunks)) == script.text("content")


async def test_a_refusal_has_deltas_of_its_own(client: AsyncOpenAI) -> None:
    """refusal=1 says no in the place of content."""
    chunks, _ = await read(client, "[standin refusal=1]")
    refusals = [c.choices[0].delta.refusal for c in chunks if c.choices[0].delta.refusal]
    assert "".join(refusals) == "I am sorry, but I cannot help with that."
    assert tokens(chunks) == []
