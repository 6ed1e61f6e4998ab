"""A reader who watches an answer grow: how long an accident leaves them without anything new."""

import asyncio
import math

from tests.support.compose.stack import pause
from tests.support.fold import CLOSING_TYPES, WIRE_ONLY_TYPES
from tests.support.follower import Follower

UNTOLD_RETRY_S = 3.0
"""What browsers wait before they come back, unless told otherwise."""


async def longest_silence(base_url: str, path: str, *, timeout_s: float) -> float:
    """Seconds between two events of one generation, over all connections; infinite if it broke off.

    Comes back when the server says so, as a browser does and as `event_source` does not.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_to_the_end(base_url, path)
    except TimeoutError:
        return math.inf


async def _read_to_the_end(base_url: str, path: str) -> float:
    loop = asyncio.get_running_loop()
    cursor, longest_s, last_at = "", 0.0, math.inf
    while True:
        retry_ms = None
        try:
            async with Follower(base_url, path, cursor, timeout_s=60) as follower:
                if follower.status != 200:
                    return math.inf
                async for event in follower:
                    if event.type in WIRE_ONLY_TYPES:
                        continue
                    longest_s = max(longest_s, loop.time() - last_at)
                    last_at, cursor = loop.time(), event.last_event_id
                    if event.type in CLOSING_TYPES:
                        return longest_s
                retry_ms = follower.retry_ms
        except ConnectionError:
            pass  # the server is away: a reason to come back
        except AssertionError:
            return math.inf
        await pause(UNTOLD_RETRY_S if retry_ms is None else retry_ms / 1000)
