"""The stand-in's text: the oracle that other tests compare real answers with."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.standin.directive import Directive, Fault, parse
from worker.standin.entry import Outcome
from worker.standin.error import RequestInvalid
from worker.standin.ledger import Ledger
from worker.standin.script import answer, compose

MODEL = "standin"


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_same_question_gets_the_same_answer() -> None:
    """An answer can be computed again from its request."""
    assert answer(MODEL, asking("Where to?")) == answer(MODEL, asking("Where to?"))


@pytest.mark.parametrize(("model", "question"), [("another", "Where to?"), (MODEL, "Where from?")])
def test_another_model_or_question_gets_another_answer(model: str, question: str) -> None:
    """Two answers that were mixed up would show."""
    assert answer(model, asking(question)) != answer(MODEL, asking("Where to?"))


def test_earlier_messages_change_the_answer() -> None:
    """The whole conversation is the question."""
    history = [{"role": "system", "content": "Be brief."}]
    assert answer(MODEL, [*history, *asking("Why?")]) != answer(MODEL, asking("Why?"))


def test_a_fault_or_a_pace_does_not_change_the_words() -> None:
    """The same question is answered alike however the answer fares."""
    plain = answer(MODEL, asking("Why? [standin tokens=30]"))
    assert answer(MODEL, asking("[standin pace=0 tokens=30 cut_after=3] Why?")) == plain


def test_vary_gives_each_attempt_its_own_words() -> None:
    """With vary=1 a second attempt cannot be mistaken for the first."""
    varied = asking("Why? [standin vary=1]")
    assert answer(MODEL, varied, attempt=1) != answer(MODEL, varied, attempt=2)


@given(
    count=st.integers(0, 300),
    kind=st.sampled_from(["prose", "plain", "lines", "unicode"]),
    prompt=st.text(max_size=40),
)
def test_an_answer_has_exactly_the_length_it_was_told(count: int, kind: str, prompt: str) -> None:
    """tokens=N gives N tokens, none of them empty, none with a NUL, all with a UTF-8 form."""
    prompt = prompt.replace("[", "(")
    tokens = answer(MODEL, asking(f"{prompt} [standin tokens={count} kind={kind}]"))
    assert len(tokens) == count
    assert all(tokens)
    assert "\0" not in "".join(tokens)
    assert "".join(tokens).encode().decode() == "".join(tokens)


@given(st.text(st.characters()))
def test_no_prompt_without_a_directive_is_refused(prompt: str) -> None:
    """Whatever people write is answered, lone surrogates included."""
    messages = asking(prompt.replace("[", "("))
    assert len(answer(MODEL, messages, default_tokens=9)) == 9


def test_the_default_answer_reads_as_paragraphs_that_echo_the_prompt() -> None:
    """A demo shows sentences in paragraphs, the first about the question."""
    text = "".join(answer(MODEL, asking("How do rivers remember? [standin pace=9]")))
    paragraphs = text.split("\n\n")
    assert text.startswith("You asked about “How do rivers remember”.")
    assert len(paragraphs) > 1
    assert all(p == p.strip() and p.endswith(".") for p in paragraphs)


def test_the_default_answer_has_the_default_length() -> None:
    """Without tokens= the setting counts."""
    assert len(answer(MODEL, asking("Why?"), default_tokens=77)) == 77


def test_plain_has_no_newline() -> None:
    """kind=plain stays on one line."""
    text = "".join(answer(MODEL, asking("a\nb [standin kind=plain tokens=2000]")))
    assert text.splitlines() == [text]


def test_lines_has_newlines_of_every_sort() -> None:
    """kind=lines begins and ends with a newline and holds CR, LF and CRLF, also over two tokens."""
    tokens = answer(MODEL, asking("[standin kind=lines tokens=60]"))
    assert tokens[0] == tokens[-1] == "\n"
    assert {"\n", "\r", "\r\n", "\n\n", " ", " end ", "data: x\n\n"} <= set(tokens)
    assert ("\r", "\n") in pairwise(tokens)


def test_unicode_has_characters_of_every_sort() -> None:
    """kind=unicode holds emoji, lone combining marks, right-to-left text and line separators."""
    tokens = answer(MODEL, asking("[standin kind=unicode tokens=100]"))
    assert {"😀", "\u0301", " שלום", "\u2028", "\u2029", "\u0085", "\u200d"} <= set(tokens)


def test_a_limit_keeps_the_beginning() -> None:
    """max_completion_tokens cuts the answer and says so."""
    whole = answer(MODEL, asking("Why?"))
    script = compose(MODEL, asking("Why?"), limit=5)
    assert answer(MODEL, asking("Why?"), limit=5) == whole[:5]
    assert script.finish_reason == "length"
    assert script.usage["completion_tokens"] == 5


def test_a_tool_call_has_arguments_that_parse() -> None:
    """tool=N calls the request's tools in turn, with JSON."""
    script = compose(MODEL, asking("[standin tool=2]"), tools=["weather"])
    assert script.tool_names == ("weather", "weather")
    assert [list(json.loads(script.text("tool_arguments", call))) for call in (0, 1)] == [
        ["query"],
        ["query"],
    ]
    assert script.finish_reason == "tool_calls"


