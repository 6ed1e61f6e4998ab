"""The browser's own `EventSource`, and what it told the page that opened it."""

from dataclasses import dataclass
from typing import Any

from playwright.async_api import Page

from tests.support.sse_reader import Event
from tests.support.wait import wait_until

_OPEN = """(url) => {
    const source = new EventSource(url);
    const events = [];
    window.native = { source, events, opened: 0, errors: 0 };
    const types = ["queued", "started", "token", "reset", "reasoning", "refusal", "tool_call",
        "retrying", "done", "cancelled", "failed", "heartbeat", "reconnect", "message"];
    for (const type of types) {
        source.addEventListener(type, ({ data, lastEventId }) => {
            events.push([type, data, lastEventId]);
        });
    }
    source.addEventListener("open", () => { window.native.opened += 1; });
    source.addEventListener("error", () => { window.native.errors += 1; });
}"""

_LOOK = """() => {
    const { source, events, opened, errors } = window.native;
    return { events, opened, errors, closed: source.readyState === EventSource.CLOSED };
}"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the page was told so far."""

    events: list[Event]
    opened: int
    """How many responses with an event stream began."""
    errors: int
    closed: bool
    """Whether the browser has given up reconnecting, for good."""

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def text(self) -> str:
        """The tokens of `/chat/stream`, joined: there the data is the text itself."""
        return "".join(event.data for event in self.events if event.type == "token")


class NativeSource:
    """See `open_native_source`."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def heard(self) -> Heard:
        found: dict[str, Any] = await self._page.evaluate(_LOOK)
        return Heard(**{**found, "events": [Event(*event) for event in found["events"]]})

    async def wait_heard(self, kind: str) -> Heard:
        """Wait for an event of that type."""

        async def look() -> Heard | None:
            heard = await self.heard()
            assert kind in heard.types or not heard.closed, f"closed without {kind!r}: {heard}"
            return heard if kind in heard.types else None

        return await wait_until(look, f"the page to hear {kind!r}", 20)

    async def wait_closed(self) -> Heard:
        """Wait until the browser reconnects no more."""

        async def look() -> Heard | None:
            heard = await self.heard()
            return heard if heard.closed else None

        return await wait_until(look, "the browser to stop reconnecting", 30)


async def open_native_source(page: Page, url: str) -> NativeSource:
    """Let the page open an `EventSource`; it is left to itself from then on."""
    await page.evaluate(_OPEN, url)
    return NativeSource(page)
