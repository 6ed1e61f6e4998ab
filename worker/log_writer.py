"""The writer's end of one log, for one epoch.

    put ──► waiting (events) ──encode once──► entries ──► append and close commands ──► acknowledged
                                                 ▲                                           │
                                                 └────── Redis lost some: the same again ────┘

An entry once sent is never encoded or joined anew: one id, one content. An append of nothing is a
look: it tells a writer that is silent what a lost message or a roll-back did to its log.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from shared.connections import Command, is_away
from shared.errors import (
    AppendRefused,
    ClaimLost,
    Fenced,
    LogAbsent,
    LogClosed,
    RecordUnreadable,
)
from shared.event_log import AppendReply, EventLog
from shared.events import JOINABLE, Entry, Event, EventType, encode_data
from shared.generation import Upstream
from shared.ids import EntryId, GenerationId

MAX_WAITING: Final = 256 * 1024
"""Bytes of text one generation may have unacknowledged before its provider has to wait."""

MAX_BATCH: Final = 256
"""Entries per command: bounds how long one script holds Redis."""

Refusal = AppendRefused | RecordUnreadable


class LogWriter:
    """Sequence, encode once, keep, repeat if lost."""

    def __init__(
        self,
        generation: GenerationId,
        token: str,
        last_id: EntryId,
        mark_dirty: Callable[["LogWriter"], None],
    ) -> None:
        """`last_id`: the newest entry of the claim; `mark_dirty`: who sends what there is."""
        self.generation = generation
        self.on_refused: Callable[[], None] | None = None
        """Called once when the log is found to be closed or somebody else's."""
        self.heard_at = asyncio.get_running_loop().time()
        """When Redis last told about this log, by the event loop's clock."""
        self._mark_dirty = mark_dirty
        self._token = token
        self._first = last_id.successor
        self._entries: list[Entry] = []
        self._upstreams: list[Upstream | None] = []  # where each entry stands in its answer
        self._upstream: Upstream | None = None
        self._notes_upstream = False
        self._waiting: list[tuple[Event, int | None]] = []
        self._waiting_bytes = 0
        self._unacknowledged_bytes = 0
        self._acknowledged = 0
        self._looks_wanted = self._looks_sent = self._looks_done = 0
        self._usage = b""
        self._closing: Entry | None = None
        self._refusal: Exception | None = None
        self._changed = asyncio.Event()

    async def put(self, event: Event, at: int | None = None) -> None:
        """Take one event; waits while too much is unacknowledged. Raises: AppendRefused.

        `at`: its number in the upstream answer, noted in the same step as the entry.
        """
        self._raise_refusal()
        self._waiting.append((event, at))
        self._waiting_bytes += len(event.data.get("text", "")) + 1
        self._mark_dirty(self)
        while self._unacknowledged_bytes + self._waiting_bytes > MAX_WAITING:
            await self._wait_change()

    async def note_upstream(self, upstream: Upstream | None) -> None:
        """Name the answer that what follows comes from; returns when the record has it.

        None: there is nothing left to go on with. Raises: AppendRefused.
        """
        self._raise_refusal()
        self._encode_waiting()
        self._upstream = upstream
        self._notes_upstream = True
        self.look()
        await self.wait_written()

    def resume_upstream(self, upstream: Upstream) -> None:
        """Go on with an answer that the record names already."""
        self._upstream = upstream
        self._notes_upstream = True

    async def close(
        self, closing: EventType, data: dict[str, Any], usage: dict[str, Any] | None
    ) -> None:
        """End the log after everything put so far; returns when Redis has it.

        Raises: AppendRefused: somebody else holds or closed the log.
        """
        self._raise_refusal()
        self._encode_waiting()
        self._usage = encode_data(usage) if usage else b""
        self._closing = Entry(self._id(len(self._entries)), closing, encode_data(data))
        self._mark_dirty(self)
        await self.wait_written()

    async def wait_written(self) -> None:
        """Return when Redis has everything put so far. Raises: AppendRefused."""
        self._raise_refusal()
        while not self.is_settled:
            await self._wait_change()

    def look(self) -> None:
        """Have Redis asked what became of the log; what it lost of ours is sent again."""
        self._looks_wanted += 1
        self._mark_dirty(self)

    def reopen(self) -> None:
        """After another closed the log: forget that, and look whether it still is closed.

        What was never seen in the log stays unsaid, and where it stood upstream unnoted.
        """
        self._notes_upstream = False
        if isinstance(self._refusal, LogClosed):
            self._refusal = None
        del self._entries[self._acknowledged :]
        self._waiting.clear()
        self._waiting_bytes = self._unacknowledged_bytes = 0
        self._closing = None
        self.look()

    def abandon(self) -> None:
        """Send nothing more: this attempt is over, whatever it has not written."""
        self.on_refused = None
        self._refusal = self._refusal or Fenced()
        self._changed.set()

    @property
    def refusal(self) -> Refusal | None:
        """Why nothing more is written here, once that is so."""
        return self._refusal if isinstance(self._refusal, Refusal) else None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is sent, as far as is known."""
        return self._refusal is not None

    @property
    def is_closed(self) -> bool:
        """Whether this writer ended the log itself."""
        return self._closing is not None and self._acknowledged > len(self._entries)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing left to send, or to ask."""
        if self._refusal is not None:
            return True
        written = len(self._entries) + (self._closing is not None)
        looked = self._looks_done == self._looks_wanted
        return looked and not self._waiting and self._acknowledged >= written

    def commands(self, event_log: EventLog) -> list[Command]:
        """Return what brings the log forward: the oldest entries not acknowledged, then the end."""
        if self._refusal is not None:
            return []
        if self._closing is None:
            self._encode_waiting()
        commands = []
        begin = min(self._acknowledged, len(self._entries))
        batch = self._entries[begin : begin + MAX_BATCH]
        reaches_end = begin + len(batch) == len(self._entries)
        looks = reaches_end and self._looks_done != self._looks_wanted
        if batch or looks:
            commands.append(
                event_log.append_command(
                    self.generation,
                    self._token,
                    self._id(begin),
                    batch,
                    self._upstream if reaches_end else self._upstreams[begin + len(batch) - 1],
                    notes_upstream=self._notes_upstream,
                )
            )
        if looks:
            self._looks_sent = self._looks_wanted
        if self._closing is not None and reaches_end:
            commands.append(
                event_log.close_command(self.generation, self._token, self._closing, self._usage)
            )
        return commands

    def take_reply(self, reply: AppendReply | Exception) -> None:
        """Learn from what the log looked like after one of the commands."""
        had_refusal = self._refusal is not None
        if isinstance(reply, AppendReply):
            self.heard_at = asyncio.get_running_loop().time()
            self._looks_done = self._looks_sent
            self._refusal = self._refusal or self._find_refusal(reply)
            if self._refusal is None:
                self._acknowledged = reply.last_id.seq - self._first.seq + 1
                if self._acknowledged >= len(self._entries):
                    self._unacknowledged_bytes = 0
        elif not is_away(reply):
            self._refusal = self._refusal or reply
        self._changed.set()
        if self._refusal is not None and not had_refusal and self.on_refused is not None:
            self.on_refused()

    def _find_refusal(self, reply: AppendReply) -> AppendRefused | None:
        epoch = self._first.epoch
        if reply.state is None:
            return LogAbsent()
        if reply.epoch < epoch:
            return ClaimLost()
        if reply.epoch > epoch:
            return LogClosed(reply.state) if reply.state.is_closed else Fenced()
        if not reply.mine:
            return Fenced()
        if reply.state.is_closed and (self._closing is None or reply.last_id != self._closing.id):
            return LogClosed(reply.state)
        return None

    def _encode_waiting(self) -> None:
        for event, at in _join(self._waiting):
            data = encode_data(event.data)
            self._unacknowledged_bytes += len(data)
            self._entries.append(Entry(self._id(len(self._entries)), event.type, data))
            if self._upstream is not None and at is not None:
                self._upstream = Upstream(self._upstream.id, at)
            self._upstreams.append(self._upstream)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _id(self, index: int) -> EntryId:
        return EntryId(self._first.epoch, self._first.seq + index)

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    async def _wait_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
        self._raise_refusal()


def _join(events: Sequence[tuple[Event, int | None]]) -> list[tuple[Event, int | None]]:
    """Join neighbours that say the same as one: same type, both nothing but text.

    The number of the last one stands for all.
    """
    joined: list[tuple[Event, int | None]] = []
    texts: list[str] = []
    for event, at in events:
        if texts and joined[-1][0].type is event.type:
            texts.append(event.data["text"])
            joined[-1] = (joined[-1][0], at)
            continue
        if len(texts) > 1:
            _close_join(joined, texts)
        joined.append((event, at))
        texts = [event.data["text"]] if event.type in JOINABLE else []
    if len(texts) > 1:
        _close_join(joined, texts)
    return joined


def _close_join(joined: list[tuple[Event, int | None]], texts: list[str]) -> None:
    event, at = joined[-1]
    joined[-1] = (Event(event.type, {"text": "".join(texts)}), at)
