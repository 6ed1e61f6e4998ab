"""The way between a browser and the API, whose next connections break where the test says.

A browser opens connections as it likes, so cuts cannot be counted from its first one: a test loads
its page, names the cuts, and only what connects from then on meets them.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.support.cutting_proxy import (
    Counting,
    CuttingProxy,
    ProxiedConnection,
    open_cutting_proxy,
)


class _Planned(Iterator[int | None]):
    """One cut for each connection to come; none where none was planned."""

    def __init__(self) -> None:
        self.cuts: deque[int] = deque()

    def __next__(self) -> int | None:
        return self.cuts.popleft() if self.cuts else None


class Network:
    """See `open_network`."""

    def __init__(self, proxy: CuttingProxy, planned: _Planned) -> None:
        self._proxy = proxy
        self._planned = planned

    @property
    def url(self) -> str:
        return self._proxy.url

    async def cut_all(self) -> None:
        """Reset every open connection now."""
        await self._proxy.cut_all()

    def delay_cuts(self) -> None:
        """See the proxy's."""
        self._proxy.delay_cuts()

    def cut_now(self) -> None:
        """See the proxy's."""
        self._proxy.cut_now()

    async def plan(self, *cuts: int) -> None:
        """Reset the next connections after so many bytes each; idle ones are not used again."""
        await self._proxy.cut_all()
        self._planned.cuts.extend(cuts)

    @property
    def planned_cuts(self) -> list[ProxiedConnection]:
        """The connections that met a planned cut, and reached it or not."""
        met = [each for each in self._proxy.connections if each.cut_after_bytes is not None]
        assert not self._planned.cuts, f"not met: {self._planned.cuts}"
        return met


@asynccontextmanager
async def open_network(api_url: str, counting: Counting = "response") -> AsyncIterator[Network]:
    """Stand before the API on a port of its own; `counting` is the proxy's."""
    api = urlsplit(api_url)
    assert api.hostname is not None
    assert api.port is not None
    planned = _Planned()
    async with open_cutting_proxy(api.hostname, api.port, cuts=planned, counting=counting) as proxy:
        yield Network(proxy, planned)
