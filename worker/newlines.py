"""One kind of line end for surfaces that know only LF."""

from typing import Final

from shared.events import JOINABLE, Event, EventType

_CR: Final = "\r"


class LineFeeds:
    """Make CR and CRLF LF, across the borders between tokens too: a CRLF may come in halves.

    Each kind of text is one of its own. Done where the log is written, so that every frame is a
    pure function of its own entry.
    """

    def __init__(self) -> None:
        self._after_cr: set[EventType] = set()

    def convert(self, event: Event) -> Event | None:
        """Return `event` with LF only; None if nothing of its text is left."""
        if event.type not in JOINABLE:
            return event
        said: str = event.data["text"]
        text = said.removeprefix("\n") if event.type in self._after_cr else said
        if said.endswith(_CR):
            self._after_cr.add(event.type)
        elif said:
            self._after_cr.discard(event.type)
        text = text.replace("\r\n", "\n").replace(_CR, "\n")
        return Event(event.type, {"text": text}) if text else None
