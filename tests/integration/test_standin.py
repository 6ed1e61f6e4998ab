"""The stand-in over real sockets, mostly through the official client it must satisfy."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI, DefaultAioHttpClient
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageFunctionToolCall

from worker.standin import (
    Ledger,
    Outcome,
    Standin,
    StandinSettings,
    answer,
    compose,
    open_standin,
    request_key,
)

MODEL = "standin"
KEY = "sk-nobody-may-keep-this"
PATIENCE_SECONDS = 10.0
NOTICED_SECONDS = 0.5


@pytest.fixture
async def standin() -> AsyncIterator[Standin]:
    async with open_standin(StandinSettings(tokens_per_second=0, tokens=40)) as standin:
        yield standin


@pytest.fixture(params=["httpx2", "aiohttp"])
async def client(request: pytest.FixtureRequest, standin: Standin) -> AsyncIterator[AsyncOpenAI]:
    http_client = DefaultAioHttpClient() if request.param == "aiohttp" else None
    async with AsyncOpenAI(
        api_key=KEY, base_url=standin.base_url, max_retries=0, http_client=http_client
    ) as client:
        yield client


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def said(prompt: str, **options: Any) -> str:
    return "".join(answer(MODEL, asking(prompt), default_tokens=40, **options))


async def follow(
    client: AsyncOpenAI, prompt: str, **parameters: Any
) -> AsyncGenerator[ChatCompletionChunk, None]:
    chunks = await client.chat.completions.create(
        model=MODEL, messages=asking(prompt), stream=True, **parameters
    )
    async with chunks:
        async for chunk in chunks:
            yield chunk


async def read(
    client: AsyncOpenAI, prompt: str, **parameters: Any
) -> tuple[list[ChatCompletionChunk], Exception | None]:
    """Everything that came, and the error that ended it."""
    chunks: list[ChatCompletionChunk] = []
    try:
        async for chunk in follow(client, prompt, **parameters):
            chunks.append(chunk)  # noqa: PERF401 - what came before an error counts
    except (openai.OpenAIError, ValueError) as error:
        return chunks, error
    return chunks, None


def tokens(chunks: list[ChatCompletionChunk]) -> list[str]:
    """The content deltas after the role."""
    deltas = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    return [content for content in deltas if content]


def finish_reasons(chunks: list[ChatCompletionChunk]) -> list[str]:
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


async def wait_ledger(standin: Standin, predicate: Callable[[Ledger], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await standin.ledger.wait_until(predicate)


async def only_outcome(standin: Standin) -> Outcome:
    """What became of the one request, once it has ended."""
    await wait_ledger(standin, lambda ledger: not ledger.open)
    (entry,) = standin.ledger.entries
    return entry.outcome


@asynccontextmanager
async def posting(standin: Standin, prompt: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A streamed request without the official client, for what that hides."""
    body = {"model": MODEL, "messages": asking(prompt), "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{standin.base_url}/chat/completions", json=body) as response,
    ):
        yield response


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


async def test_the_ledger_shows_what_was_asked_and_sent(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """Parameters arrive as they were sent; times are in order; key and prompt are not kept."""
    options = {"include_usage": True, "include_obfuscation": False}
    prompt = "A private question."
    await read(client, prompt, temperature=0.25, stream_options=options)
    await wait_ledger(standin, lambda ledger: not ledger.open)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{standin.url}/ledger") as response,
    ):
        text = await response.text()
    (entry,) = json.loads(text)["requests"]
    assert entry["parameters"] == {
        "model": MODEL,
        "stream": True,
        "temperature": 0.25,
        "stream_options": options,
    }
    assert entry["key"] == request_key(MODEL, asking(prompt))
    assert entry["received_at"] <= entry["first_token_at"] <= entry["ended_at"] <= time.time()
    assert (entry["outcome"], entry["tokens_sent"]) == ("completed", 40)
    assert entry["authorization"].startswith("sha256:")
    assert KEY not in text
    assert "private" not in text


async def test_the_ledger_names_what_was_paid_twice(standin: Standin, client: AsyncOpenAI) -> None:
    """Two requests for the same content that both sent tokens are told apart from all else."""
    for prompt in ("once", "twice", "twice", "[standin status=500 times=1]"):
        await read(client, prompt)
    await read(client, "[standin status=500 times=1]")
    assert standin.ledger.paid_twice == (request_key(MODEL, asking("twice")),)


async def test_a_cleared_ledger_forgets_but_still_counts_the_open(
    standin: Standin, client: AsyncOpenAI
) -> None:
    """DELETE empties the list, not the world."""
    async with aclosing(follow(client, "[standin stall_after=1]")) as chunks:
        await anext(chunks)
        async with (
            aiohttp.ClientSession() as session,
            session.delete(f"{standin.url}/ledger") as response,
        ):
            assert response.status == 204
        assert standin.ledger.entries == ()
        assert standin.ledger.open == 1
    await wait_ledger(standin, lambda ledger: not ledger.open)


async def test_models_and_health_are_there(standin: Standin, client: AsyncOpenAI) -> None:
    """What clients ask before they ask a question is answered."""
    assert MODEL in [model.id async for model in client.models.list()]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{standin.url}/healthz") as response,
    ):
        assert response.status == 200


async def test_leaving_the_context_cuts_open_answers(client: AsyncOpenAI) -> None:
    """In-process use never waits for an answer that would not end."""
    async with open_standin(StandinSettings()) as standin:
        other = client.with_options(base_url=standin.base_url)
        chunks = follow(other, "[standin stall_after=1]")
        await anext(chunks)
    with pytest.raises(openai.APIConnectionError):
        async for _ in chunks:
            pass
    assert [entry.outcome for entry in standin.ledger.entries] == [Outcome.STOPPED]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_answers_open(number: signal.Signals) -> None:
    """`python -m worker.standin` says where it listens and ends cleanly while it streams."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker.standin",
        env={**os.environ, "STANDIN_PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = (await process.stdout.readline()).decode()
            prefix, _, url = line.strip().rpartition(" ")
            assert prefix == "standin listening on"
            async with posting(Standin(url, Ledger()), "[standin stall_after=1]") as response:
                await response.content.readuntil(b"\n\n")
                process.send_signal(number)
                _, stderr = await process.communicate()
        assert process.returncode == 0
        assert stderr == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
