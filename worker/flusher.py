"""Write the logs of all generations of one worker through one connection.

Whatever gathered while the last round trip was in flight goes out as the next one, adjacent texts
of one generation joined into one entry. Idle, it sends at once, so a first token never waits.

    put ──► waiting (events) ──encode once──► entries ──► one command per log ──► acknowledged
                                                 ▲                                      │
                                                 └── Redis lost some: the same entries again

An entry once sent is never encoded or joined anew: one id, one content.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog

from shared.connections import Command, is_away
from shared.errors import (
    AppendRefused,
    ClaimLost,
    Fenced,
    LogAbsent,
    LogClosed,
    StoreUnavailable,
)
from shared.event_log import AppendReply, EventLog
from shared.events import JOINABLE, Entry, Event, EventType, encode_data
from shared.ids import EntryId, GenerationId

MAX_WAITING: Final = 256 * 1024
"""Bytes of text one generation may have unacknowledged before its provider has to wait."""

MAX_BATCH: Final = 256
"""Entries per command: bounds how long one script holds Redis."""

BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.25)
"""Pauses between tries while Redis is away; the last one repeats."""

log = structlog.get_logger()


class LogWriter:
    """The writer's end of one log, for one epoch: sequence, encode once, keep, repeat if lost."""

    def __init__(
        self, flusher: "Flusher", generation: GenerationId, token: str, last_id: EntryId
    ) -> None:
        self.generation = generation
        self._flusher = flusher
        self._token = token
        self._first = last_id.successor
        self._entries: list[Entry] = []
        self._waiting: list[Event] = []
        self._waiting_bytes = 0
        self._unacknowledged_bytes = 0
        self._acknowledged = 0
        self._usage = b""
        self._closing: Entry | None = None
        self._refusal: Exception | None = None
        self._changed = asyncio.Event()

    async def put(self, event: Event) -> None:
        """Take one event; waits while too much is unacknowledged. Raises: AppendRefused."""
        self._raise_refusal()
        self._waiting.append(event)
        self._waiting_bytes += len(event.data.get("text", "")) + 1
        self._flusher.mark_dirty(self)
        while self._unacknowledged_bytes + self._waiting_bytes > MAX_WAITING:
            await self._wait_change()

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
        self._flusher.mark_dirty(self)
        await self.wait_written()

    async def wait_written(self) -> None:
        """Return when Redis has everything put so far. Raises: AppendRefused."""
        self._raise_refusal()
        while not self.is_settled:
            await self._wait_change()

    def abandon(self) -> None:
        """Send nothing more: this attempt is over, whatever it has not written."""
        self._refusal = self._refusal or Fenced()
        self._changed.set()

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing left to send."""
        if self._refusal is not None:
            return True
        written = len(self._entries) + (self._closing is not None)
        return not self._waiting and self._acknowledged == written

    def commands(self, event_log: EventLog) -> list[Command]:
        """Return what brings the log forward: the oldest entries not acknowledged, then the end."""
        if self._refusal is not None:
            return []
        if self._closing is None:
            self._encode_waiting()
        commands = []
        batch = self._entries[self._acknowledged : self._acknowledged + MAX_BATCH]
        if batch:
            commands.append(
                event_log.append_command(self.generation, self._token, batch[0].id, batch)
            )
        if self._closing is not None and self._acknowledged + len(batch) == len(self._entries):
            commands.append(
                event_log.close_command(self.generation, self._token, self._closing, self._usage)
            )
        return commands

    def take_reply(self, reply: AppendReply | Exception) -> None:
        """Learn from what the log looked like after one of the commands."""
        if isinstance(reply, AppendReply):
            self._refusal = self._refusal or self._find_refusal(reply)
            if self._refusal is None:
                self._acknowledged = reply.last_id.seq - self._first.seq + 1
                if self._acknowledged == len(self._entries):
                    self._unacknowledged_bytes = 0
        elif not is_away(reply):
            self._refusal = reply
        self._changed.set()

    def _find_refusal(self, reply: AppendReply) -> AppendRefused | None:
        epoch = self._first.epoch
        if reply.state is None:
            return LogAbsent()
        if reply.epoch < epoch:
            return ClaimLost()
        if reply.epoch > epoch:
            return LogClosed() if reply.state.is_closed else Fenced()
        if not reply.mine:
            return Fenced()
        if reply.state.is_closed and (self._closing is None or reply.last_id != self._closing.id):
            return LogClosed()
        return None

    def _encode_waiting(self) -> None:
        for event in _join(self._waiting):
            data = encode_data(event.data)
            self._unacknowledged_bytes += len(data)
            self._entries.append(Entry(self._id(len(self._entries)), event.type, data))
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


class Flusher:
    """Send what all writers have, one round trip after the other."""

    def __init__(self, event_log: EventLog) -> None:
        self._log = event_log
        self._dirty: dict[LogWriter, None] = {}
        self._has_dirty = asyncio.Event()

    def open_writer(self, generation: GenerationId, token: str, last_id: EntryId) -> LogWriter:
        """Return a writer for the epoch of `last_id`, the newest entry of the claim."""
        return LogWriter(self, generation, token, last_id)

    def mark_dirty(self, writer: LogWriter) -> None:
        """Have `writer` sent with the next round trip."""
        self._dirty[writer] = None
        self._has_dirty.set()

    async def run(self) -> None:
        """Flush until cancelled."""
        tries = 0
        while True:
            await self._has_dirty.wait()
            self._has_dirty.clear()
            writers, self._dirty = list(self._dirty), {}
            try:
                healthy = await self._flush(writers)
            except StoreUnavailable as error:
                healthy = False
                tell = log.debug if tries else log.warning
                tell("flush_failed", reason=error.reason, logs=len(writers))
            for writer in writers:
                if not writer.is_settled:
                    self.mark_dirty(writer)
            if healthy:
                tries = 0
            else:
                await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
                tries += 1

    async def _flush(self, writers: Sequence[LogWriter]) -> bool:
        """Send one round trip; False if Redis refused for the moment. Raises: StoreUnavailable."""
        owners: list[LogWriter] = []
        commands: list[Command] = []
        for writer in writers:
            for command in writer.commands(self._log):
                owners.append(writer)
                commands.append(command)
        if not commands:
            return True
        replies = await self._log.send(commands)
        healthy = True
        for writer, reply in zip(owners, replies, strict=True):
            writer.take_reply(reply)
            healthy = healthy and isinstance(reply, AppendReply)
        return healthy


def _join(events: Sequence[Event]) -> list[Event]:
    """Join neighbours that say the same as one: same type, both nothing but text."""
    joined: list[Event] = []
    texts: list[str] = []
    for event in events:
        if joined and event.type in JOINABLE and joined[-1].type is event.type:
            texts.append(event.data["text"])
            continue
        if texts:
            joined[-1] = Event(joined[-1].type, {"text": "".join(texts)})
        joined.append(event)
        texts = [event.data["text"]] if event.type in JOINABLE else []
    if texts:
        joined[-1] = Event(joined[-1].type, {"text": "".join(texts)})
    return joined
