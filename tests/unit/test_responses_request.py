"""A Chat Completions request asked by the other API: the same, or not at all."""

import re
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses import (
    FunctionToolParam,
    ResponseFormatTextJSONSchemaConfigParam,
    ResponseTextConfigParam,
    ToolChoiceFunctionParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.shared_params import Reasoning

from worker.provider import responses_request
from worker.provider.responses_request import build_run_body

Json = dict[str, Any]

HELLO: Json = {"role": "user", "content": "Hello"}
ASKED: Json = {"messages": [HELLO], "model": "asked"}
SCHEMA: Json = {"type": "object", "properties": {"x": {"type": "integer"}}}

CHAT = set(get_type_hints(CompletionCreateParamsBase)) | {"stream"}
RESPONSES = get_type_hints(ResponseCreateParamsBase)


def body_of(**parameters: Any) -> Json | None:
    return build_run_body({**ASKED, **parameters}, "m")


def test_the_plainest_request_goes_on_in_the_background() -> None:
    """What goes on by itself is stored, streamed, and asked of the model that was chosen."""
    assert body_of() == {
        "input": [{"role": "user", "content": "Hello"}],
        "model": "m",
        "background": True,
        "store": True,
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }


def tool(**function: Any) -> Json:
    return {"type": "function", "function": {"name": "f", **function}}


MAPPED: dict[str, tuple[Any, Json]] = {
    "max_completion_tokens": (7, {"max_output_tokens": 7}),
    "max_tokens": (7, {"max_output_tokens": 7}),
    "reasoning_effort": ("low", {"reasoning": {"effort": "low"}}),
    "verbosity": ("low", {"text": {"verbosity": "low"}}),
    "response_format": (
        {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        {
            "text": {
                "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}
            }
        },
    ),
    "tools": (
        [tool(description="d", parameters=SCHEMA, strict=True), tool()],
        {
            "tools": [
                {
                    "type": "function",
                    "name": "f",
                    "description": "d",
                    "parameters": SCHEMA,
                    "strict": True,
                },
                {"type": "function", "name": "f", "parameters": {}, "strict": False},
            ]
        },
    ),
    "tool_choice": (
        {"type": "function", "function": {"name": "f"}},
        {"tool_choice": {"type": "function", "name": "f"}},
    ),
    "metadata": ({"a": "b"}, {"metadata": {"a": "b"}}),
    "parallel_tool_calls": (False, {"parallel_tool_calls": False}),
    "prompt_cache_key": ("k", {"prompt_cache_key": "k"}),
    "safety_identifier": ("k", {"safety_identifier": "k"}),
    "service_tier": ("flex", {"service_tier": "flex"}),
    "temperature": (0, {"temperature": 0}),
    "top_p": (0.5, {"top_p": 0.5}),
    "user": ("u", {"user": "u"}),
    "store": (True, {}),
    "n": (1, {}),
    "stream": (True, {}),
    "stream_options": ({"include_usage": True}, {}),
}


@pytest.mark.parametrize("name", MAPPED)
def test_every_parameter_that_has_words_there_is_said_in_them(name: str) -> None:
    """And nothing else is said because of it; one that is null is as if it were not there."""
    value, said = MAPPED[name]
    plain = body_of()
    assert plain is not None
    assert body_of(**{name: value}) == plain | said
    assert body_of(**{name: None}) == plain


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_choice_by_a_word_is_the_same_word(choice: str) -> None:
    """Only that of one function has another shape."""
    body = body_of(tool_choice=choice)
    assert body is not None
    assert body["tool_choice"] == choice


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_format_and_verbosity_meet_in_one_place(kind: str) -> None:
    """Whichever comes first, both are said."""
    both = {"verbosity": "high", "response_format": {"type": kind}}
    for order in (both, dict(reversed(both.items()))):
        body = body_of(**order)
        assert body is not None
        assert body["text"] == {"verbosity": "high", "format": {"type": kind}}


def test_what_a_client_calls_a_function_is_a_function() -> None:
    """It chooses what is in a tool or a format, not what it is: others may cost more."""
    body = body_of(
        tools=[tool(type="web_search")],
        response_format={"type": "json_schema", "json_schema": {"name": "n", "type": "text"}},
    )
    assert body is not None
    assert body["tools"][0]["type"] == "function"
    assert body["text"]["format"]["type"] == "json_schema"


def test_every_other_parameter_of_chat_completions_does_without_a_run() -> None:
    """Whatever the SDK knows beside what is mapped: unmapped it is not dropped in silence."""
    others = CHAT - set(MAPPED) - {"messages", "model"}
    assert {"stop", "seed", "logit_bias", "presence_penalty", "frequency_penalty"} <= others
    assert [name for name in sorted(others) if body_of(**{name: "x"}) is not None] == []
    assert body_of(no_parameter_at_all=1) is None


@pytest.mark.parametrize(
    "excluded",
    [
        {"store": False},
        {"max_tokens": 5, "max_completion_tokens": 9},
        {"response_format": {"type": "grammar", "grammar": "g"}},
        {"tools": [{"type": "custom", "custom": {"name": "c"}}]},
        {"tool_choice": {"type": "custom", "custom": {"name": "c"}}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
    ],
    ids=str,
)
def test_what_cannot_be_said_there_does_without_a_run(excluded: Json) -> None:
    """A request is never asked as something else than it was."""
    assert body_of(**excluded) is None


def test_the_table_names_what_is_mapped() -> None:
    """What the module's table promises is what it does."""
    table = responses_request.__doc__
    assert table is not None
    rows = re.findall(r"^\| (.+?) \|", table.replace("\\\n", ""), re.MULTILINE)[1:]
    named = set(re.findall(r"`(\w+)`", " ".join(rows))) - {"function"}
    owned = {"n", "stream", "stream_options"}
    assert named == (set(MAPPED) - owned) | {"messages", "model"}


# --- against the SDK ----------------------------------------------------------------------------


def check(value: Json, kind: type) -> None:
    """`value` has all the keys that OpenAI's type requires, and none that it lacks."""
    hints = get_type_hints(kind)
    assert set(value) <= set(hints), kind
    required = {key for key, hint in kind.__annotations__.items() if "Required[" in str(hint)}
    assert required <= set(value), kind


@pytest.mark.parametrize("name", MAPPED)
def test_what_is_said_are_words_of_the_api(name: str) -> None:
    """By the types of the official SDK: no key of Chat Completions is left over."""
    body = body_of(**{name: MAPPED[name][0]})
    assert body is not None
    assert set(body) - {"stream"} <= set(RESPONSES)
    assert not set(body) & (CHAT - set(RESPONSES) - {"stream"})
    for said in body.get("tools", ()):
        check(said, FunctionToolParam)
    if "tool_choice" in body:
        check(body["tool_choice"], ToolChoiceFunctionParam)
    if "reasoning" in body:
        check(body["reasoning"], Reasoning)
    if "text" in body:
        check(body["text"], ResponseTextConfigParam)
    if "format" in body.get("text", ()):
        check(body["text"]["format"], ResponseFormatTextJSONSchemaConfigParam)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["function", "auto", "text", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "function", "name", "parameters", "json_schema"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CHAT)) | st.text(max_size=3), values, max_size=4))
def test_no_parameters_at_all_make_it_fail_or_say_what_the_api_lacks(parameters: Json) -> None:
    """Malformed ones are for the provider to refuse, in the API they were written for."""
    body = build_run_body({**ASKED, **parameters}, "m")
    if body is not None:
        assert set(body) - {"stream"} <= set(RESPONSES)
        assert (body["model"], body["background"], body["store"], body["stream"]) == (
            "m",
            True,
            True,
            True,
        )
