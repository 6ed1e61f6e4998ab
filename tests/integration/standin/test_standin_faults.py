"""The faults that the stand-in has on request."""

import asyncio
import json
import time
from contextlib import aclosing
from typing import Literal

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tests.support.sdk_client import (
    MODEL,
    NOTICED_SECONDS,
    asking,
    finish_reasons,
    follow,
    only_outcome,
    posting,
    read,
    said,
    tokens,
    wait_ledger,
)
from worker.standin import (
    Outcome,
    Standin,
    answer,
)


@pytest.mark.parametrize("after", [0, 1, 10, 40])
async def test_a_cut_ends_the_body_after_exactly_that_many_tokens(
    standin: Standin, client: AsyncOpenAI, after: int
) -> None:
    """The client has the tokens the ledger counts, and a connection error."""
    prompt = f"Why? [standin cut_after={after}]"
    chunks, error = await read(client, prompt)
    assert isinstance(error, openai.APIConnectionError)
    assert tokens(chunks) == list(answer(MODEL, asking(prompt), default_tokens=40))[:after]
    assert await only_outcome(standin) == Outcome.CUT
    assert standin.ledger.entries[0].tokens_sent == after


async def test_an_early_end_looks_like_a_clean_one(standin: Standin, client: AsyncOpenAI) -> None:
    """end_after leaves out only what says that it ended."""
    chunks, error = await read(client, "[standin end_after=5]")
    assert error is None
    assert (len(tokens(chunks)), finish_reasons(chunks)) == (5, [])
    assert await only_outcome(standin) == Outcome.ENDED_EARLY


async def test_an_error_can_come_inside_the_answer(standin: Standin, client: AsyncOpenAI) -> None:
    """error_after sends the error as data, with its code."""
    chunks, error = await read(client, "[standin error_after=5 code=overloaded]")
    assert isinstance(error, openai.APIError)
    assert error.code == "overloaded"
    assert len(tokens(chunks)) == 5
    assert await only_outcome(standin) == Outcome.ERRORED


async def test_a_malformed_frame_takes_the_place_of_a_token(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """The official client stops there."""
    chunks, error = await read(client, "[standin malformed_after=5]")
    assert isinstance(error, json.JSONDecodeError)
    assert len(tokens(chunks)) == 5
    assert await only_outcome(standin) == Outcome.MALFORMED


async def test_whoever_skips_a_malformed_frame_misses_a_token(standin: Standin) -> None:
    """The rest follows as usual, so a tolerant reader is caught with a gap and a finish_reason."""
    async with posting(standin, "[standin malformed_after=5 kind=plain]") as response:
        frames = (await response.read()).removesuffix(b"\n\n").split(b"\n\n")
    contents = [b'"content":"' in frame for frame in frames]
    assert contents == [True] * 6 + [False] + [True] * 34 + [False, False]
    assert b'"finish_reason":"stop"' in frames[-2]
    assert frames[-1] == b"data: [DONE]"


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("status=400", openai.BadRequestError),
        ("status=401", openai.AuthenticationError),
        ("status=429", openai.RateLimitError),
        ("status=500", openai.InternalServerError),
        ("status=503", openai.InternalServerError),
    ],
)
async def test_a_status_refuses_before_the_first_token(
    standin: Standin, client: AsyncOpenAI, directive: str, expected: type[Exception]
) -> None:
    """The official client raises what it raises for the real thing."""
    _, error = await read(client, f"[standin {directive}]")
    assert type(error) is expected
    assert await only_outcome(standin) == Outcome.REFUSED
    assert standin.ledger.entries[0].tokens_sent == 0


async def test_a_refusal_says_when_to_come_back_and_why(client: AsyncOpenAI) -> None:
    """Retry-After is sent as written, beside the code."""
    _, error = await read(client, "[standin status=429 retry_after=7 code=insufficient_quota]")
    assert isinstance(error, openai.RateLimitError)
    assert error.response.headers["Retry-After"] == "7"
    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")


