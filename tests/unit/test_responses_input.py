"""The messages of a Chat Completions request as the input items of the other API."""

from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import (
    EasyInputMessageParam,
    ResponseFunctionToolCallParam,
    ResponseInputFileParam,
    ResponseInputImageParam,
    ResponseInputTextParam,
    ResponseOutputRefusalParam,
    ResponseOutputTextParam,
)
from openai.types.responses.response_input_param import FunctionCallOutput

from worker.provider.responses_request import build_run_body

Json = dict[str, Any]

HELLO: Json = {"role": "user", "content": "Hello"}
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def input_of(*messages: Any) -> list[Json] | None:
    body = build_run_body({"messages": list(messages)}, "m")
    if body is None:
        return None
    items: list[Json] = body["input"]
    return items


IMAGE: Json = {"type": "image_url", "image_url": {"url": "u"}}
MESSAGES: list[tuple[Json, list[Json]]] = [
    *(
        ({"role": role, "content": "Hi"}, [{"role": role, "content": "Hi"}])
        for role in ("system", "developer", "user", "assistant")
    ),
    (
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                IMAGE,
                {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
                {"type": "file", "file": {"file_data": "d", "filename": "n"}},
                {"type": "file", "file": {"file_id": "i"}},
            ],
        },
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": "u"},
                    {"type": "input_image", "image_url": "u", "detail": "low"},
                    {"type": "input_file", "file_data": "d", "filename": "n"},
                    {"type": "input_file", "file_id": "i"},
                ],
            }
        ],
    ),
    (
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Hi"}, {"type": "refusal", "refusal": "No"}],
        },
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "Hi"},
                    {"type": "refusal", "refusal": "No"},
                ],
            }
        ],
    ),
    (
        {"role": "assistant", "content": "Hm", "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
        [
            {"role": "assistant", "content": "Hm"},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "call_2", "name": "f", "arguments": "{}"},
        ],
    ),
    (
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
        [{"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}],
    ),
    (
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        [{"type": "function_call_output", "call_id": "call_1", "output": "42"}],
    ),
    (
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "42"}]},
        [
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "42"}],
            }
        ],
    ),
]


@pytest.mark.parametrize(("message", "items"), MESSAGES, ids=lambda value: str(value)[:40])
def test_a_message_becomes_its_items(message: Json, items: list[Json]) -> None:
    """Texts by who said them, calls and their results as items of their own, in order."""
    assert input_of(message) == items
    assert input_of(HELLO, message, HELLO) == [HELLO, *items, HELLO]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "function", "name": "f", "content": "x"},
        {**HELLO, "name": "Ann"},
        {"role": "assistant", "refusal": "No"},
        {"role": "assistant", "audio": {"id": "a"}},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        {"role": "user", "content": [{"type": "refusal", "refusal": "No"}]},
        {"role": "system", "content": [IMAGE]},
        {"role": "tool", "tool_call_id": "c", "content": [IMAGE]},
    ],
    ids=str,
)
def test_what_cannot_be_said_there_does_without_a_run(message: Json) -> None:
    """No message is left out, or said by somebody else."""
    assert input_of(HELLO, message) is None


@pytest.mark.parametrize(
    "message",
    [
        None,
        5,
        "Hello",
        [],
        {},
        {"content": "Hello"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": 5},
        {"role": "user", "content": {"type": "text", "text": "x"}},
        {"role": "user", "content": ["x"]},
        {"role": "user", "content": [{"text": "x"}]},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "u"}]},
        {"role": "user", "content": [{"type": "file", "file": "f"}]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "tool_calls": 5},
        {"role": "assistant", "tool_calls": ["x"]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function"}]},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f"}}]},
    ],
    ids=str,
)
def test_what_is_malformed_does_without_a_run(message: object) -> None:
    """It is for the provider to refuse, in the API it was written for."""
    assert input_of(message) is None


def test_what_a_client_calls_a_file_is_a_file() -> None:
    """It chooses what is in it, not what it is."""
    odd = {"type": "file", "file": {"type": "input_text", "text": "x"}}
    (item,) = input_of({"role": "user", "content": [odd]}) or []
    assert item["content"][0]["type"] == "input_file"


# --- against the SDK ----------------------------------------------------------------------------

_KINDS: dict[str, type] = {
    "function_call": ResponseFunctionToolCallParam,
    "function_call_output": FunctionCallOutput,
    "input_text": ResponseInputTextParam,
    "input_image": ResponseInputImageParam,
    "input_file": ResponseInputFileParam,
    "output_text": ResponseOutputTextParam,
    "refusal": ResponseOutputRefusalParam,
}
_HAVE_A_DEFAULT = {"detail", "annotations"}
"""Required by the SDK's types only: they were made from what the API answers."""


def check(item: Json) -> None:
    """An item, and each part of it, has the keys that OpenAI's types have."""
    kind = _KINDS.get(item.get("type", ""), EasyInputMessageParam)
    assert set(item) <= set(get_type_hints(kind)), kind
    required = {key for key, hint in kind.__annotations__.items() if "Required[" in str(hint)}
    assert required - _HAVE_A_DEFAULT <= set(item), kind
    for parts in (item.get("content"), item.get("output")):
        if isinstance(parts, list):
            for part in parts:
                check(part)


@pytest.mark.parametrize(("message", "items"), MESSAGES, ids=lambda value: str(value)[:40])
def test_items_are_such_as_the_sdk_knows(message: Json, items: list[Json]) -> None:
    """What is said here of the other API is what its official types say."""
    for item in items:
        check(item)


def json_of(keys: list[str], words: list[str]) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.integers() | st.sampled_from(words)
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(keys), inner, max_size=4)
        ),
        max_leaves=10,
    )


messages = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls", "tool_call_id", "refusal", "name"]),
    st.sampled_from(["user", "assistant", "tool", "x"])
    | json_of(
        ["type", "text", "image_url", "url", "detail", "file", "id", "function", "name"],
        ["text", "image_url", "file", "refusal", "function", "x"],
    ),
)


@given(st.lists(messages | json_of(["role", "content"], ["user", "x"]), max_size=3) | messages)
def test_no_messages_at_all_make_it_fail(asked: Any) -> None:
    """Whatever a client sends: items of a kind the API knows, or no run."""
    body = build_run_body({"messages": asked}, "m")
    for item in body["input"] if body else ():
        assert item.get("type") in ("function_call", "function_call_output") or "content" in item
