"""The HTTP surface at one address, in the words of the tests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.support.fold import Folded, fold
from tests.support.follower import Follower


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response that is not a stream. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def follow_path(generation: str) -> str:
    """Where the events of a generation are."""
    return f"/v1/generations/{generation}/events"


def chat_path(prompt: str, **query: str) -> str:
    """The one call that creates, streams and resumes."""
    return f"/chat/stream?{urlencode({'prompt': prompt, **query})}"


class ApiClient:
    """What a client of Rejoin can ask for."""

    def __init__(self, api_url: str) -> None:
        self.api_url = api_url

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request with a whole answer. `body` is bytes as they are, or a value sent as JSON."""
        wanted = {"accept": "application/json", **(headers or {})}
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            wanted = {"content-type": "application/json", **wanted}
        request = Follower(self.api_url, path, method=method, headers=wanted, body=data)
        async with request as answer:
            return Reply(answer.status, answer.headers, await answer.read_body())

    async def post(
        self, body: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """POST /v1/generations, whatever comes of it."""
        wanted = {**({"idempotency-key": key} if key is not None else {}), **(headers or {})}
        return await self.call("POST", "/v1/generations", body, wanted)

    async def create(self, prompt: str, *, key: str | None = None, **parameters: Any) -> str:
        """Have a generation accepted; its id."""
        reply = await self.post({"prompt": prompt, **parameters}, key=key)
        assert reply.status == 202, reply
        generation = reply.json["id"]
        assert isinstance(generation, str)
        return generation

    async def snapshot(self, generation: str) -> dict[str, Any]:
        """What there is of it now."""
        reply = await self.call("GET", f"/v1/generations/{generation}")
        assert reply.status == 200, reply
        shown: dict[str, Any] = reply.json
        return shown

    async def cancel(self, generation: str) -> Reply:
        return await self.call("POST", f"/v1/generations/{generation}/cancel")

    async def delete(self, generation: str) -> Reply:
        return await self.call("DELETE", f"/v1/generations/{generation}")

    def follow(self, generation: str, cursor: str = "", **options: Any) -> Follower:
        """Follow its native events; `options` are the follower's."""
        return Follower(self.api_url, follow_path(generation), cursor, **options)

    def chat(self, prompt: str, cursor: str = "", *, key: str | None = None) -> Follower:
        """Ask on `/chat/stream` as `EventSource` would."""
        query = {"key": key} if key is not None else {}
        return Follower(self.api_url, chat_path(prompt, **query), cursor)

    async def read(self, generation: str, cursor: str = "") -> Folded:
        """Follow to the closing event and fold what was read."""
        async with self.follow(generation, cursor) as follower:
            assert follower.status == 200
            return fold(await follower.read_to_end(), cursor)
