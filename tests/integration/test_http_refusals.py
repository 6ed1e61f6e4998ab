"""What is refused: by a problem with a stable code (RFC 9457), before anything is stored."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.connections import Client
from tests.support.api_client import Reply, chat_path, follow_path
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author
from tests.support.redis_server import RedisServer
from tests.support.wait import within

MAX_BODY = 10_000
ALLOWED = "https://app.example"
USER = [{"role": "user", "content": "hello"}]

NOT_JSON = (
    *(b"", b"{", b"nope", b'{"prompt": "hello"} x', b"\xff\xfe", b'"hello"', b"[]", b"null", b"1"),
    *(b'{"prompt": NaN}', b'{"prompt": "hello", "seed": Infinity}', b'{"a": -Infinity}'),
    *(
        b'{"prompt": "hello", "temperature": 1e999}',
        b'{"prompt": "hello", "seed": 1%s}' % (b"0" * 4999),
    ),
    *(b'{"prompt": "hello", "a": %s1%s}' % (b"[" * n, b"]" * n) for n in (200, 960, 4000)),
    b'{"prompt": "hello", "a": %s1%s}' % (b'{"a":' * 200, b"}" * 200),
)

INVALID: tuple[tuple[Any, str], ...] = (
    ({}, ""),
    ({"model": "standin"}, ""),
    ({"prompt": ""}, "/prompt"),
    ({"prompt": 1}, "/prompt"),
    ({"prompt": None}, "/prompt"),
    ({"prompt": ["hello"]}, "/prompt"),
    ({"prompt": "hello", "messages": USER}, "/prompt"),
    ({"messages": []}, "/messages"),
    ({"messages": None}, "/messages"),
    ({"messages": "hello"}, "/messages"),
    ({"messages": ["hello"]}, "/messages/0"),
    ({"messages": [{"content": "hello"}]}, "/messages/0/role"),
    ({"messages": [*USER, {"role": "robot", "content": "hello"}]}, "/messages/1/role"),
    ({"messages": [{"role": 1, "content": "hello"}]}, "/messages/0/role"),
    ({"prompt": "hello", "model": ""}, "/model"),
    ({"prompt": "hello", "model": 7}, "/model"),
    ({"prompt": "hello", "model": "m" * 201}, "/model"),
    ({"prompt": "hello", "n": 2}, "/n"),
    ({"prompt": "hello", "n": 0}, "/n"),
    ({"prompt": "hello", "n": "1"}, "/n"),
    ({"prompt": "hello", "temperature": "hot"}, "/temperature"),
    ({"prompt": "hello", "temperature": True}, "/temperature"),
    ({"prompt": "hello", "max_tokens": 0}, "/max_tokens"),
    ({"prompt": "hello", "max_tokens": 1.5}, "/max_tokens"),
    ({"prompt": "hello", "max_completion_tokens": -1}, "/max_completion_tokens"),
    ({"prompt": "hello", "seed": "1"}, "/seed"),
    ({"prompt": "hello", "tools": {}}, "/tools"),
    ({"prompt": "hello", "metadata": {"a": 1}}, "/metadata/a"),
    ({"prompt": "hello", "modalities": ["text", "audio"]}, "/modalities/1"),
    ({"prompt": "half a pair: \ud83d"}, ""),
    ({"messages": [{"role": "user", "content": "hello", "name": "\udc00"}]}, ""),
    ({"prompt": "hello", "user": "\ud800"}, ""),
    ({"prompt": "hello", "\ud800": 1}, ""),
)

OF_ANY_TYPE: tuple[Any, ...] = (True, False, None, {}, 1)
OWNED = ("stream", "stream_options", "audio", "logprobs", "top_logprobs")


@pytest.fixture
async def strict(valkey: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API that takes small bodies, and pages of one other site."""
    async with open_api(valkey.url, max_body=MAX_BODY, allowed_origins=(ALLOWED,)) as api:
        yield api


@asynccontextmanager
async def nothing_stored(client: Client) -> AsyncIterator[None]:
    """Not one key, whatever was asked in between."""
    yield
    assert await client.call("KEYS", "*") == []


def check_problem(reply: Reply, status: int, code: str) -> None:
    """Raises AssertionError unless it is that problem, whole."""
    assert reply.headers["content-type"] == "application/problem+json", reply
    problem = reply.json
    assert (reply.status, problem["code"], problem["status"]) == (status, code, status), reply
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert reply.headers["cache-control"] == "no-store"


async def test_a_body_that_is_no_json_object_is_refused(strict: ApiProcess, client: Client) -> None:
    """Broken, foreign, another type, too deep, or a number that JSON does not have."""
    async with nothing_stored(client):
        for body in NOT_JSON:
            headers = {"content-length": "0"} if not body else {}
            check_problem(await strict.post(body, headers=headers), 400, "body_not_json")


async def test_a_wrong_shape_is_refused_by_its_pointer(strict: ApiProcess, client: Client) -> None:
    """The problem says which field it is, as an RFC 6901 pointer."""
    async with nothing_stored(client):
        for body, pointer in INVALID:
            reply = await strict.post(json.dumps(body).encode())
            check_problem(reply, 422, "request_invalid")
            assert reply.json["pointer"] == pointer, body


