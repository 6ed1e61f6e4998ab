"""Send the logs of all generations of one worker through one connection.

Whatever gathered while the last round trip was in flight goes out as the next one, adjacent texts
of one generation joined into one entry. Idle, it sends at once, so a first token never waits.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Final

import structlog

from shared.connections import Command
from shared.errors import StoreUnavailable
from shared.event_log import AppendReply, EventLog
from shared.ids import EntryId, GenerationId
from worker.log_writer import LogWriter

BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.25)
"""Pauses between tries while Redis is away; the last one repeats."""

LOOK_SLOTS: Final = 8
"""Silent logs are looked at in so many groups: one pipeline for a thousand would hold Redis up."""

log = structlog.get_logger()


class Flusher:
    """Send what all writers have, one round trip after the other."""

    def __init__(self, event_log: EventLog) -> None:
        self._log = event_log
        self._dirty: dict[LogWriter, None] = {}
        self._has_dirty = asyncio.Event()
        self._slots: list[dict[LogWriter, None]] = [{} for _ in range(LOOK_SLOTS)]
        self._opened = count()

    def open_writer(self, generation: GenerationId, token: str, last_id: EntryId) -> LogWriter:
        """Return a writer for the epoch of `last_id`, the newest entry of the claim."""
        writer = LogWriter(generation, token, last_id, self.mark_dirty)
        self._slots[next(self._opened) % LOOK_SLOTS][writer] = None
        return writer

    def mark_dirty(self, writer: LogWriter) -> None:
        """Have `writer` sent with the next round trip."""
        self._dirty[writer] = None
        self._has_dirty.set()

    async def look_forever(self, silence: timedelta) -> None:
        """Look at every log of which nothing was heard for `silence`, until cancelled."""
        longest = silence.total_seconds()
        loop = asyncio.get_running_loop()
        while True:
            for slot in self._slots:
                await asyncio.sleep(longest / LOOK_SLOTS)
                for writer in list(slot):
                    if writer.is_over:
                        del slot[writer]
                    elif writer.is_settled and loop.time() - writer.heard_at >= longest:
                        writer.look()

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
