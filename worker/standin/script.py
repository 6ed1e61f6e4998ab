"""What the stand-in will say: a pure function of the request, and so the oracle of every test."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, NamedTuple

from worker.standin.directive import Directive, parse
from worker.standin.error import RequestInvalid
from worker.standin.prose import prose, refusal, tokens_of
from worker.standin.settings import StandinSettings

Message = Mapping[str, Any]

DEFAULT_TOKENS: int = StandinSettings.model_fields["tokens"].default
_TOOL_ARGUMENT_TOKENS = 8
_FALLBACK_TOOL = "look_up"

# Each stands somewhere in an answer that is long enough: what breaks naive line and frame readers.
_LINES = (
    *("\n", "\n\n", "\n\n\n", "\r", "\r\n", "\r\n\r\n", "\n\r", "\n \n", " \n", "\n ", "\t\n"),
    *(" ", "  ", "\t", " end ", "  indented", "word\n", "\nword", "two\nlines", "a\r\nb\rc\nd"),
    *("data:", "data: x\n\n", "event: done\n", "id: 0-0", ": comment\n", "retry: 1\n\n", "[DONE]"),
)
_CHARACTERS = (
    *(
        "😀",
        "👩‍👩‍👧‍👦",
        "🇫🇷",
        "👩",
        "\u200d",
        "🚀",
        "🏽",
        "e\u0301",
        "\u0301",
        "n\u0303o",
        "a\u0308\u0323",
    ),
    *(" שלום", " مرحبا", "\u200f", "\u202e", "\u202c", " 日本", "語", " Ελλάδα", " Россия", " ไทย"),
    *("\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\ufeff", "\ufffd", "\u00a0", "\u00ad"),
    *(
        "\U0001d518",
        "𠮷",
        "\U0010fffd",
        "\x7f",
        '"',
        "\\",
        "\\n",
        "\\u0000",
        "</script>",
        "&amp;",
        "%0A",
    ),
)


class Delta(NamedTuple):
    """One piece of an answer; `call` numbers the tool calls."""

    field: Literal["content", "reasoning", "refusal", "tool_name", "tool_arguments"]
    text: str
    call: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """One whole answer, before anything happens to it on its way."""

    deltas: tuple[Delta, ...]
    finish_reason: str
    dictated: bool
    """Whether the directive chose the reason."""
    prompt_tokens: int
    reasoning_tokens: int

    def text(self, field: str, call: int = 0) -> str:
        """Everything it says in one field, joined."""
        return "".join(d.text for d in self.deltas if d.field == field and d.call == call)

    def behind(self, prefix: str) -> "Script | None":
        """What follows once somebody has said the prefix; None if it would not begin like that.

        The reasoning was done before, so only a prefix without text leaves it in.
        """
        if not prefix:
            return self
        if not self.text("content").startswith(prefix):
            return None
        rest, to_skip = [], len(prefix)
        for delta in self.deltas:
            if delta.field == "content" and len(delta.text) > to_skip:
                rest.append(delta._replace(text=delta.text[to_skip:]))
            to_skip -= min(to_skip, len(delta.text)) if delta.field == "content" else 0
        return replace(self, deltas=tuple(rest), reasoning_tokens=0)

    def first(self, count: int) -> "Script":
        """The same, if it had ended after count deltas."""
        return replace(self, deltas=self.deltas[:count])

    def limited(self, limit: int) -> "Script":
        """The same, if no more tokens than the limit were wanted."""
        if len(self.deltas) <= limit:
            return self
        reason = self.finish_reason if self.dictated else "length"
        spent = min(self.reasoning_tokens, limit)
        return replace(self.first(limit), finish_reason=reason, reasoning_tokens=spent)

    @property
    def usage(self) -> dict[str, Any]:
        """What it would cost, in OpenAI's shape."""
        completion_tokens = len(self.deltas)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The tools it calls, in order."""
        return tuple(d.text for d in self.deltas if d.field == "tool_name")


def answer(
    model: str,
    messages: Sequence[Message],
    *,
    default_tokens: int = DEFAULT_TOKENS,
    limit: int | None = None,
    attempt: int = 1,
) -> tuple[str, ...]:
    """The content tokens of the answer.

    An assistant message at the end is its beginning, and the tokens are what follows behind it.
    limit is the request's `max_completion_tokens`; attempt counts the requests for the same
    content and matters only to `vary=1`.

    Raises: RequestInvalid if the directive is malformed or the beginning is another's.
    """
    question, prefix = split_prefix(messages)
    script = compose(
        model,
        question,
        prefix=prefix,
        default_tokens=default_tokens,
        limit=limit,
        attempt=attempt,
    )
    return tuple(delta.text for delta in script.deltas if delta.field == "content")


def compose(
    model: str,
    messages: Sequence[Message],
    *,
    prefix: str | None = None,
    tools: Sequence[str] = (),
    default_tokens: int = DEFAULT_TOKENS,
    limit: int | None = None,
    attempt: int = 1,
) -> Script:
    """The whole answer, with reasoning, refusal and tool calls.

    The directive shapes the text but does not seed it: the same question, failing in another way
    or at another pace, is answered with the same words.

    A prefix is the answer's beginning as the client has it: what follows behind it is composed, to
    the letter. With `vary=1` that may be what an earlier attempt began.

    Raises: RequestInvalid if the directive is malformed, or the prefix none of this answer.
    """
    for earlier in range(attempt, 0, -1):
        whole = _compose_whole(model, messages, tools, default_tokens, earlier)
        script = whole if prefix is None else whole.behind(prefix)
        if script is not None:
            break
    else:
        raise RequestInvalid(
            "the assistant message at the end is not how this answer begins", "messages"
        )
    if prefix:
        script = replace(script, prompt_tokens=script.prompt_tokens + 1 + len(prefix.split()))
    return script if limit is None else script.limited(limit)


def _compose_whole(
    model: str,
    messages: Sequence[Message],
    tools: Sequence[str],
    default_tokens: int,
    attempt: int,
) -> Script:
    position, text = last_user_text(messages)
    directive, prompt = parse(text)
    said = [prompt if at == position else message for at, message in enumerate(messages)]
    seed = digest([model, said, attempt if directive.vary else 1])
    random = Random(seed)

    deltas = [Delta("reasoning", t) for t in _thoughts(Random(seed + "r"), directive.reasoning)]
    if directive.tool is not None:
        for call in range(directive.tool):
            name = tools[call % len(tools)] if tools else _FALLBACK_TOOL
            deltas += _tool_call(random, directive, name, call)
    elif directive.refusal is not None:
        deltas += (Delta("refusal", token) for token in refusal(directive.tokens))
    else:
        count = default_tokens if directive.tokens is None else directive.tokens
        deltas += (Delta("content", t) for t in _content(random, directive, prompt, count))

    finish = "tool_calls" if directive.tool is not None else "stop"
    return Script(
        deltas=tuple(deltas),
        finish_reason=directive.finish or finish,
        dictated=directive.finish is not None,
        prompt_tokens=sum(1 + len(_text(message).split()) for message in messages),
        reasoning_tokens=directive.reasoning,
    )


def split_prefix(
    messages: Sequence[Message],
) -> tuple[tuple[Message, ...], str | None]:
    """Part the question from the beginning of its answer: an assistant message at the end.

    Raises: RequestInvalid for tool calls, behind which no text can follow.
    """
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        return tuple(messages), None
    *question, last = messages
    if last.get("tool_calls"):
        raise RequestInvalid("the last message must not be tool calls", "messages")
    return tuple(question), _text(last, between="")


def digest(value: Any) -> str:
    """A short name for a JSON value, the same in every process."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def last_user_text(messages: Sequence[Message]) -> tuple[int, str]:
    """Where the last user message stands and its text; (-1, "") if nobody asked anything."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].get("role") == "user":
            return position, _text(messages[position])
    return -1, ""


def _text(message: Message, between: str = " ") -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return between.join(p["text"] for p in parts if isinstance(p, dict) and "text" in p)


def _content(random: Random, directive: Directive, prompt: str, count: int) -> list[str]:
    match directive.kind:
        case "lines":
            # A CR and its LF in two tokens, and a newline at both ends, whatever the seed.
            return ["\n", "\r", "\n", *_shuffled(random, _LINES, count - 4), "\n"][:count]
        case "unicode":
            return _shuffled(random, _CHARACTERS, count)
        case kind:
            return prose(random, prompt, count, paragraphs=kind == "prose")


def _shuffled(random: Random, pool: Sequence[str], count: int) -> list[str]:
    """All of the pool in some order, again and again, with plain words between."""
    tokens: list[str] = []
    while len(tokens) < count:
        for token in random.sample(pool, len(pool)):
            tokens.append(token)
            if random.random() < 0.25:
                tokens.append(" word")
    return tokens[: max(count, 0)]


def _thoughts(random: Random, count: int) -> list[str]:
    return prose(random, "", count, paragraphs=False)


def _tool_call(random: Random, directive: Directive, name: str, call: int) -> list[Delta]:
    count = _TOOL_ARGUMENT_TOKENS if directive.tokens is None else directive.tokens
    words = prose(random, "", count, paragraphs=False)
    pieces = [*tokens_of('{"query":"'), *words, '"}']
    return [Delta("tool_name", name, call)] + [Delta("tool_arguments", p, call) for p in pieces]
