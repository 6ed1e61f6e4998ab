"""The text/event-stream format, without I/O.

Every frame of a log's entry carries its `id:`. LF line ends. Source: WHATWG HTML, "Server-sent
events": `data` lines are joined by LF, one space after the colon is dropped, an event whose block
has no `data` line is not dispatched but still sets the last event id.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from shared.events import JOINABLE, Entry, EventType, Run, decode_data, encode_data
from shared.ids import BEGINNING, EntryId, GenerationId

HEARTBEAT: Final = b"event: heartbeat\ndata:\n\n"
"""Comments never reach JavaScript; an event without an id leaves the cursor alone."""

RECONNECT_AFTER: Final = timedelta(seconds=1)
"""What browsers are told to wait after a lost socket; Chromium's own default is 3 s."""

_RECONNECT_MS: Final = round(RECONNECT_AFTER / timedelta(milliseconds=1))

MAX_JOINED: Final = 16 * 1024
"""Bytes of joined texts after which the next frame begins."""

MEDIA_TYPE: Final = "text/event-stream"


def encode_retry(delay: timedelta) -> bytes:
    """Return the frame that sets a browser's pause before it reconnects."""
    return b"retry: %d\n\n" % round(delay / timedelta(milliseconds=1))


def encode_reconnect(delay: timedelta) -> bytes:
    """Return the farewell of a server that drains: come back, elsewhere if you can."""
    return b"retry: %d\nevent: reconnect\ndata: {}\n\n" % round(delay / timedelta(milliseconds=1))


def join_texts(entries: Sequence[Entry]) -> list[Entry]:
    """Join neighbouring texts of one type into one entry with the id of the last.

    Bounded: a reader that is cut within a frame begins it anew.
    """
    joined: list[Entry] = []
    run: list[Entry] = []
    size = 0
    for entry in entries:
        if run and (
            size > MAX_JOINED or entry.type is not run[0].type or entry.id.epoch != run[0].id.epoch
        ):
            joined.append(_join_run(run))
            run, size = [], 0
        if entry.type in JOINABLE:
            run.append(entry)
            size += len(entry.data)
        else:
            joined.append(entry)
    if run:
        joined.append(_join_run(run))
    return joined


def _join_run(run: list[Entry]) -> Entry:
    if len(run) == 1:
        return run[0]
    return Entry(run[-1].id, run[-1].type, join_data([entry.data for entry in run]))


def join_data(texts: Sequence[bytes]) -> bytes:
    """Return the data of one entry whose text is that of all these.

    Without JSON, where each is an object of `text` alone as we write it: the escaped form of a
    joined text is the joined escaped forms. Within a string every quote has a backslash before it,
    so that a seam can only stand between two objects, and `","` only between two members.
    """
    whole = b"".join(texts)
    joined = whole.replace(_SEAM, b"")
    seams = len(whole) - len(joined)
    if (
        seams == len(_SEAM) * (len(texts) - 1)
        and whole.startswith(_HEAD)
        and whole.endswith(_TAIL)
        and b'","' not in joined
    ):
        return joined
    return encode_data({"text": "".join(decode_data(text)["text"] for text in texts)})


_HEAD: Final = b'{"text":"'
_TAIL: Final = b'"}'
_SEAM: Final = _TAIL + _HEAD


class Dialect(Protocol):
    """How one surface writes a log. Each frame is a pure function of its own entry."""

    @property
    def name(self) -> str:
        """Keys the frames that followers of one dialect share."""
        ...

    def encode(self, generation: GenerationId, entry: Entry) -> bytes:
        """Return the frame of `entry`."""
        ...

    def encode_opening(self, generation: GenerationId, cursor: EntryId) -> bytes:
        """Return what precedes the first frame: the pause before a reconnect, and the cursor.

        A strict parser begins every response with an empty last event id; without the cursor, a
        socket cut before the first entry would lose it.
        """
        ...

    def encode_loss(self, generation: GenerationId) -> tuple[bytes, bool]:
        """Return what to send when a cursor cannot be continued, and whether history follows."""
        ...


def encode_run(dialect: Dialect, generation: GenerationId, run: Run) -> bytes:
    """Return a run in as few frames as it can be told."""
    texts = run.data
    # Nearly always: a tenth of the time that entries take which are looked at one by one.
    if run.types.count(EventType.TOKEN) == len(texts) and sum(map(len, texts)) <= MAX_JOINED:
        text = join_data(texts) if len(texts) > 1 else texts[0]
        return dialect.encode(generation, Entry(run.last_id, EventType.TOKEN, text))
    return encode_history(dialect, generation, run.entries())


def encode_history(dialect: Dialect, generation: GenerationId, entries: Sequence[Entry]) -> bytes:
    """Return `entries` in as few frames as they can be told."""
    return b"".join(dialect.encode(generation, entry) for entry in join_texts(entries))


_NAMES: Final = {kind: kind.value.encode() for kind in EventType}


class Native:
    """`/v1/generations/{id}/events`: ids are entry ids, data is the entry's own JSON."""

    name: Final = "native"

    def encode(self, generation: GenerationId, entry: Entry) -> bytes:
        (epoch, seq), kind, data = entry
        return b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (epoch, seq, _NAMES[kind], data)

    def encode_opening(self, generation: GenerationId, cursor: EntryId) -> bytes:
        if cursor == BEGINNING:
            return encode_retry(RECONNECT_AFTER)
        return b"retry: %d\nid: %d-%d\n\n" % (_RECONNECT_MS, *cursor)

    def encode_loss(self, generation: GenerationId) -> tuple[bytes, bool]:
        """Forget, then hear everything anew: ids go back, once."""
        return self.encode(generation, Entry(BEGINNING, EventType.RESET, b"{}")), True


class Chat:
    """`/chat/stream`: the text itself as data, ids that name the generation too.

    Control frames write `data:{…}` without the space: parsers take it, and readers that look for
    `data: ` at the start of a line see text only.
    """

    name: Final = "chat"

    def encode(self, generation: GenerationId, entry: Entry) -> bytes:
        head = b"id: %b/%d-%d\nevent: %b\n" % (
            generation.encode(),
            *entry.id,
            entry.type.value.encode(),
        )
        if entry.type is EventType.TOKEN:
            text: str = decode_data(entry.data)["text"]
            return head + _encode_text(text.encode("utf-8", "replace")) + b"\n"
        if entry.type is EventType.DONE:
            return head + b"data:\n\n"
        return head + b"data:" + entry.data + b"\n\n"

    def encode_opening(self, generation: GenerationId, cursor: EntryId) -> bytes:
        """The id alone, before anything is said: a reconnect then resumes and never pays again."""
        frame = b"id: %b/%d-%d\n\n" % (generation.encode(), *cursor)
        return frame + encode_retry(RECONNECT_AFTER)

    def encode_loss(self, generation: GenerationId) -> tuple[bytes, bool]:
        """This surface cannot say forget."""
        data = {
            "code": "cursor_lost",
            "message": "The text before this cannot be continued.",
            "retryable": True,
        }
        return b"event: failed\ndata:" + encode_data(data) + b"\n\n", False


def _encode_text(text: bytes) -> bytes:
    lines: Iterable[bytes] = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: " + line + b"\n" for line in lines)


NATIVE: Final = Native()
CHAT: Final = Chat()
