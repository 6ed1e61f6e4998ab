"""The stand-in goes on behind an answer's beginning, through the official client."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.support.sdk_client import (
    MODEL,
    asking,
    finish_reasons,
    read,
    said,
    tokens,
    wait_ledger,
)
from worker.standin import Outcome, Standin, request_key


def behind(prompt: str, beginning: str) -> list[Any]:
    return [*asking(prompt), {"role": "assistant", "content": beginning}]


@pytest.mark.parametrize("kind", ["prose", "lines", "unicode"])
async def test_a_cut_answer_is_continued_to_the_letter(client: AsyncOpenAI, kind: str) -> None:
    """What came before the cut and what the next request brings are the whole answer."""
    prompt = f"Why? [standin tokens=40 kind={kind} cut_after=17 times=1]"
    before, error = await read(client, prompt)
    assert isinstance(error, openai.APIConnectionError)
    beginning = "".join(tokens(before))
    after, error = await read(client, prompt, messages=behind(prompt, beginning))
    assert error is None
    assert beginning + "".join(tokens(after)) == said(prompt)
    assert finish_reasons(after) == ["stop"]


async def test_the_ledger_knows_a_continuation(standin: Standin, client: AsyncOpenAI) -> None:
    """It has the question's key, the next attempt, and the length of what it brought along."""
    prompt = "Why? [standin cut_after=3 times=1]"
    before, _ = await read(client, prompt)
    beginning = "".join(tokens(before))
    await read(client, prompt, messages=behind(prompt, beginning))
    await wait_ledger(standin, lambda ledger: not ledger.open)
    entries = [entry.as_json() for entry in standin.ledger.entries]
    key = request_key(MODEL, asking(prompt))
    assert [(e["key"], e["attempt"], e["continues"], e["tokens_sent"]) for e in entries] == [
        (key, 1, None, 3),
        (key, 2, len(beginning), 37),
    ]
    assert standin.ledger.paid_twice == (key,)


async def test_a_fault_recurs_behind_the_beginning(client: AsyncOpenAI) -> None:
    """Without times each attempt has that many tokens more, until the answer is whole."""
    prompt = "Why? [standin cut_after=15]"
    beginning, attempts = "", []
    for _ in range(3):
        chunks, error = await read(client, prompt, messages=behind(prompt, beginning))
        beginning += "".join(tokens(chunks))
        attempts.append((len(tokens(chunks)), error is None))
    assert attempts == [(15, False), (15, False), (10, True)]
    assert beginning == said(prompt)


async def test_a_whole_answer_is_continued_too(client: AsyncOpenAI) -> None:
    """Without stream the completion is what follows."""
    beginning = said("Why?")[:50]
    completion = await client.chat.completions.create(
        model=MODEL, messages=behind("Why?", beginning)
    )
    assert beginning + (completion.choices[0].message.content or "") == said("Why?")


async def test_a_mixed_up_beginning_is_a_bad_request(standin: Standin, client: AsyncOpenAI) -> None:
    """Whoever continues with another answer's text notices."""
    _, error = await read(client, "Why?", messages=behind("Why?", said("Why not?")))
    assert isinstance(error, openai.BadRequestError)
    assert error.param == "messages"
    (entry,) = standin.ledger.entries
    assert (entry.outcome, entry.tokens_generated) == (Outcome.INVALID, 0)
