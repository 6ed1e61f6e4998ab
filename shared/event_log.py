"""Append to and read the log of one generation: a Redis Stream whose ids the writer chooses.

    gen:{<id>}:log     <epoch>-0   started {…, "prev": "<id it stands on>"}
                       <epoch>-1   token {"text": "…"}
                       <epoch>-2   token {"text": "…"}        ids are dense within an epoch,
                       <epoch>-3   done {…}                   the closing entry is the last one

Source: XADD refuses an id that is not above the last one, XRANGE and XREAD return in order of id.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from shared.connections import Client, Command, is_garbage, reading_record
from shared.errors import RecordUnreadable, StoreUnavailable
from shared.events import Entry, Run, decode_entries, decode_runs
from shared.generation import Record, State, Upstream, decode_record
from shared.ids import BEGINNING, EntryId, GenerationId, decode_entry_id
from shared.keys import Keys

PAGE: Final = 500
"""Entries per read of history: a page of joined tokens is some tens of KiB."""


@dataclass(frozen=True, slots=True)
class AppendReply:
    """What the log looked like after an append or a close, whether or not it took the entries."""

    state: State | None
    """None: the record or the log is gone."""
    mine: bool
    epoch: int
    last_id: EntryId


class Question(NamedTuple):
    """What somebody wants to know of one log."""

    generation: GenerationId
    after: EntryId = BEGINNING
    """A cursor."""
    limit: int = PAGE
    """Entries beyond it that are wanted; 0: none."""


@dataclass(frozen=True, slots=True)
class LogView:
    """Record and log of one generation at one moment."""

    record: Record | None
    last_id: EntryId
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class GenerationView(LogView):
    """The same of a generation that is known to exist."""

    record: Record


def decode_append_reply(reply: Sequence[Any]) -> AppendReply:
    """Read the reply of `append.lua` and `close.lua`."""
    state, mine, epoch, last_id = reply
    return AppendReply(
        State(state.decode()) if state else None, bool(mine), int(epoch), decode_entry_id(last_id)
    )


def _read_view(fields: Any, last: Any, rows: Any) -> LogView | RecordUnreadable:
    try:
        with reading_record():
            for reply in (fields, last, rows):
                if isinstance(reply, Exception):
                    raise reply
            return LogView(
                decode_record(fields),
                decode_entry_id(last[0][0]) if last else BEGINNING,
                decode_entries(rows),
            )
    except RecordUnreadable as error:
        return error


class EventLog:
    """The logs of all generations in one store."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._append = client.script("append")
        self._close = client.script("close")

    def append_command(
        self,
        generation: GenerationId,
        token: str,
        first: EntryId,
        entries: Sequence[Entry],
        upstream: Upstream | None = None,
        *,
        notes_upstream: bool = False,
    ) -> Command:
        """Return the command that appends `entries`, dense from `first`, if the log is mine.

        `upstream` is where the last of them stands in the provider's answer, noted in the record
        if `notes_upstream` says so; None then means that there is nothing to go on with any more.
        Without entries it changes no log, and tells what became of it.

        Atomic: all entries and the note, or nothing. A repeat of the same command adds nothing.
        """
        fields = [part for entry in entries for part in (entry.type.value, entry.data)]
        return (
            "EVALSHA",
            self._append.sha,
            2,
            self._keys.record(generation),
            self._keys.log(generation),
            token,
            first.epoch,
            first.seq,
            upstream.id if upstream else "",
            "" if upstream is None or upstream.at is None else upstream.at,
            "1" if notes_upstream else "",
            *fields,
        )

    def close_command(
        self, generation: GenerationId, token: str, closing: Entry, usage: bytes
    ) -> Command:
        """Return the command that ends the log with `closing`. `usage` is JSON, or empty.

        Atomic: entry, final state, usage and lifetimes change together. A repeat adds nothing.
        """
        return (
            "EVALSHA",
            self._close.sha,
            2,
            self._keys.record(generation),
            self._keys.log(generation),
            token,
            closing.id.epoch,
            closing.id.seq,
            closing.type.value,
            closing.data,
            usage,
        )

    async def send(self, commands: Sequence[Command]) -> list[AppendReply | Exception]:
        """Send append and close commands in one round trip; one reply or error for each.

        A record that is garbage is the error of its own commands.
        Raises: StoreUnavailable: nothing is known of any of them; send the same again.
        """
        replies = await self._client.try_all(commands)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            await self._client.call_all(
                ("SCRIPT LOAD", script.text) for script in (self._append, self._close)
            )
            again = await self._client.try_all(commands[i] for i in unknown)
            for i, reply in zip(unknown, again, strict=True):
                if isinstance(reply, NoScriptError):
                    raise StoreUnavailable("forgot its scripts at once")
                replies[i] = reply
        return [_read_reply(reply) for reply in replies]

    async def read(
        self,
        generation: GenerationId,
        after: EntryId,
        until: EntryId | None = None,
        count: int = PAGE,
    ) -> list[Entry]:
        """Return up to `count` entries beyond the cursor `after`, in order, none beyond `until`.

        Raises: RecordUnreadable, StoreUnavailable.
        """
        last = "+" if until is None else str(until)
        with reading_record():
            rows = await self._client.call(
                "XRANGE", self._keys.log(generation), f"({after}", last, "COUNT", count
            )
            return decode_entries(rows)

    async def read_back(
        self, generation: GenerationId, before: EntryId, count: int = PAGE
    ) -> list[Run]:
        """Return the last `count` entries up to and with `before`, in order, as runs.

        Raises: RecordUnreadable, StoreUnavailable.
        """
        with reading_record():
            rows = await self._client.call(
                "XREVRANGE", self._keys.log(generation), str(before), "-", "COUNT", count
            )
            return decode_runs(rows[::-1])

    async def view(
        self, generation: GenerationId, after: EntryId = BEGINNING, count: int = PAGE
    ) -> LogView:
        """Return the record, the log's last id and the first entries beyond `after`.

        Atomic: one MULTI, so the three agree with each other.
        Raises: RecordUnreadable, StoreUnavailable.
        """
        (view,) = await self.view_all((Question(generation, after, count),))
        if isinstance(view, RecordUnreadable):
            raise view
        return view

    async def view_all(self, questions: Iterable[Question]) -> list[LogView | RecordUnreadable]:
        """Return the same of many logs, in one round trip and one MULTI; or the error of each."""
        asked = list(questions)
        commands: list[Command] = []
        for generation, after, limit in asked:
            log = self._keys.log(generation)
            commands.append(("HGETALL", self._keys.record(generation)))
            commands.append(("XREVRANGE", log, "+", "-", "COUNT", 1))
            if limit:
                commands.append(("XRANGE", log, f"({after}", "+", "COUNT", limit))
        replies = iter(await self._client.try_all(commands, atomic=True))
        return [
            _read_view(next(replies), next(replies), next(replies) if question.limit else ())
            for question in asked
        ]


def _read_reply(reply: Any) -> AppendReply | Exception:
    if isinstance(reply, ResponseError) and is_garbage(reply):
        return RecordUnreadable(str(reply)[:200])
    if isinstance(reply, Exception):
        return reply
    try:
        return decode_append_reply(reply)
    except (TypeError, ValueError) as error:
        return RecordUnreadable(f"{type(error).__name__}: {error}"[:200])
