"""What Redis forgot: its file before and after it was cut, each read by a server of its own."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fold import CLOSING_TYPES, Entry, position
from tests.support.redis_server import RedisServer

_FOLDER = "appendonlydir"


@dataclass(frozen=True, slots=True)
class Past:
    """A generation as it was when Redis died, of which Redis then forgot something.

    Whatever anybody was ever told stands in it: Redis writes its file before it answers.
    """

    at: float
    """When Redis died, in Unix seconds."""
    entries: Sequence[Entry]
    kept: str | None
    """The last id that was not forgotten; None if the generation was forgotten altogether."""
    writer: str | None
    """The worker of its last attempt, if there was one."""
    finished_at: float | None
    """When it was closed, in Unix seconds."""

    @property
    def is_unclaimed(self) -> bool:
        """Whether its last claim was forgotten too, which is never used again."""
        claims = [entry_id for entry_id, fields in self.entries if fields[b"t"] == b"started"]
        if not claims or self.kept is None:
            return False
        return position(self.kept) < position(claims[-1].decode())

    @property
    def is_closed(self) -> bool:
        """Whether it had its closing entry."""
        return bool(self.entries) and self.entries[-1][1][b"t"].decode() in CLOSING_TYPES


class DeadFiles:
    """Copies of the file of a dead server, to be read once the server itself is back."""

    def __init__(self, server: RedisServer, exits: ExitStack) -> None:
        self._server, self._exits = server, exits

    def copy(self) -> RedisServer:
        """The file as it is now, under a server that is not started yet."""
        assert not self._server.running, "copy the file of a dead server"
        copy = RedisServer(self._server.kind, aof=True)
        self._exits.callback(copy.close)
        _copy_folder(self._server.directory, copy.directory)
        return copy


def _copy_folder(source: Path, target: Path) -> None:
    shutil.copytree(source / _FOLDER, target / _FOLDER)


async def compare(before: RedisServer, after: RedisServer, at: float) -> Mapping[str, Past]:
    """What `before` holds of each generation that `after` holds less of."""
    await before.start()
    await after.start()
    async with before.client() as old, after.client() as new:
        had, has = await _last_ids(old), await _last_ids(new)
        lost = [name for name, last in had.items() if has.get(name) != last]
        return {name: await _read(old, name, has.get(name), at) for name in lost}


async def _last_ids(client: Any) -> dict[str, str]:
    keys = [key async for key in client.scan_iter("gen:{*}:log", count=1_000)]
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.xrevrange(key, count=1)
    rows = await pipe.execute()
    return {
        key.decode().partition("{")[2].partition("}")[0]: row[0][0].decode()
        for key, row in zip(keys, rows, strict=True)
    }


async def _read(client: Any, generation: str, kept: str | None, at: float) -> Past:
    token, finished_ms = await client.hmget(f"gen:{{{generation}}}", "token", "finished_at")
    return Past(
        at=at,
        entries=await client.xrange(f"gen:{{{generation}}}:log"),
        kept=kept,
        writer=token.decode().partition("/")[0] if token else None,
        finished_at=int(finished_ms) / 1000 if finished_ms else None,
    )
