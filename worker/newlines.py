"""One kind of line end for surfaces that know only LF."""

from typing import Final

from shared.events import JOINABLE, Event

_CR: Final = "\r"


class LineFeeds:
    """Make CR and CRLF LF, across the borders between tokens too: a CRLF may come in halves.

    Done where the log is written, so that every frame is a pure function of its own entry.
    """

    def __init__(self) -> None:
        self._after_cr = False

    def convert(self, event: Event) -> Event | None:
        """Return `event` with LF only; None if nothing of its text is left."""
        if event.type not in JOINABLE:
            return event
        text: str = event.data["text"]
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        if event.data["text"]:
            self._after_cr = event.data["text"].endswith(_CR)
        text = text.replace("\r\n", "\n").replace(_CR, "\n")
        return Event(event.type, {"text": text}) if text else None
