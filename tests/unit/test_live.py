"""A follower that waits: when it hears a heartbeat."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any, Final, cast

from api.live import Follower
from api.sse import HEARTBEAT
from api.wire import Wire, encode_chunk

PATIENCE: Final = timedelta(seconds=15)


class Connection:
    """Keeps what is written."""

    is_lost = False

    def __init__(self) -> None:
        self.on_change: Callable[[], None] | None = None
        self.is_full = False
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


def test_only_silence_is_filled_with_heartbeats() -> None:
    """What was written counts, a heartbeat too; who does not read is not written to."""
    connection = Connection()
    wire = Wire(connection)
    follower = Follower(cast(Any, None), wire, PATIENCE)
    wire.write(b"a token")
    silent_from = monotonic()
    follower.beat(silent_from)
    follower.beat(silent_from + PATIENCE.total_seconds() - 1)
    assert connection.written == [b"a token"]
    connection.is_full = True
    follower.beat(silent_from + PATIENCE.total_seconds())
    assert connection.written == [b"a token"]
    connection.is_full = False
    follower.beat(silent_from + PATIENCE.total_seconds())
    assert connection.written == [b"a token", encode_chunk(HEARTBEAT)]
    follower.beat(monotonic())
    assert connection.written[2:] == []
