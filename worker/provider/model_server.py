"""One model server: how it is asked, by either API, and how a run of it is ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from shared.errors import ProviderRefused, ProviderUnreachable
from shared.generation import Upstream
from worker.provider import chat_completions, responses
from worker.provider.answer import silent
from worker.provider.chat_completions import ChatStream
from worker.provider.refusals import name_refusal
from worker.provider.responses import RunStream, translate_usage
from worker.settings import ProviderSettings, WorkerSettings

CONTROL_TIMEOUT: Final = timedelta(seconds=5)
"""For requests that answer at once: ending a run, asking what it cost."""


class ModelServer:
    """Asks once, never again by itself, and closes the connection on every way out."""

    def __init__(self, client: AsyncOpenAI, settings: WorkerSettings) -> None:
        self._client = client
        self._settings = settings

    @asynccontextmanager
    async def open_answer(self, request: dict[str, Any], model: str) -> AsyncIterator[ChatStream]:
        """Ask for an answer that ends with its connection.

        Raises: ProviderRefused, ProviderUnreachable, ProviderSilent.
        """
        body = chat_completions.build_body(request, model)
        async with self._open("post", chat_completions.PATH, body=body) as (chunks, first_by):
            yield ChatStream(chunks, first_by, self._settings)

    @asynccontextmanager
    async def open_run(self, body: dict[str, Any]) -> AsyncIterator[RunStream]:
        """Ask for an answer that goes on by itself. Raises: as `open_answer`."""
        async with self._open("post", responses.PATH, body=body) as (chunks, first_by):
            yield RunStream(chunks, first_by, self._settings)

    @asynccontextmanager
    async def rejoin_run(self, run: Upstream, tool_calls: int) -> AsyncIterator[RunStream]:
        """Read on behind what the log has of a run. Raises: as `open_answer`.

        `tool_calls`: how many calls the log has.
        """
        query = {"stream": "true"}
        if run.at is not None:
            query["starting_after"] = str(run.at)
        path = f"{responses.PATH}/{run.id}"
        async with self._open("get", path, query=query) as (chunks, first_by):
            yield RunStream(chunks, first_by, self._settings, tool_calls)

    async def cancel_run(self, run_id: str) -> dict[str, Any] | None:
        """End a run, and return what it cost, if the server says. Raises: ProviderError.

        One that has ended, or that the server does not know any more, needs no end.
        """
        path = f"{responses.PATH}/{run_id}"
        try:
            try:
                reply = await self._call("post", f"{path}/cancel")
            except openai.BadRequestError:
                reply = await self._call("get", path)
        except TimeoutError:
            raise silent(has_begun=False) from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            refusal = _name(error)
            if isinstance(refusal, ProviderRefused) and not refusal.retryable:
                return None
            raise refusal from error
        return translate_usage(reply) if isinstance(reply, dict) else None

    async def _call(self, method: str, path: str) -> object:
        async with asyncio.timeout(CONTROL_TIMEOUT.total_seconds()):
            call = self._client.post if method == "post" else self._client.get
            reply: object = await call(path, cast_to=object)
            return reply

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
    ) -> AsyncIterator[tuple[AsyncStream[object], float]]:
        """Open a response of chunks; also returns when the first token must have come."""
        first_by = asyncio.get_running_loop().time() + (
            self._settings.first_token_timeout / timedelta(seconds=1)
        )
        try:
            async with asyncio.timeout_at(first_by):
                if method == "post":
                    chunks = await self._client.post(
                        path,
                        cast_to=object,
                        body=body,
                        stream=True,
                        stream_cls=AsyncStream[object],
                    )
                else:
                    chunks = await self._client.get(
                        path,
                        cast_to=object,
                        options={"params": query or {}},
                        stream=True,
                        stream_cls=AsyncStream[object],
                    )
        except TimeoutError:
            raise silent(has_begun=False) from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            raise _name(error) from error
        async with chunks:
            yield chunks, first_by


def _name(error: openai.OpenAIError | httpx2.HTTPError | ValueError) -> Exception:
    if isinstance(error, httpx2.HTTPError):
        return ProviderUnreachable(
            "provider_unreachable", "The model server cannot be reached.", True, str(error)
        )
    return name_refusal(error)


@asynccontextmanager
async def open_model_server(
    provider: ProviderSettings, settings: WorkerSettings
) -> AsyncIterator[ModelServer]:
    """Open the one client of this process. Its own time-outs and retries are off: ours bound it."""
    async with AsyncOpenAI(
        api_key=provider.api_key.get_secret_value() or "unset",
        base_url=provider.base_url,
        max_retries=0,
        timeout=None,
        http_client=DefaultAioHttpClient(
            timeout=None,
            limits=httpx2.Limits(
                # Without a bound, which is 0 to aiohttp, where None is its own of 100: the slots
                # bound it, and a run that is cancelled may need one more connection.
                max_connections=0,
                max_keepalive_connections=settings.max_generations,
            ),
        ),
    ) as client:
        yield ModelServer(client, settings)
