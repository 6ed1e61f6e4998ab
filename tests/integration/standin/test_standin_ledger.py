"""What the stand-in writes down, and how it ends."""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import aclosing

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tests.support.sdk_client import (
    KEY,
    MODEL,
    PATIENCE_SECONDS,
    asking,
    follow,
    posting,
    read,
    wait_ledger,
)
from worker.standin import (
    Ledger,
    Outcome,
    Standin,
    StandinSettings,
    open_standin,
    request_key,
)


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
