"""The route of a follow: who is gone is not served."""

from typing import Any

from fastapi import FastAPI

from api.events import FollowRoute
from api.server import CONNECTION
from shared.ids import draw_generation_id


class Gone:
    """A connection whose client has left."""

    is_lost = True


async def test_who_left_while_it_waited_for_its_turn_is_not_read_for() -> None:
    """In a storm the dead would be served before the living: there is not even a store to ask."""
    app = FastAPI()
    app.state.held = None
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/v1/generations/{draw_generation_id()}/events",
        "headers": [],
        "query_string": b"",
        "extensions": {CONNECTION: Gone()},
    }

    async def receive() -> dict[str, Any]:
        raise AssertionError("nobody is there to say anything")

    async def send(message: Any) -> None:
        raise AssertionError(f"nobody is there to hear {message}")

    await FollowRoute(app)(scope, receive, send)
