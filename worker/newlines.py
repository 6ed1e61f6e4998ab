"""One kind of line end for surfaces that know only LF."""

from typing import Final

from shared.events import JOINABLE, Event, EventType

_CR: Final = "\r"


class LineFeeds:
    """Make CR and CRLF LF, across the borders between tokens too: a CRLF may come in halves.

    A text that ends in CR waits for what follows it, so that whatever was handed out is a pure
    function of the deltas up to there, and a later attempt can go on from any of them. Each kind
    of text is one of its own.
    """

    def __init__(self) -> None:
        self._held: dict[EventType, str] = {}

    def convert(self, event: Event) -> Event | None:
        """Return what can be handed out with `event`; None if nothing can."""
        kind = event.type
        if kind not in JOINABLE:
            return event
        text = self._held.pop(kind, "") + event.data["text"]
        if text.endswith(_CR):
            self._held[kind] = text
            return None
        return Event(kind, {"text": _replace(text)}) if text else None

    def flush(self) -> list[Event]:
        """Return what still waits: nothing follows any more."""
        held, self._held = self._held, {}
        return [Event(kind, {"text": _replace(text)}) for kind, text in held.items()]


def _replace(text: str) -> str:
    return text.replace("\r\n", "\n").replace(_CR, "\n")
