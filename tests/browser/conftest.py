"""A browser, and a whole Rejoin for it to visit.

stack       the session's Redis, API, worker and stand-in, emptied (Stack)
model_line  the line between that worker and the stand-in: hold it, and the model falls silent
visitor     opens pages; after the test its console must have complained of nothing that the test
            did not name

Everything runs in one event loop for the session: Playwright's objects belong to the loop that
made them, and one browser serves all tests.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import open_chromium
from tests.support.cutting_proxy import CuttingProxy, open_cutting_proxy
from tests.support.leaks import check_keys
from tests.support.stack import OwnStack, Stack, open_stack
from tests.support.visitor import Visitor

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """All tests of this folder need a browser, and share its event loop."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass(slots=True)
class Session:
    """What all tests share. None of them may kill or freeze it."""

    stack: OwnStack
    model_line: CuttingProxy


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for the session."""
    async with open_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_stack() -> AsyncIterator[Session]:
    """One Redis, one API, one stand-in and one worker for the session."""
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(open_stack(workers=0))
        model = urlsplit(stack.standin.base_url)
        assert model.port is not None
        line = await exits.enter_async_context(open_cutting_proxy("127.0.0.1", model.port))
        await stack.start_worker(OPENAI_BASE_URL=f"{line.url}{model.path}")
        yield Session(stack, line)


@pytest_asyncio.fixture(loop_scope="session")
async def stack(session_stack: Session) -> AsyncIterator[Stack]:
    """A whole Rejoin with empty hands: no keys, no requests in the stand-in's ledger."""
    stack = session_stack.stack
    stack.redis.flush()
    stack.ledger.clear()
    yield stack
    session_stack.model_line.release()
    await stack.wait_model_silent()
    for process in (stack.api, *stack.workers):
        assert process.running, f"{process} is shared; it ended:\n{process.output}"
    check_keys(stack.redis)


@pytest.fixture
def model_line(session_stack: Session, stack: Stack) -> CuttingProxy:
    """The line between the worker and the model; released after the test."""
    return session_stack.model_line


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, stack: Stack) -> AsyncIterator[Visitor]:
    """Somebody who opens pages, and whose console must stay silent."""
    visitor = Visitor(browser, f"{stack.api_url}/")
    yield visitor
    await visitor.leave()
    assert visitor.complaints == []
