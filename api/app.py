"""Build the app; open and close what its process holds."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.resources import files
from typing import Final

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import chat, generations, health, metrics, problems
from api.admission import Admission
from api.dependencies import Held
from api.events import OPENAPI, OPENAPI_PATH, FollowRoute
from api.history import History
from api.hub import Hub
from api.settings import ApiSettings
from api.tail import TailSettings
from shared.connections import Client, new_tracked_connection, open_connection
from shared.event_log import EventLog
from shared.generation_store import GenerationStore
from shared.keys import Keys
from shared.queue import Queue
from shared.settings import RedisSettings

COMMAND_CONNECTIONS: Final = 3
"""With the hub's one and those for history a process never has more than six."""

HISTORY_CONNECTIONS: Final = 2
"""Reads of history at once: a storm of them must not hold up the live ones in Redis."""

LONGEST_BEAT: Final = timedelta(seconds=1)
"""How often all live followers are looked through for one that is due a heartbeat."""

PAGE_POLICY: Final = (
    b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

log = structlog.get_logger()


@asynccontextmanager
async def open_held(settings: ApiSettings, redis: RedisSettings) -> AsyncIterator[Held]:
    """Open everything that one API process holds."""
    keys = Keys(redis.key_prefix)
    async with AsyncExitStack() as stack:
        client = Client(
            await stack.enter_async_context(
                open_connection(redis, "api", max_connections=COMMAND_CONNECTIONS)
            )
        )
        history = Client(
            await stack.enter_async_context(
                open_connection(redis, "history", max_connections=HISTORY_CONNECTIONS)
            )
        )
        store, queue = GenerationStore(client, keys), Queue(client, keys)
        hub = Hub(
            history,
            keys,
            partial(new_tracked_connection, redis, "hub"),
            window_bytes=int(settings.window),
            poll=settings.poll,
            beat=min(settings.heartbeat / 4, LONGEST_BEAT),
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(hub.run(), name="hub")
            task.add_done_callback(_end_process_if_failed)
            yield Held(
                settings=settings,
                redis=client,
                store=store,
                event_log=EventLog(client, keys),
                history=History(EventLog(history, keys), HISTORY_CONNECTIONS),
                queue=queue,
                admission=Admission(store, queue, keys, settings),
                hub=hub,
                patience=TailSettings(settings.heartbeat, settings.repair_wait),
            )
            task.cancel()


def _end_process_if_failed(task: "asyncio.Task[None]") -> None:
    """A process that is deaf to its logs must not stay and look healthy."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("hub_failed", error=repr(error), exc_info=error)
        signal.raise_signal(signal.SIGTERM)


class App:
    """The ASGI app: the hot route first, then FastAPI. `state.held` is what its process holds."""

    def __init__(self, app: FastAPI, settings: ApiSettings) -> None:
        self.state = app.state
        self._route: ASGIApp = FollowRoute(app)
        if settings.allowed_origins:
            self._route = CORSMiddleware(
                self._route,
                allow_origins=list(settings.allowed_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Content-Type", "Idempotency-Key", "Last-Event-ID"],
                expose_headers=["Location", "Retry-After"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._route(scope, receive, send)


def create_app(settings: ApiSettings, redis: RedisSettings) -> App:
    """Return the app. What it holds is open between its lifespan's start and end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_held(settings, redis) as held:
            app.state.held = held
            yield

    # No /docs: its page would be fetched from a foreign host; /openapi.json says the same.
    app = FastAPI(title="Rejoin", lifespan=lifespan, docs_url=None, redoc_url=None)
    problems.install(app)
    for module in (generations, chat, health, metrics):
        app.include_router(module.router)
    app.openapi()["paths"][OPENAPI_PATH] = OPENAPI
    # Not a mount: one at "/" takes every path whose method is wrong before its route can say 405.
    app.router.default = _Page(directory=str(files("api").joinpath("web")), html=True)
    return App(app, settings)


class _Page(StaticFiles):
    """The playground and its client, with the policy that a page without inline code can keep."""

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", PAGE_POLICY),
                    (b"cache-control", b"no-cache"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await super().__call__(scope, receive, send_with_policy)
