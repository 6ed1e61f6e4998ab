"""What may be asked: known parameters in their types, the rest as it is, ours not at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from api.requests import OWNED, parse_idempotency_key, parse_request, read_body
from shared.errors import BodyNotJson, BodyTooLarge, ParameterRefused, RequestInvalid
from tests.support.virtual_clock import run_virtual

HELLO = [{"role": "user", "content": "Hello"}]


def asking(**parameters: Any) -> dict[str, Any]:
    return {"messages": HELLO, **parameters}


def test_a_prompt_is_short_for_one_message() -> None:
    """The model server is asked in its own words."""
    assert parse_request({"prompt": "Hello", "seed": 1}) == asking(seed=1)


@pytest.mark.parametrize(
    "parameters",
    [
        asking(),
        asking(model="m", n=1, temperature=1, top_p=0.5, max_tokens=1, stop=["a"], seed=-3),
        asking(tools=[{"type": "function"}], tool_choice="auto", parallel_tool_calls=False),
        asking(response_format={"type": "json_object"}, user="u", store=None, n=None),
        asking(chat_template_kwargs={"enable_thinking": False}, top_k=40, extra=[None]),
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "é👋\x00"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}], "content": None}]},
        {"messages": [{"role": role, "content": "x"} for role in ("system", "developer", "tool")]},
    ],
)
def test_what_may_be_asked_passes_untouched(parameters: dict[str, Any]) -> None:
    """Known parameters in their types and unknown ones alike; the body itself is not changed."""
    body = dict(parameters)
    assert parse_request(body) == parameters
    assert body == parameters


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"model": "m"}, ""),
        ({"prompt": "x", "messages": HELLO}, "/prompt"),
        ({"prompt": ""}, "/prompt"),
        ({"prompt": None}, "/prompt"),
        ({"prompt": 5}, "/prompt"),
        ({"prompt": ["x"]}, "/prompt"),
        ({"prompt": "\ud800"}, ""),
        ({"messages": []}, "/messages"),
        ({"messages": None}, "/messages"),
        ({"messages": "Hello"}, "/messages"),
        ({"messages": {"0": HELLO[0]}}, "/messages"),
        ({"messages": ["Hello"]}, "/messages/0"),
        ({"messages": [*HELLO, {"content": "x"}]}, "/messages/1/role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "/messages/0/role"),
        ({"messages": [{"role": "user", "content": "\udfff"}]}, ""),
        (asking(model=""), "/model"),
        (asking(model=7), "/model"),
        (asking(model="m" * 201), "/model"),
        (asking(n=2), "/n"),
        (asking(n="1"), "/n"),
        (asking(temperature="hot"), "/temperature"),
        (asking(temperature=True), "/temperature"),
        (asking(max_tokens=0), "/max_tokens"),
        (asking(max_tokens=1.5), "/max_tokens"),
        (asking(max_completion_tokens=-1), "/max_completion_tokens"),
        (asking(seed="1"), "/seed"),
        (asking(tools={}), "/tools"),
        (asking(tools=["f"]), "/tools/0"),
        (asking(modalities=["audio"]), "/modalities/0"),
        (asking(metadata={"a": 1}), "/metadata/a"),
        (asking(parallel_tool_calls="yes"), "/parallel_tool_calls"),
    ],
)
def test_a_wrong_shape_is_refused_by_its_pointer(body: dict[str, Any], pointer: str) -> None:
    """Whoever asked wrongly is told where."""
    with pytest.raises(RequestInvalid) as refusal:
        parse_request(body)
    assert refusal.value.pointer == pointer
    assert refusal.value.reason


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "/messages/0/content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "/messages/0/content/0"),
        (asking(stop=5), "/stop"),
        (asking(stop=[5]), "/stop/0"),
        (asking(tool_choice=5), "/tool_choice"),
        (asking(logit_bias={"a/b~c": "x"}), "/logit_bias/a~1b~0c"),
    ],
)
def test_a_pointer_leads_to_the_value_that_is_wrong(body: dict[str, Any], pointer: str) -> None:
    """RFC 6901: only names and places of the body, `~` and `/` in names spelled `~0` and `~1`."""
    with pytest.raises(RequestInvalid) as refusal:
        parse_request(body)
    assert refusal.value.pointer == pointer


@pytest.mark.parametrize("name", sorted(OWNED))
@pytest.mark.parametrize("value", [True, None, {}], ids=str)
def test_parameters_that_we_own_are_refused_by_name(name: str, value: object) -> None:
    """Whatever their value: better told than silently ignored."""
    with pytest.raises(ParameterRefused) as refusal:
        parse_request(asking(**{name: value}))
    assert refusal.value.name == name


# --- the body -----------------------------------------------------------------------------------


def read(body: bytes, limit: int = 1000, declared: str | None = None, cut: int = 3) -> Any:
    """Have a request with this body read, arriving in pieces."""
    pieces = [body[start : start + cut] for start in range(0, len(body), cut)]
    headers = [(b"content-length", declared.encode())] if declared else []

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    return run_virtual(read_body(Request(scope, receive), limit))


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3), st.integers(1, 9))
def test_a_body_is_read_whatever_pieces_it_comes_in(body: dict[str, str], cut: int) -> None:
    """Characters cut in the middle included."""
    assert read(json.dumps(body, ensure_ascii=False).encode(), cut=cut) == body


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"x", b"{", b"{}{}", b"[]", b'"x"', b"null", b"1", b"{'a':1}", b'{"a":}'),
        *(b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":"\xff"}', b"\xef\xbb\xbf{}"),
        *('{"a":1}'.encode("utf-16"), b'{"a":"\n"}', b'{"a":' + b"1" * 5000 + b"}"),
        *(b'{"a":1e999}', b'{"a":-1e999}', b'{"a":[[1.5e400]]}'),
        *(b'{"a":' + b"[" * deep + b"]" * deep + b"}" for deep in (300, 200_000)),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json_object_in_utf8_is_refused(body: bytes) -> None:
    """Never a guess, never a crash."""
    with pytest.raises(BodyNotJson) as refusal:
        read(body, limit=1_000_000, cut=1_000_000)
    assert refusal.value.reason


def test_a_body_over_the_limit_is_refused_and_one_at_it_is_not() -> None:
    """By what it says it has, and by what it has."""
    body = b'{"a":"xxxx"}'
    assert read(body, limit=len(body)) == {"a": "xxxx"}
    with pytest.raises(BodyTooLarge) as refusal:
        read(body, limit=len(body) - 1)
    assert refusal.value.limit == len(body) - 1
    with pytest.raises(BodyTooLarge):
        read(b"", limit=10, declared="11")
    assert read(b"{}", limit=10, declared="\u0669\u0669") == {}


# --- idempotency keys ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "a", "é👋", "a b", "x" * 255])
def test_a_usable_idempotency_key_is_taken_as_it_is(key: str | None) -> None:
    """One to 255 printable characters, or none at all."""
    assert parse_idempotency_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a\n", "\0", "a\ttab", "\x7f", "\ud800", "\u2028"])
def test_an_unusable_idempotency_key_is_refused(key: str) -> None:
    """An empty one would be shared by everybody."""
    with pytest.raises(RequestInvalid):
        parse_idempotency_key(key)
