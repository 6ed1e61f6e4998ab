"""One kind of line end for surfaces that know only LF."""

from typing import Final, Self

from shared.events import JOINABLE, Event

_CR: Final = "\r"

Numbered = tuple[Event, int | None]
"""An event and its number in the upstream answer."""


class LineFeeds:
    """Make CR and CRLF LF, across the borders between tokens too: a CRLF may come in halves.

    A text that ends in CR waits for what follows it, so that what was handed out up to any number
    is a pure function of the deltas up to there, and a later attempt can go on from it. Each kind
    of text is one of its own; one that waits gives way to another kind, and the halves of a CRLF
    around that are two line ends: which they were cannot be known from a position.
    """

    def __init__(self) -> None:
        self._held: Numbered | None = None

    def resume(self) -> Self:
        """Go on behind what was handed out: what waits is said again."""
        self._held = None
        return self

    def convert(self, event: Event, number: int | None) -> list[Numbered]:
        """Return what can be handed out now that `event` came."""
        kind = event.type
        out: list[Numbered] = []
        text = event.data["text"] if kind in JOINABLE else ""
        if self._held is not None:
            if self._held[0].type is kind:
                text = self._held[0].data["text"] + text
                self._held = None
            else:
                out += self.flush()
        if kind not in JOINABLE:
            return [*out, (event, number)]
        if text.endswith(_CR):
            self._held = Event(kind, {"text": text}), number
        elif text:
            out.append((Event(kind, {"text": _replace(text)}), number))
        return out

    def flush(self) -> list[Numbered]:
        """Return what waits: nothing of its kind follows at once."""
        if self._held is None:
            return []
        (event, number), self._held = self._held, None
        return [(Event(event.type, {"text": _replace(event.data["text"])}), number)]


def _replace(text: str) -> str:
    return text.replace("\r\n", "\n").replace(_CR, "\n")
