"""The stand-in's text behind a beginning that the request brings along."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.standin import answer, compose, request_key
from worker.standin.directive import Fault, parse
from worker.standin.error import RequestInvalid
from worker.standin.request import ChatRequest
from worker.standin.script import split_prefix

MODEL = "standin"


def asking(text: str, beginning: str | None = None) -> list[dict[str, str]]:
    question = [{"role": "user", "content": text}]
    if beginning is None:
        return question
    return [*question, {"role": "assistant", "content": beginning}]


def said(prompt: str, beginning: str | None = None, attempt: int = 1) -> str:
    return "".join(answer(MODEL, asking(prompt, beginning), attempt=attempt))


@given(
    kind=st.sampled_from(["prose", "plain", "lines", "unicode"]),
    share=st.floats(0, 1),
)
def test_any_beginning_is_continued_to_the_letter(kind: str, share: float) -> None:
    """Wherever the beginning ends, inside a token too, both parts make the whole answer."""
    prompt = f"Why? [standin tokens=60 kind={kind}]"
    whole = said(prompt)
    beginning = whole[: round(share * len(whole))]
    assert beginning + said(prompt, beginning) == whole


def test_a_beginning_inside_a_token_leaves_the_rest_of_that_token() -> None:
    """What follows starts with the letters that are missing, then goes on token by token."""
    tokens = answer(MODEL, asking("Why?"))
    beginning = "".join(tokens[:3]) + tokens[3][:1]
    assert answer(MODEL, asking("Why?", beginning)) == (tokens[3][1:], *tokens[4:])


def test_a_continuation_has_no_reasoning() -> None:
    """The reasoning came before the text that is there already."""
    question = asking("Why? [standin reasoning=5 tokens=9]")
    beginning = answer(MODEL, question)[0]
    script = compose(MODEL, question, prefix=beginning)
    assert {delta.field for delta in script.deltas} == {"content"}
    assert script.usage["completion_tokens"] == 8
    assert script.usage["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_a_limit_counts_from_the_beginning_on() -> None:
    """What the request brought along was not asked for."""
    tokens = answer(MODEL, asking("Why?"))
    rest = answer(MODEL, asking("Why?", "".join(tokens[:10])), limit=5)
    assert rest == tokens[10:15]


def test_a_whole_answer_is_continued_by_nothing() -> None:
    """Only the reason why it ends is left to say."""
    whole = said("Why?")
    script = compose(MODEL, asking("Why?"), prefix=whole)
    assert (script.deltas, script.finish_reason) == ((), "stop")


@pytest.mark.parametrize(
    ("prompt", "beginning"),
    [
        ("Why?", "Something else."),
        ("Why?", said("Why?") + "!"),
        ("Why?", " " + said("Why?")[:9]),
        ("Why? [standin refusal=1]", "I am sorry"),
        ("Why? [standin tool=1]", "{"),
    ],
)
def test_another_answers_beginning_is_refused(prompt: str, beginning: str) -> None:
    """Text that was mixed up, doubled or lost on its way cannot pass unnoticed."""
    with pytest.raises(RequestInvalid, match="not how this answer begins"):
        answer(MODEL, asking(prompt, beginning))


def test_tool_calls_cannot_be_continued() -> None:
    """Behind a tool call stands its result, not more of the answer."""
    with pytest.raises(RequestInvalid, match="tool calls"):
        split_prefix([*asking("Why?"), {"role": "assistant", "tool_calls": [{"id": "a"}]}])


def test_with_vary_an_earlier_attempt_is_continued() -> None:
    """What the first attempt began, the second ends as the first would have."""
    prompt = "Why? [standin vary=1]"
    first = said(prompt, attempt=1)
    beginning = first[: len(first) // 2]
    assert beginning + said(prompt, beginning, attempt=2) == first
    assert said(prompt, attempt=2) != first


def test_a_continuation_is_the_same_question() -> None:
    """The ledger's key leaves out the beginning, and so does what the request asks."""
    messages = asking("Why?", "Be")
    body = b'{"model":"standin","messages":[{"role":"user","content":"Why?"},%b]}' % (
        b'{"role":"assistant","content":[{"type":"text","text":"B"},{"type":"text","text":"e"}]}'
    )
    asked = ChatRequest.parse(body)
    assert asked.prefix == "Be"
    assert asked.key == request_key(MODEL, messages) == request_key(MODEL, asking("Why?"))


def test_an_assistant_message_in_the_middle_is_no_beginning() -> None:
    """Only the last message is continued."""
    messages = [*asking("Why?", "Because."), *asking("Why not?")]
    assert split_prefix(messages) == (tuple(messages), None)


def test_a_fault_beyond_the_end_of_a_continuation_does_not_happen() -> None:
    """A directive made for the whole answer stays good for its end."""
    directive, _ = parse("[standin cut_after=9]")
    assert directive.within(8).fault is None
    assert directive.within(9).fault == Fault("cut", 9)
