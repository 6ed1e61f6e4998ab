"""A client that always comes back, as a browser's EventSource does."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.fold import CLOSING_TYPES
from tests.support.follower import End, Follower
from tests.support.sse_reader import Event
from tests.support.wait import wait_until, within

# We honour the server's `retry:` as a browser does, but a test has no seconds to give away.
_LONGEST_RETRY_S = 0.05
_UNTOLD_RETRY_S = 0.01


@dataclass(slots=True)
class Followed:
    """What a client that always came back has seen, over all its connections."""

    events: list[Event] = field(default_factory=list)
    ends: list[End | None] = field(default_factory=list)
    """One for each response received; None for the one that brought the closing event."""
    last_event_id: str = ""

    @property
    def connections(self) -> int:
        return len(self.ends)


async def follow_until_closed(
    base_url: str,
    path: str,
    last_event_id: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Followed:
    """Follow as EventSource does: come back after every end until the closing event, or a 204.

    Like EventSource it does not mind silence, however long, on an open connection.

    Raises:
        AssertionError: a status at which a browser gives up for good, or `timeout_s` passed.
    """
    followed = Followed(last_event_id=last_event_id)

    def shown() -> str:
        types = [event.type for event in followed.events[-10:]]
        return (
            f"no closing event in {followed.connections} responses, cursor"
            f" {followed.last_event_id!r}, last events {types}"
        )

    async with within(timeout_s, shown):
        retry_s = await _follow_once(followed, base_url, path, headers, timeout_s)
        while retry_s is not None:
            await _wait_seconds(retry_s)
            retry_s = await _follow_once(followed, base_url, path, headers, timeout_s)
    return followed


async def _wait_seconds(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    resume_at = loop.time() + seconds
    await wait_until(lambda: loop.time() >= resume_at, "the server's retry time")


async def _follow_once(
    followed: Followed,
    base_url: str,
    path: str,
    headers: Mapping[str, str] | None,
    timeout_s: float,
) -> float | None:
    """One connection; the seconds until the next, or None if there is to be none."""
    follower = Follower(
        base_url, path, followed.last_event_id, headers=headers, timeout_s=timeout_s
    )
    try:
        async with follower:
            if follower.status == 204:
                followed.ends.append(End.CLEAN)
                return None
            assert follower.status == 200, f"EventSource gives up at {follower.status}"
            async for event in follower:
                followed.events.append(event)
                followed.last_event_id = follower.last_event_id
                if event.type in CLOSING_TYPES:
                    followed.ends.append(None)
                    return None
            followed.ends.append(follower.end)
    except ConnectionError:
        pass  # the server is away; as for a browser, that is a reason to come back
    followed.last_event_id = follower.last_event_id
    if follower.retry_ms is None:
        return _UNTOLD_RETRY_S
    return min(follower.retry_ms / 1000, _LONGEST_RETRY_S)
