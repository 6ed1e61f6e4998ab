"""text/event-stream, read as the standard says: the opposite number of our own writer.

Written from the algorithm alone, so that an error of `api/sse.py` is not repeated here.

Source: WHATWG HTML, 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event stream".
"""

import codecs
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event. `last_event_id` is the cursor after it, its own id or an older one."""

    type: str
    data: str
    last_event_id: str


class SseReader:
    """Bytes in at any boundary, events out as soon as their blank line has come.

    An incomplete last frame is never dispatched, nor does its id become the cursor.

    `last_event_id` of a reconnect: the standard starts every stream with an empty id buffer, so
    that to its letter a frame without an id, at the head of a resumed stream, empties the
    cursor. Browsers carry the cursor over instead; to do so too, pass it in.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._after_cr = False
        self._line: list[str] = []
        self._data = ""
        self._type = ""
        self._id = last_event_id

    def feed(self, chunk: bytes) -> list[Event]:
        """Take some bytes and return the events they complete."""
        text = self._decoder.decode(chunk)
        if text and self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")  # one byte order mark, at the very start only
        events = []
        for char in text:
            if char == "\n" and self._after_cr:  # the second half of a CRLF
                self._after_cr = False
                continue
            self._after_cr = char == "\r"
            if char not in "\r\n":
                self._line.append(char)
                continue
            event = self._end_line("".join(self._line))
            self._line.clear()
            if event is not None:
                events.append(event)
        return events

    def _end_line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return None
        name, colon, value = line.partition(":")
        if colon:
            value = value.removeprefix(" ")  # one space only; a second belongs to the value
        self._take_field(name, value)
        return None

    def _take_field(self, name: str, value: str) -> None:
        match name:
            case "event":
                self._type = value
            case "data":
                self._data += value + "\n"
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = int(value)
            case _:
                pass  # unknown fields are ignored

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        data, kind = self._data, self._type
        self._data = self._type = ""
        if not data:
            return None
        return Event(kind or "message", data.removesuffix("\n"), self.last_event_id)
