"""A page of another site cannot make its visitors pay for generations."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.support.listener import open_listener
from tests.support.stack import Stack
from tests.support.visitor import NETWORK_FAILED, REFUSED, Visitor
from tests.support.wait import wait_until

PAGE = b"<!doctype html><title>Elsewhere</title><link rel=icon href=data:,>"
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
)

COMPLAINTS = ("Access to ", "EventSource's response has a MIME type", REFUSED, NETWORK_FAILED)
"""Chromium's words for what this folder wants: a page that may not."""

# Every way in which a page can send a request that a program did not write. Each resolves once
# the browser has had its answer, whatever that was.
ATTEMPTS = {
    "EventSource": """(api) => new Promise((resolve) => {
        const source = new EventSource(`${api}/chat/stream?prompt=stolen`);
        source.onopen = source.onerror = () => { source.close(); resolve(); };
    })""",
    "fetch of JSON": """(api) => fetch(`${api}/v1/generations`, {
        method: "POST", body: JSON.stringify({ prompt: "stolen" }),
        headers: { "Content-Type": "application/json" },
    }).then(() => {}, () => {})""",
    "fetch without preflight": """(api) => fetch(`${api}/v1/generations`, {
        method: "POST", mode: "no-cors", body: JSON.stringify({ prompt: "stolen" }),
    }).then(() => {}, () => {})""",
    "fetch of the stream": """(api) => fetch(`${api}/chat/stream?prompt=stolen`, {
        mode: "no-cors",
    }).then((response) => response.body?.cancel(), () => {})""",
    "picture": """(api) => new Promise((resolve) => {
        const picture = new Image();
        picture.onload = picture.onerror = resolve;
        picture.src = `${api}/chat/stream?prompt=stolen`;
    }).then(() => {})""",
    "frame": """(api) => new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.onload = resolve;
        frame.src = `${api}/chat/stream?prompt=stolen`;
        document.body.append(frame);
    }).then(() => {})""",
    "form": """(api) => new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.name = "answer";
        document.body.append(frame);
        const form = document.createElement("form");
        Object.assign(form, { action: `${api}/v1/generations`, method: "post",
            enctype: "text/plain", target: "answer" });
        const field = document.createElement("input");
        Object.assign(field, { name: '{"prompt":"', value: 'stolen"}' });
        form.append(field);
        document.body.append(form);
        frame.onload = resolve;
        form.submit();
    }).then(() => {})""",
}


async def serve_page(sock: socket.socket) -> None:
    """Answer one request, whatever it is, with an empty page."""
    loop = asyncio.get_running_loop()
    request = b""
    while b"\r\n\r\n" not in request:
        piece = await loop.sock_recv(sock, 65_536)
        if not piece:
            return
        request += piece
    await loop.sock_sendall(sock, HEAD % len(PAGE) + PAGE)


@pytest_asyncio.fixture(loop_scope="session", params=["127.0.0.1", "localhost"])
async def foreign_page(request: pytest.FixtureRequest, visitor: Visitor) -> AsyncIterator[Page]:
    """A page from elsewhere: same site but another origin, and another site altogether."""
    async with open_listener(serve_page) as port:
        page = await visitor.open_page()
        await page.goto(f"http://{request.param}:{port}/")
        yield page
        await visitor.leave()


async def started_by(stack: Stack, page: Page) -> list[str]:
    """The attempts that started a generation, each made by this page."""
    found = []
    known = 0
    for name, attempt in ATTEMPTS.items():
        await page.evaluate(attempt, stack.api_url)
        logs = sum(key.endswith(":log") for key in await stack.keys())
        if logs > known:
            found.append(name)
        known = logs
    return found


async def test_a_foreign_page_starts_nothing(
    stack: Stack, visitor: Visitor, foreign_page: Page
) -> None:
    """Neither by a GET nor by a POST can a page of another origin start a generation."""
    visitor.forgive(*COMPLAINTS)
    assert await started_by(stack, foreign_page) == []
    assert stack.ledger.entries == ()


async def test_our_own_page_is_not_refused(stack: Stack, visitor: Visitor) -> None:
    """The same attempts, made by a page of our origin, are taken: refused is only the stranger."""
    visitor.forgive(*COMPLAINTS)
    page = await visitor.open_blank_page(stack.api_url)
    started = await started_by(stack, page)
    assert started == list(ATTEMPTS)
    await wait_until(lambda: len(stack.ledger.entries) == len(started), "all to be asked")
