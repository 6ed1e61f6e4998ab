"""`/chat/stream`, read by pages that know nothing of us: by `EventSource`, and by a naive loop."""

import asyncio
import json

import pytest
from playwright.async_api import Page

from shared.ids import draw_generation_id
from tests.support.api_client import chat_path
from tests.support.native_source import NativeSource, open_native_source
from tests.support.network import Network, open_network
from tests.support.stack import Stack, expected_text
from tests.support.visitor import NETWORK_FAILED, Visitor
from tests.support.wait import wait_until


def chunk_head(body: str) -> int:
    """Bytes before a body in chunked transfer coding (RFC 9112, 7.1): its length, CR, LF."""
    return len(f"{len(body):x}\r\n")


OPENING_ID = f"id: {draw_generation_id()}/0-0\n\n"
OPENING = f"{OPENING_ID}retry: 1000\n\n"
AFTER_THE_ID = chunk_head(OPENING) + len(OPENING_ID)
IN_THE_OPENING = chunk_head(OPENING) + 20


def statuses(page: Page) -> list[int]:
    """The statuses of this page's streams, in order, as they come.

    Of a response that breaks at once Chromium may not even tell the status.
    """
    heard: list[int] = []
    page.on(
        "response",
        lambda response: heard.append(response.status) if "/chat/stream" in response.url else None,
    )
    return heard


async def received(page: Page) -> list[int]:
    """The sizes of the pieces of bodies that this page was handed, as they come."""
    sizes: list[int] = []
    session = await page.context.new_cdp_session(page)
    session.on("Network.dataReceived", lambda told: sizes.append(told["dataLength"]))
    await session.send("Network.enable")
    return sizes


async def check_whole(source: NativeSource, network: Network, cuts: list[int], prompt: str) -> None:
    """The page heard everything once, through those cuts, and nothing else."""
    heard = await source.wait_closed()
    assert heard.text == expected_text(prompt)
    assert heard.types == ["queued", "started", *["token"] * heard.types.count("token"), "done"]
    assert len({event.last_event_id for event in heard.events}) == len(heard.events)
    assert [met.counted_bytes for met in network.planned_cuts] == cuts
    assert [met.was_cut for met in network.planned_cuts] == [True] * len(cuts)


async def test_cut_sockets_cost_neither_a_token_nor_a_second_answer(
    stack: Stack, visitor: Visitor
) -> None:
    """Cut after the bare first id, within frames and between them, a native `EventSource` hears
    every token once; after `done` it comes back, is told 204, and stops for good."""
    visitor.forgive(NETWORK_FAILED)
    prompt = "[standin tokens=150 pace=60 kind=prose] Tell me about reefs"
    cuts = [AFTER_THE_ID, 300, 411, 777]
    async with open_network(stack.api_url, counting="body") as network:
        page = await visitor.open_blank_page(network.url)
        answered, sizes = statuses(page), await received(page)
        await network.plan(*cuts)
        network.delay_cuts()
        source = await open_native_source(page, chat_path(prompt))
        await wait_until(lambda: sum(sizes) == len(OPENING_ID), "the page to have the id")
        assert (await source.heard()).events == []
        network.cut_now()
        await check_whole(source, network, cuts, prompt)
        await visitor.leave()
    assert answered[-2:] == [200, 204]
    assert answered.count(204) == 1
    assert len(stack.ledger.entries) == 1


async def test_with_a_key_even_an_unseen_first_frame_is_safe(
    stack: Stack, visitor: Visitor
) -> None:
    """Cut before its first byte, or in the middle of its first id, a stream with `&key=` is found
    again by the browser's own reconnect, and not paid for twice."""
    visitor.forgive(NETWORK_FAILED)

    async def read(network: Network, cuts: list[int], key: str) -> None:
        prompt = f"[standin tokens=100 pace=60 kind=prose] Tell me about {key}"
        page = await visitor.open_blank_page(network.url)
        await network.plan(*cuts)
        source = await open_native_source(page, chat_path(prompt, key=key))
        await check_whole(source, network, cuts, prompt)

    async with (
        open_network(stack.api_url) as one,
        open_network(stack.api_url, counting="body") as other,
    ):
        # Together, because a browser that was not yet told otherwise waits 3 s.
        async with asyncio.TaskGroup() as readers:
            readers.create_task(read(one, [0], "atolls"))
            readers.create_task(read(other, [IN_THE_OPENING, 500], "lagoons"))
        await visitor.leave()
    assert len(stack.ledger.entries) == 2


@pytest.mark.parametrize("kind", ["plain", "prose", "lines", "unicode"])
async def test_tokens_arrive_as_they_are(stack: Stack, visitor: Visitor, kind: str) -> None:
    """Joined, the data of the tokens is the model's text; only CR and CRLF have become LF."""
    prompt = f"[standin tokens=120 kind={kind}] Tell me about lines"
    page = await visitor.open_page()
    await page.goto(visitor.home)
    source = await open_native_source(page, chat_path(prompt))
    heard = await source.wait_heard("done")
    assert heard.text == expected_text(prompt).replace("\r\n", "\n").replace("\r", "\n")
    assert heard.events[-1].data == ""


async def test_a_naive_reader_prints_the_whole_text_and_nothing_else(
    stack: Stack, visitor: Visitor
) -> None:
    """A loop that takes whatever follows `data: ` on a line for a token is right, if no token has
    a newline."""
    prompt = "[standin tokens=120 pace=200 kind=plain] Tell me about pipes"
    page = await visitor.open_page()
    await page.goto(visitor.home)
    printed = await page.evaluate(
        """async (url) => {
            const response = await fetch(url);
            const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
            let printed = "", rest = "";
            for (;;) {
                const { done, value } = await reader.read();
                if (done) return printed;
                const lines = (rest + value).split("\\n");
                rest = lines.pop();
                for (const line of lines) if (line.startsWith("data: ")) printed += line.slice(6);
            }
        }""",
        chat_path(prompt),
    )
    assert printed == expected_text(prompt)
    assert len(stack.ledger.entries) == 1


async def test_a_failure_is_an_event_and_the_browser_stops(stack: Stack, visitor: Visitor) -> None:
    """A model that fails is told as `failed`, not as a lost socket, and is not asked for ever."""
    prompt = "[standin status=400] Tell me nothing"
    page = await visitor.open_page()
    await page.goto(visitor.home)
    answered = statuses(page)
    source = await open_native_source(page, chat_path(prompt))
    heard = await source.wait_closed()
    assert heard.types[-1] == "failed"
    assert set(json.loads(heard.events[-1].data)) >= {"code", "message", "retryable"}
    assert answered == [200, 204]
    assert len(stack.ledger.entries) == 1
