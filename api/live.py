"""A follower that waits without a task of its own: batches are written by whoever read them.

hub reads a log ──► Batch, framed once ──► every live follower's connection
                                     └──► woken: one that is full, ahead, or has lost its place
"""

from datetime import timedelta
from time import monotonic
from typing import Final

from api.followed import Batch
from api.sse import HEARTBEAT
from api.tail import STORE_RETRY, CursorLost, Tail, wait_change
from api.wire import Wire, encode_chunk
from shared.errors import StoreUnavailable
from shared.event_log import LogView
from shared.ids import EntryId

_HEARTBEAT_CHUNK: Final = encode_chunk(HEARTBEAT)


class Follower:
    """One reader of one log, over one connection."""

    __slots__ = ("_heartbeat_s", "_tail", "_wire")

    def __init__(self, tail: Tail, wire: Wire, heartbeat: timedelta) -> None:
        self._tail = tail
        self._wire = wire
        self._heartbeat_s = heartbeat.total_seconds()

    async def serve(self, view: LogView, cursor: EntryId) -> None:
        """Write what is beyond `cursor`, until the end, the drain, or nobody is there.

        `view` was read at `cursor` a moment ago.
        """
        tail, wire = self._tail, self._wire
        opening, followed = tail.begin(view, cursor)
        del view  # not kept while it waits, which is most of its life
        try:
            wire.write(encode_chunk(opening))
            while not (tail.is_ended or wire.is_lost):
                if wire.is_full:
                    await wire.wait()
                    continue
                try:
                    piece = await tail.find_next(followed)
                except CursorLost:
                    piece = await tail.lose_cursor(followed)
                except StoreUnavailable:
                    await wait_change(followed.changed, STORE_RETRY)
                    self.beat(monotonic())
                    continue
                if piece is None:
                    followed.live[self] = None
                    try:
                        await wire.wait()
                    finally:
                        del followed.live[self]
                elif piece:
                    wire.write(encode_chunk(piece))
        finally:
            tail.leave(followed)

    def take(self, batch: Batch) -> None:
        """Write what was read, if it comes next and there is room; else think about it."""
        wire, tail = self._wire, self._tail
        if wire.is_full or wire.is_lost or not tail.accept(batch):
            wire.wake()
            return
        wire.write(batch.chunk(tail.dialect))
        if batch.ends:
            wire.wake()

    def wake(self) -> None:
        """Look again."""
        self._wire.wake()

    def beat(self, now: float) -> None:
        """Write a heartbeat if nothing was written for long; `now` is `monotonic()`."""
        wire = self._wire
        if now - wire.spoke_at >= self._heartbeat_s and not wire.is_full:
            wire.write(_HEARTBEAT_CHUNK)
