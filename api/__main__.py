"""Run one API process: `python -m api`, configured by the environment."""

import resource
import sys
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from api.app import create_app
from api.settings import ApiSettings
from shared.settings import LogSettings, RedisSettings
from shared.telemetry import configure_logging

MAX_FILES: Final = 65_536
"""More than one process can serve; macOS refuses to take everything its hard limit names."""


class Server(uvicorn.Server):
    """uvicorn, which tells followers of a drain at once: its lifespan would only end after them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs between two bytecodes of the loop's thread: only asks the loop for the drain."""
        if (held := getattr(self._app.state, "held", None)) is not None:
            held.hub.drain()
        super().handle_exit(sig, frame)


def _allow_many_sockets() -> None:
    """Take as many open files as we may: each follower is one, and the usual default is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Read the settings, or say in one line what is wrong with them; serve until told to end."""
    try:
        settings, redis, log_settings = ApiSettings(), RedisSettings(), LogSettings()
    except ValidationError as error:
        sys.exit(f"rejoin api: {error}")
    configure_logging(log_settings.level, "api")
    _allow_many_sockets()
    app = create_app(settings, redis)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain.total_seconds()),
    )
    Server(config, app).run()


if __name__ == "__main__":
    main()
