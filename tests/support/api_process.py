"""An API inside the tests' own process, on a real socket: fast to start, and open to questions.

    async with open_api(valkey.url, heartbeat=timedelta(seconds=0.1)) as api:
        ...     # api.held.hub.followed

Signals and the exit of a process are tested on `python -m api` (see tests.support.stack).
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from pydantic import SecretStr

from api.app import App, create_app
from api.dependencies import Held
from api.server import Server
from api.settings import ApiSettings
from shared.settings import RedisSettings
from tests.support.api_client import ApiClient
from tests.support.wait import wait_until

_BACKLOG = 1024


class _Server(Server):
    """Ours without signals, which are pytest's, and without uvicorn's pause of 0.1 s."""

    def __init__(self, app: App, settings: ApiSettings) -> None:
        super().__init__(app, settings)
        self._told = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._told.wait()

    def end(self) -> None:
        self.should_exit = True
        self._told.set()


class ApiProcess(ApiClient):
    """A running API and what it holds."""

    def __init__(self, api_url: str, app: App, server: Server) -> None:
        super().__init__(api_url)
        self.app = app
        self._server = server

    @property
    def port(self) -> int:
        return int(self.api_url.rpartition(":")[2])

    @property
    def held(self) -> Held:
        """What a route may ask for."""
        held: Held = self.app.state.held
        return held

    @property
    def connections(self) -> int:
        """HTTP connections that are open."""
        return len(self._server.server_state.connections)


@asynccontextmanager
async def open_api(redis_url: str, **settings: Any) -> AsyncIterator[ApiProcess]:
    """Serve until the block ends; followers that are still there are told of the drain."""
    told = ApiSettings(**settings)
    app = create_app(told, RedisSettings(url=SecretStr(redis_url)))
    server = _Server(app, told)
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await wait_until(lambda: server.started or serving.done(), "uvicorn to serve")
        api = ApiProcess(f"http://127.0.0.1:{listener.getsockname()[1]}", app, server)
        try:
            yield api
        finally:
            api.held.hub.drain()
    finally:
        server.end()
        await serving
        _cancel_shutdown_watcher()


def _cancel_shutdown_watcher() -> None:
    """End sse-starlette's task that polls for uvicorn's end: one for each thread, for ever."""
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == "_shutdown_watcher":
            task.cancel()