async def test_a_parameter_that_is_ours_is_refused_by_name(
    strict: ApiProcess, client: Client
) -> None:
    """What Rejoin decides itself, or cannot carry, is not quietly dropped."""
    async with nothing_stored(client):
        for name in OWNED:
            for value in OF_ANY_TYPE:
                reply = await strict.post({"prompt": "hello", name: value})
                check_problem(reply, 422, "parameter_refused")
                assert reply.json["parameter"] == name


async def test_an_unusable_key_is_refused(strict: ApiProcess, client: Client) -> None:
    """An idempotency key has 1 to 255 printable characters."""
    async with nothing_stored(client):
        for key in ("", "k" * 256, "a\tb"):
            reply = await strict.post({"prompt": "hello"}, key=key)
            check_problem(reply, 422, "request_invalid")


async def test_a_body_that_says_it_is_too_large_is_refused(
    strict: ApiProcess, client: Client
) -> None:
    """By its Content-Length, before it is read; a body of exactly the limit is taken."""
    fits = json.dumps({"prompt": "x" * (MAX_BODY - 14)}).encode()
    assert len(fits) == MAX_BODY
    async with nothing_stored(client):
        reply = await strict.post(fits + b" ")
        check_problem(reply, 413, "body_too_large")
        assert reply.json["limit"] == MAX_BODY
    assert (await strict.post(fits)).status == 202


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(
    strict: ApiProcess, client: Client
) -> None:
    """It never says how long it is, and it never has to end."""
    async with nothing_stored(client), within(5, lambda: "no answer to an endless body"):
        reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
        writer.write(
            b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(11):
            writer.write(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"content-type: application/problem+json" in head


async def test_what_is_not_there_is_a_problem_too(strict: ApiProcess, client: Client) -> None:
    """The framework's own refusals look like ours."""
    async with nothing_stored(client):
        for path in ("/nope", "/v1/nope", "/v1/generations/gen_x/nope", "/v2/generations"):
            check_problem(await strict.call("GET", path), 404, "not_found")
        for method, path in (
            ("PUT", "/v1/generations"),
            ("POST", "/chat/stream"),
            ("PATCH", "/v1/generations/gen_x"),
            ("GET", "/v1/generations/gen_x/cancel"),
            ("DELETE", "/v1/generations/gen_x/events"),
        ):
            reply = await strict.call(method, path)
            check_problem(reply, 405, "method_not_allowed")
            assert method not in reply.headers["allow"]


CROSS_SITE: tuple[dict[str, str], ...] = (
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": f"{ALLOWED}.evil.example"},
    {"origin": ALLOWED.upper() + ":444"},
    {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
)


async def test_pages_of_other_sites_may_not_spend_money(strict: ApiProcess, client: Client) -> None:
    """A foreign page can make a browser ask; what costs, or stops somebody's work, is refused."""
    generation = f"/v1/generations/gen_{'a' * 32}"
    async with nothing_stored(client):
        for headers in CROSS_SITE:
            for reply in (
                await strict.post({"prompt": "hello"}, headers=headers),
                await strict.call("GET", chat_path("hello"), headers=headers),
                await strict.call("POST", f"{generation}/cancel", headers=headers),
                await strict.call("DELETE", generation, headers=headers),
            ):
                check_problem(reply, 403, "cross_site_refused")


async def test_our_own_pages_programs_and_listed_origins_may(strict: ApiProcess) -> None:
    """Nobody else is kept out; a listed page may also read the answer, and only a listed one."""
    own = strict.api_url
    welcome: tuple[dict[str, str], ...] = (
        {},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin"},
        {"origin": own},
        {"origin": own, "sec-fetch-site": "same-origin"},
        {"origin": ALLOWED},
        {"origin": ALLOWED, "sec-fetch-site": "cross-site"},
    )
    for headers in welcome:
        reply = await strict.post({"prompt": "hello"}, headers=headers)
        assert reply.status == 202, headers
        readable = reply.headers.get("access-control-allow-origin")
        assert readable == (ALLOWED if headers.get("origin") == ALLOWED else None)


async def test_a_listed_origin_may_ask_before(strict: ApiProcess) -> None:
    """The preflight that a browser sends for `Last-Event-ID` and `Idempotency-Key` is answered."""
    headers = {
        "origin": ALLOWED,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,idempotency-key,last-event-id",
    }
    reply = await strict.call("OPTIONS", "/v1/generations", headers=headers)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == ALLOWED

    foreign = {**headers, "origin": "https://evil.example"}
    reply = await strict.call("OPTIONS", "/v1/generations", headers=foreign)
    assert "access-control-allow-origin" not in reply.headers


async def test_every_follow_is_told_its_own_origin_and_no_other(
    strict: ApiProcess, client: Client
) -> None:
    """Thousands have the same head but for that: what one is told stays with it."""
    author = await Author.create(client)
    await author.claim()
    await author.close()
    for origin in (ALLOWED, None, ALLOWED):
        headers = {"origin": origin} if origin else {}
        reply = await strict.call("GET", follow_path(author.generation), headers=headers)
        assert reply.status == 200
        assert reply.headers.get("access-control-allow-origin") == origin
        assert reply.headers["vary"] == "Origin"
