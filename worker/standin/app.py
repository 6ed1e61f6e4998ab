"""The application: its routes, and how to run it inside another process.

A route per API surface and file; the rest tells what the stand-in can do and what it did.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from worker.standin import chat
from worker.standin.exchange import json_response
from worker.standin.ledger import Ledger
from worker.standin.responses import routes as responses
from worker.standin.responses.runs import RUNS, Runs
from worker.standin.serving import SERVING, Serving
from worker.standin.settings import StandinSettings

MODELS = ("standin", "standin-2")  # what it lists; it answers to every name

_LOOPBACK = "127.0.0.1"
_MAX_BODY_BYTES = 16 * 1024**2
# `Serving.stop` cuts every answer first, so this bounds only a hang in the server itself.
_SHUTDOWN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Standin:
    """A stand-in that listens."""

    url: str
    """Its root, for `/healthz` and `/ledger`."""
    ledger: Ledger

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as `base_url`."""
        return f"{self.url}/v1"


def create_app(settings: StandinSettings) -> web.Application:
    """The application, for whatever runs aiohttp applications with `handler_cancellation`."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app[SERVING] = Serving(settings)
    app[RUNS] = Runs()
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat.complete),
            web.post("/v1/responses", responses.create),
            web.get("/v1/responses/{id}", responses.retrieve),
            web.post("/v1/responses/{id}/cancel", responses.cancel),
            web.delete("/v1/responses/{id}", responses.delete),
            web.get("/v1/models", _list_models),
            web.get("/healthz", _show_health),
            web.get("/ledger", _show_ledger),
            web.delete("/ledger", _clear_ledger),
        ]
    )
    app.on_shutdown.append(_stop)
    app.on_cleanup.append(_stop_runs)
    return app


@asynccontextmanager
async def open_standin(settings: StandinSettings | None = None) -> AsyncIterator[Standin]:
    """Serve in this event loop, on a free loopback port whatever the settings say."""
    settings = (settings or StandinSettings()).model_copy(update={"host": _LOOPBACK, "port": 0})
    async with serve(settings) as standin:
        yield standin


@asynccontextmanager
async def serve(settings: StandinSettings) -> AsyncIterator[Standin]:
    """Serve in this event loop, where the settings say; leaving cuts the answers on their way."""
    app = create_app(settings)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=4096).start()
        port = runner.addresses[0][1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield Standin(f"http://{host}:{port}", app[SERVING].ledger)
    finally:
        await runner.cleanup()


async def _stop(app: web.Application) -> None:
    app[SERVING].stop()


async def _stop_runs(app: web.Application) -> None:
    await app[RUNS].stop()


async def _list_models(_: web.Request) -> web.Response:
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "standin"} for name in MODELS
    ]
    return json_response(200, {"object": "list", "data": models})


async def _show_health(_: web.Request) -> web.Response:
    return json_response(200, {"status": "ok"})


async def _show_ledger(request: web.Request) -> web.Response:
    return json_response(200, request.app[SERVING].ledger.as_json())


async def _clear_ledger(request: web.Request) -> web.Response:
    request.app[SERVING].ledger.clear()
    return web.Response(status=204)
