"""Processes die while a page reads: it goes on, exactly."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.api_client import chat_path, follow_path
from tests.support.fold import fold
from tests.support.native_source import open_native_source
from tests.support.processes import Process, free_port, open_process
from tests.support.stack import (
    OwnStack,
    Stack,
    api_environment,
    expected_text,
    open_stack,
)
from tests.support.visitor import NETWORK_FAILED, Visitor
from tests.support.wait import wait_until
from worker.standin import Outcome

SHORT_LEASE = {"WORKER_LEASE": "0.9", "WORKER_RENEWAL": "0.3", "WORKER_MARK": "0.4"}


def run_api(stack: Stack, port: int) -> AbstractAsyncContextManager[Process]:
    """One more API process of the same service, which may be killed."""
    ready = f"http://127.0.0.1:{port}/healthz"
    return open_process("api", api_environment(stack.redis.url, port, {}), ready=ready)


@pytest.mark.parametrize("death", ["killed", "drained"])
async def test_an_api_process_that_goes_and_comes_back_costs_nothing(
    stack: Stack, visitor: Visitor, death: str
) -> None:
    """Killed or drained and started again, page and native `EventSource` go on by themselves;
    a drain is announced by `reconnect`."""
    visitor.forgive(NETWORK_FAILED)
    prompt = "[standin tokens=100 pace=40 kind=prose] Tell me about islands"
    port = free_port()
    async with run_api(stack, port) as api:
        tab = await visitor.open_tab(f"http://127.0.0.1:{port}/")
        generation = await tab.ask(prompt)
        native = await open_native_source(tab.page, follow_path(generation))
        await tab.wait_text(40)
        if death == "killed":
            api.kill()
        else:
            api.terminate()
            await api.wait()
        lost = await tab.wait_connection("reconnecting")
        assert lost.text == expected_text(prompt)[: len(lost.text)]
    async with run_api(stack, port):
        ended = await tab.wait_ended()
        heard = await native.wait_closed()
        await visitor.leave()
    assert ended.text == expected_text(prompt)
    assert ended.resumes == 1
    assert ("reconnect" in heard.types) == (death == "drained")
    assert fold(heard.events).text == expected_text(prompt)
    assert [entry.outcome for entry in stack.ledger.entries] == [Outcome.COMPLETED]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_stack() -> AsyncIterator[OwnStack]:
    """A Rejoin with two workers, which may be killed: whoever does starts another."""
    async with open_stack(workers=2, worker_env=SHORT_LEASE) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def guest(browser: Browser, own_stack: OwnStack) -> AsyncIterator[Visitor]:
    """The visitor of that Rejoin, which was asked nothing yet."""
    own_stack.ledger.clear()
    guest = Visitor(browser, f"{own_stack.api_url}/")
    yield guest
    await guest.leave()
    await own_stack.wait_model_silent()
    assert guest.complaints == []


async def kill_owner(stack: OwnStack) -> None:
    """SIGKILL the worker that runs the one generation there is, and start another."""

    def owner() -> Process | None:
        busy = [
            worker
            for worker in stack.workers
            if worker.running
            and sum("attempt_started" in line for line in worker.lines)
            > sum("attempt_ended" in line for line in worker.lines)
        ]
        return busy[0] if len(busy) == 1 else None

    (await wait_until(owner, "one worker to be busy")).kill()
    await stack.start_worker()


async def test_a_killed_worker_is_followed_by_another_and_no_word_is_doubled(
    own_stack: OwnStack, guest: Visitor
) -> None:
    """Pages that watched, that were away, and that joined later: all show the new attempt, whole,
    and nothing of what the dead worker's attempt had said."""
    prompt = "[standin tokens=180 pace=30 kind=prose vary=1] Tell me about keepers"
    first, second = (expected_text(prompt, attempt=attempt) for attempt in (1, 2))
    tab, away = await guest.open_tab(), await guest.open_tab()
    generation = await tab.ask(prompt)
    await away.open(f"{guest.home}#{generation}")
    await away.wait_text(50)
    await away.click("cut")
    told = (await away.wait_connection("cut")).text
    assert first.startswith(told)
    assert not second.startswith(told)
    await kill_owner(own_stack)
    await tab.wait(lambda look: "reset" in look.moments and look.text != "", "the new attempt")
    late = await guest.open_tab(f"{guest.home}#{generation}")
    joined = await late.wait_text()
    assert (joined.status, second[: len(joined.text)]) == ("running", joined.text)
    ended = await tab.wait_ended()
    assert ended.text == second
    assert (ended.attempt, ended.moments) == ("2", ["started", "reset", "done"])
    back = await away.wait_ended()
    assert (back.text, back.moments[:3]) == (second, ["joined", "cut", "resumed"])
    assert (await late.wait_ended()).text == second
    await tab.page.reload()
    assert (await tab.wait_ended()).text == second
    assert len(own_stack.ledger.entries) == 2


async def test_on_the_chat_surface_a_killed_worker_ends_the_answer_and_doubles_nothing(
    own_stack: OwnStack, guest: Visitor
) -> None:
    """What cannot be taken back is not said twice: the partial text stands, `failed` says why."""
    prompt = "[standin tokens=60 pace=30 kind=prose vary=1] Tell me about librarians"
    page = await guest.open_page()
    await page.goto(guest.home)
    native = await open_native_source(page, chat_path(prompt))
    await native.wait_heard("token")
    await kill_owner(own_stack)
    heard = await native.wait_closed()
    failure: dict[str, Any] = await page.evaluate("JSON.parse(native.events.at(-1)[1])")
    assert (heard.types[-1], failure["code"]) == ("failed", "worker_lost")
    assert heard.text != ""
    assert expected_text(prompt).startswith(heard.text)
    assert len(own_stack.ledger.entries) == 1
