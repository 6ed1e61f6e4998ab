"""The wire is cut at every single byte, and the reader who comes back has every token once.

A proxy resets the first connection after k bytes of its body, for each k there is, the chunk
framing included; the next connection goes straight to the API.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing

import pytest

from shared.connections import Client
from shared.generation import Surface
from tests.support.api_process import ApiProcess
from tests.support.author import token
from tests.support.cutting_proxy import CuttingProxy, open_cutting_proxy
from tests.support.follower import Follower
from tests.support.reading import Reading
from tests.support.wait import wait_until

pytestmark = pytest.mark.parametrize("surface", list(Surface))

AT_ONCE = 50
"""Connections made at the same time: more would overrun a listener's backlog."""

LIVE = ("l", "i\n", "v", "e\n\n")


async def read_with_cuts(
    api: ApiProcess,
    reading: Reading,
    cuts: Iterable[int | None],
    grow: Callable[[], Awaitable[None]],
) -> CuttingProxy:
    """One reader for each cut, all at once; the log grows when all of them are connected."""
    cuts = list(cuts)
    room = asyncio.Semaphore(AT_ONCE)
    connected: list[Follower] = []

    async def read(proxy: CuttingProxy) -> None:
        first = reading.open(proxy.url)
        with closing(first):
            async with room:
                await first.__aenter__()
            connected.append(first)
            await reading.check(await reading.resume(api.api_url, first))

    async with (
        open_cutting_proxy("127.0.0.1", api.port, cuts=cuts, counting="body") as proxy,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in cuts:
            tasks.create_task(read(proxy))
        await wait_until(lambda: len(connected) == len(cuts), "all readers to be connected")
        await grow()
    return proxy


async def grow_live(api: ApiProcess, reading: Reading) -> None:
    """Entry by entry, each when the one before has reached a reader."""
    async with reading.open(api.api_url) as witness:
        await witness.read_until("token")
        for text in LIVE:
            await reading.author.say(token(text))
            await witness.read_until("token")
        await reading.author.close()


def cuts_made(proxy: CuttingProxy) -> list[int]:
    return sorted(each.counted_bytes for each in proxy.connections if each.was_cut)


async def test_a_cut_at_any_byte_of_the_history_loses_nothing(
    api: ApiProcess, client: Client, surface: Surface
) -> None:
    """A finished log, cut at every byte of its replay, is read whole by who comes back."""
    reading = await Reading.begin(client, surface)
    await reading.author.close()

    async def stand_still() -> None:
        return

    whole = await read_with_cuts(api, reading, [None], stand_still)
    length = whole.connections[0].counted_bytes
    proxy = await read_with_cuts(api, reading, range(length), stand_still)

    assert list(range(length)) == cuts_made(proxy)


async def test_a_cut_at_any_byte_while_live_loses_nothing(
    api: ApiProcess, client: Client, surface: Surface
) -> None:
    """A log that grows under its readers, cut at every byte, is read whole by who comes back."""
    first = await Reading.begin(client, surface)
    whole = await read_with_cuts(api, first, [None], lambda: grow_live(api, first))
    length = whole.connections[0].counted_bytes
    reading = await Reading.begin(client, surface)
    proxy = await read_with_cuts(api, reading, range(length), lambda: grow_live(api, reading))

    assert list(range(length)) == cuts_made(proxy)