async def test_a_fault_with_times_spares_the_next_request(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """times=N lets the request after the N-th succeed, whatever others ask meanwhile."""
    prompt = "Why? [standin cut_after=3 times=2]"
    errors = [(await read(client, prompt))[1] for _ in range(2)]
    await read(client, "Something else.")
    chunks, error = await read(client, prompt)
    assert all(isinstance(e, openai.APIConnectionError) for e in errors)
    assert error is None
    assert "".join(tokens(chunks)) == said(prompt)
    assert [entry.attempt for entry in standin.ledger.entries] == [1, 2, 1, 3]


async def test_vary_is_computed_with_the_attempt(client: AsyncOpenAI) -> None:
    """The second request for the same content is answered as the second attempt."""
    prompt = "Why? [standin vary=1]"
    first, _ = await read(client, prompt)
    second, _ = await read(client, prompt)
    assert "".join(tokens(first)) == said(prompt, attempt=1)
    assert "".join(tokens(second)) == said(prompt, attempt=2)


@pytest.mark.parametrize(
    "directive", ["stall_after=4", "stall_after=0", "pace=0.001", "first_token_ms=3600000"]
)
async def test_a_client_that_leaves_a_waiting_answer_is_noticed(
    standin: Standin, client: AsyncOpenAI, directive: str
) -> None:
    """While the server waits between tokens, a closed connection ends the request at once."""
    async with aclosing(follow(client, f"[standin {directive}]")) as chunks:
        await anext(chunks)
        expected = {"stall_after=4": 4, "pace=0.001": 1}.get(directive, 0)
        await wait_ledger(standin, lambda ledger: ledger.entries[0].tokens_sent == expected)
        assert standin.ledger.open == 1
    left_at = time.time()
    assert await only_outcome(standin) == Outcome.CLIENT_CLOSED
    assert (standin.ledger.entries[0].ended_at or 0) - left_at < NOTICED_SECONDS


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_first_byte_is_noticed(
    standin: Standin, stream: Literal[True, False]
) -> None:
    """start_ms holds everything back, and a closed connection still ends the request."""
    body = {"model": MODEL, "messages": asking("[standin start_ms=3600000]"), "stream": stream}
    async with aiohttp.ClientSession() as session:
        post = asyncio.create_task(
            session.post(f"{standin.base_url}/chat/completions", json=body).__aenter__()
        )
        await wait_ledger(standin, lambda ledger: ledger.open == 1)
        post.cancel()
        with pytest.raises(asyncio.CancelledError):
            await post
    assert await only_outcome(standin) == Outcome.CLIENT_CLOSED


async def test_a_client_that_leaves_a_fast_answer_is_noticed(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """Without a pace the server still takes note, long before the end."""
    async with aclosing(follow(client, "[standin tokens=200000]")) as chunks:
        await anext(chunks)
    assert await only_outcome(standin) == Outcome.CLIENT_CLOSED
    assert standin.ledger.entries[0].tokens_sent < 200_000


async def test_headers_and_role_come_before_a_slow_first_token(standin: Standin) -> None:
    """first_token_ms waits where a model thinks: after its headers."""
    async with posting(standin, "[standin first_token_ms=3600000]") as response:
        frame = await response.content.readuntil(b"\n\n")
        assert b'"role":"assistant"' in frame
        assert standin.ledger.entries[0].first_token_at is None


async def test_no_token_comes_before_it_is_due(standin: Standin, client: AsyncOpenAI) -> None:
    """The last of N tokens comes (N - 1) / pace after the first, however the loop is late."""
    chunks, _ = await read(client, "[standin tokens=21 pace=200]")
    entry = standin.ledger.entries[0]
    assert len(tokens(chunks)) == 21
    assert entry.first_token_at is not None
    assert entry.ended_at is not None
    assert entry.ended_at - entry.first_token_at >= 20 / 200 - 0.005


async def test_an_answer_survives_byte_by_byte(client: AsyncOpenAI) -> None:
    """bytes=1 changes packets, never text."""
    prompt = "[standin kind=unicode tokens=60 bytes=1]"
    chunks, error = await read(client, prompt)
    assert error is None
    assert tokens(chunks) == list(answer(MODEL, asking(prompt)))


async def test_bytes_leave_one_by_one(standin: Standin) -> None:
    """bytes=1 writes HTTP chunks of a single byte."""
    async with posting(standin, "[standin tokens=2 bytes=1]") as response:
        sizes = {len(data) async for data, _ in response.content.iter_chunks() if data}
    assert 1 in sizes


@pytest.mark.parametrize("directive", ["tokenz=5", "tokens=five", "cut_after=41"])
async def test_a_mistyped_directive_is_a_bad_request(
    standin: Standin, client: AsyncOpenAI, directive: str
) -> None:
    """An unknown key, a malformed value, or a fault beyond the end cannot pass unnoticed."""
    _, error = await read(client, f"[standin {directive}]")
    assert isinstance(error, openai.BadRequestError)
    assert error.param == "messages"
    assert await only_outcome(standin) == Outcome.INVALID


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model":"m"}',
        b'{"model":"m","messages":[]}',
        b'{"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":2}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":0}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream_options":{}}',
    ],
)
async def test_a_malformed_request_is_a_bad_request(standin: Standin, body: bytes) -> None:
    """What OpenAI would refuse is refused, with its error object."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{standin.base_url}/chat/completions", data=body) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"
    assert await only_outcome(standin) == Outcome.INVALID


@pytest.mark.parametrize(
    ("directive", "outcome"),
    [
        ("cut_after=3", Outcome.CUT),
        ("malformed_after=3", Outcome.MALFORMED),
        ("error_after=3", Outcome.ERRORED),
        ("end_after=3", Outcome.ENDED_EARLY),
    ],
)
async def test_a_whole_answer_can_fail_too(
    standin: Standin, client: AsyncOpenAI, directive: str, outcome: Outcome
) -> None:
    """Without stream a fault never leaves a completion with a finish_reason."""
    finish_reason = None
    try:
        completion = await client.chat.completions.create(
            model=MODEL, messages=asking(f"[standin {directive}]")
        )
        finish_reason = completion.choices and completion.choices[0].finish_reason
    except (openai.OpenAIError, ValueError):
        pass
    assert not finish_reason
    assert await only_outcome(standin) == outcome
    assert standin.ledger.entries[0].tokens_sent == 3