def test_a_directive_is_found_in_text_parts() -> None:
    """Content given as a list of parts is read like a string."""
    parts = [{"type": "text", "text": "Why?"}, {"type": "text", "text": "[standin tokens=3]"}]
    assert len(answer(MODEL, [{"role": "user", "content": parts}])) == 3


def test_only_the_last_user_message_directs() -> None:
    """A directive earlier in a conversation has had its day."""
    messages = [
        *asking("[standin tokens=1]"),
        {"role": "assistant", "content": "You."},
        *asking("And? [standin tokens=2]"),
    ]
    assert len(answer(MODEL, messages)) == 2


def test_a_directive_is_removed_from_the_text() -> None:
    """What is echoed is what somebody wanted to know."""
    directive, rest = parse("Tell me [standin tokens=50 cut_after=10] more")
    assert rest == "Tell me more"
    assert directive.tokens == 50
    assert directive.fault == Fault("cut", 10)


def test_prose_about_standing_is_no_directive() -> None:
    """Only the word itself opens a directive."""
    assert parse("a [standing] ovation") == (Directive(), "a [standing] ovation")


@pytest.mark.parametrize(
    "text",
    [
        "[standin]",
        "[standin ]",
        "[standin tokens]",
        "[standin tokens=]",
        "[standin tokens=many]",
        "[standin tokens=-1]",
        "[standin tokens=1.5]",
        "[standin tokens=1_000]",
        "[standin tokens=٣]",
        "[standin tokens=9999999]",
        "[standin token=5]",
        "[standin packet_bytes=1]",
        "[standin tokens=5",
        "[standin tokens=5,pace=1]",
        "[standin  tokens=5]",
        "[Standin tokens=5]",
        "[standin: tokens=5]",
        "[standin tokens=5 tokens=6]",
        "[standin tokens=5] [standin pace=1]",
        "[standin kind=verse]",
        "[standin pace=fast]",
        "[standin status=200]",
        "[standin tool=0]",
        "[standin tool=1 refusal=1]",
        "[standin vary=0]",
        "[standin bytes=0]",
        "[standin cut_after=1 stall_after=2]",
        "[standin status=500 cut_after=1]",
        "[standin retry_after=1]",
        "[standin code=insufficient_quota]",
        "[standin status=429 code=Quota]",
        "[standin status=500 first_token_ms=5]",
        "[standin times=1]",
        "[standin times=0 status=500]",
    ],
)
def test_a_mistyped_directive_is_refused(text: str) -> None:
    """A test that mistypes its directive fails instead of testing nothing."""
    with pytest.raises(RequestInvalid, match=r"standin"):
        parse(text)


def test_times_heals_the_fault_and_keeps_the_shape() -> None:
    """After the first N requests only the fault is gone."""
    directive, _ = parse("[standin tokens=9 pace=3 start_ms=5 cut_after=2 times=2]")
    healed = directive.for_attempt(3)
    assert directive.for_attempt(2) is directive
    assert (healed.fault, healed.start, healed.tokens, healed.pace) == (None, None, 9, 3)


def test_a_ledger_keeps_a_hash_and_never_the_key() -> None:
    """Neither the entry nor its JSON tells the authorization header."""
    ledger = Ledger()
    entry = ledger.receive(received_at=0, authorization="Bearer sk-secret")
    assert re.fullmatch(r"sha256:[0-9a-f]{8}", entry.authorization or "")
    assert "secret" not in repr(entry) + json.dumps(ledger.as_json())


def test_a_ledger_forgets_its_oldest_requests() -> None:
    """Memory is bounded, and a forgotten request counts as no attempt."""
    ledger = Ledger(capacity=2)
    for key in ("a", "b", "b", "a"):
        ledger.receive(received_at=0, key=key).end(Outcome.COMPLETED)
    assert [(e.number, e.key, e.attempt) for e in ledger.entries] == [(3, "b", 2), (4, "a", 1)]


def test_only_requests_that_sent_tokens_were_paid() -> None:
    """A key is paid twice once two of its requests sent something."""
    ledger = Ledger()
    for key, tokens in [("a", 1), ("a", 0), ("b", 1), ("b", 2)]:
        entry = ledger.receive(received_at=0, key=key)
        entry.token_sent(tokens)
    assert ledger.paid_twice == ("b",)
