"""The playground in one tab of a browser, in the words of the tests.

A tab is looked at, never asked for its opinion: `look` reads the page in one synchronous step, so
that text, cursor and connection belong together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from playwright.async_api import Page

from tests.support.wait import wait_until

TIMEOUT_S = 20.0

_LOOK = """() => {
    const $ = (id) => document.getElementById(id);
    const words = (id) => ($(id).checkVisibility() ? $(id).innerText : "");
    const { phase, connection, status } = $("playground").dataset;
    return {
        generation: location.hash.slice(1), phase, connection, status,
        text: $("answer").textContent,
        line: words("connection"), question: words("question"), outcome: words("outcome"),
        notice: words("notice"),
        last_event_id: $("last-event-id").textContent,
        events: Number($("events").textContent), resumes: Number($("resumes").textContent),
        attempt: $("attempt").textContent,
        moments: [...$("moments").children].map((moment) => moment.dataset.kind).reverse(),
    };
}"""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the page finds; what is hidden reads as empty."""

    generation: str
    phase: str
    connection: str
    status: str
    text: str
    line: str
    """What the page calls its connection."""
    question: str
    outcome: str
    notice: str
    last_event_id: str
    events: int
    resumes: int
    attempt: str
    moments: list[str]
    """The kinds of what happened, oldest first."""


class Tab:
    """The playground, used by somebody. Every wait fails with what the page shows."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(self, url: str) -> None:
        """Load the playground; `url` may name a generation by its hash."""
        await self.page.goto(url)

    async def ask(self, prompt: str) -> str:
        """Type a question and send it; the id of its generation once the page follows it."""
        await self.page.get_by_test_id("prompt").fill(prompt)
        await self.page.get_by_test_id("send").click()
        look = await self.wait(lambda look: look.phase == "following", "the question to be taken")
        return look.generation

    async def click(self, test_id: str) -> None:
        await self.page.get_by_test_id(test_id).click()

    async def look(self) -> Look:
        return Look(**await self.page.evaluate(_LOOK))

    async def wait(self, condition: Callable[[Look], bool], describe: str) -> Look:
        """Return the first look that meets the condition."""
        last: Look | None = None

        async def look() -> Look | None:
            nonlocal last
            last = await self.look()
            return last if condition(last) else None

        try:
            return await wait_until(look, describe, TIMEOUT_S)
        except AssertionError as gave_up:
            raise AssertionError(f"{gave_up}\nthe page shows {last}") from None

    async def wait_text(self, characters: int = 1) -> Look:
        """Wait until at least so much of the answer is on the page."""
        return await self.wait(
            lambda look: len(look.text) >= characters, f"{characters} characters of the answer"
        )

    async def wait_connection(self, connection: str) -> Look:
        return await self.wait(
            lambda look: look.connection == connection, f"the connection to be {connection!r}"
        )

    async def wait_ended(self, status: str = "done") -> Look:
        """Wait until the page has read the closing event, which must be that one."""
        look = await self.wait(lambda look: look.connection in ("ended", "gone"), "the end")
        assert (look.connection, look.status) == ("ended", status), look
        return look
