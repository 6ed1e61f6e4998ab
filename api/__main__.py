"""Run the API: `python -m api`, configured by the environment."""

import argparse
import gc
import os
import resource
import sys
from typing import Final

from api.app import create_app
from api.processes import open_sockets
from api.server import Server
from api.settings import ApiSettings
from shared.settings import LogSettings, RedisSettings, read_settings
from shared.telemetry import configure_logging

MAX_FILES: Final = 65_536
"""More than one process can serve; macOS refuses to take everything its hard limit names."""

YOUNG_OBJECTS: Final = 50_000
"""New objects between two looks for garbage, each of which takes some 2 ms then."""


def _allow_many_sockets() -> None:
    """Take as many open files as we may: each follower is one, and the usual default is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _parse_arguments() -> None:
    parser = argparse.ArgumentParser(prog="python -m api", description="Run the API.")
    parser.add_argument("--processes", metavar="N", help="the same as API_PROCESSES=N")
    if (processes := parser.parse_args().processes) is not None:
        os.environ["API_PROCESSES"] = processes


def main() -> None:
    """Read the settings, or say in one line what is wrong with them; serve until told to end."""
    _parse_arguments()
    settings, redis = read_settings(ApiSettings), read_settings(RedisSettings)
    configure_logging(read_settings(LogSettings).level, "api")
    _allow_many_sockets()
    server = Server(create_app(settings, redis), settings)
    # What was imported stays: the collector need not look through it again and again. So does, for
    # long, what followers are made of: with the default of 700 a quarter of a storm went into that.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    # Only now: several processes share in memory what was imported and built.
    server.run(open_sockets(settings))
    if server.lifespan.error_occurred:
        sys.exit(1)


if __name__ == "__main__":
    main()
