"""Whoever sits before the browser: opens pages, and reads what its console complains of."""

from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, WebError

from tests.support.playground import Tab

NETWORK_FAILED = "Failed to load resource: net::"
"""What Chromium's console says of a connection that broke or was refused."""

REFUSED = "Failed to load resource: the server responded with a status of"
"""What Chromium's console says of an answer of 400 or more."""


# Without an icon of its own a page asks for one, at a moment of the browser's choice.
_BLANK = "<!doctype html><title>Blank</title><link rel=icon href=data:,>"


async def load_blank(page: Page, origin: str) -> None:
    """Load, or load anew, a page of that origin which asks nothing of the network by itself.

    Only this document is made up; before it is used, the network is the browser's own again.
    """
    url = f"{origin}/blank"
    await page.route(url, lambda route: route.fulfill(body=_BLANK, content_type="text/html"))
    await page.goto(url)
    await page.unroute(url)


class Visitor:
    """Each page it opens is a user of its own: no storage, no cache, no history."""

    def __init__(self, browser: Browser, home: str) -> None:
        self.home = home
        """The address of the playground."""
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._forgiven: tuple[str, ...] = ()
        self._console: list[str] = []

    def forgive(self, *beginnings: str) -> None:
        """Expect console errors that begin so, because the test breaks what they are about."""
        self._forgiven += beginnings

    @property
    def complaints(self) -> list[str]:
        """Console errors, violations of the page's policy among them, and uncaught exceptions."""
        return [said for said in self._console if not said.startswith(self._forgiven)]

    async def open_page(self, **context: Any) -> Page:
        """An empty page of a new user; `context` is Playwright's."""
        opened = await self._browser.new_context(**context)
        self._contexts.append(opened)
        opened.on("console", self._hear_console)
        opened.on("weberror", self._hear_exception)
        return await opened.new_page()

    async def open_tab(self, url: str = "", **context: Any) -> Tab:
        """The playground, or an address of it, in a tab of a new user."""
        tab = Tab(await self.open_page(**context))
        await tab.open(url or self.home)
        return tab

    async def open_blank_page(self, origin: str, **context: Any) -> Page:
        """A page of that origin which asks nothing of the network by itself."""
        page = await self.open_page(**context)
        await load_blank(page, origin)
        return page

    def _hear_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._console.append(message.text)

    def _hear_exception(self, error: WebError) -> None:
        self._console.append(f"uncaught: {error.error}")

    async def leave(self) -> None:
        """Close every page."""
        for context in self._contexts:
            await context.close()
