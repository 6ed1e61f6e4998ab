"""The stand-in in process, and the official client on both of its HTTP backends."""

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI, DefaultAioHttpClient

from tests.support.sdk_client import KEY
from worker.standin import Standin, StandinSettings, open_standin


@pytest.fixture
async def standin() -> AsyncIterator[Standin]:
    async with open_standin(StandinSettings(tokens_per_second=0, tokens=40)) as standin:
        yield standin


@pytest.fixture(params=["httpx2", "aiohttp"])
async def client(request: pytest.FixtureRequest, standin: Standin) -> AsyncIterator[AsyncOpenAI]:
    http_client = DefaultAioHttpClient() if request.param == "aiohttp" else None
    async with AsyncOpenAI(
        api_key=KEY, base_url=standin.base_url, max_retries=0, http_client=http_client
    ) as client:
        yield client
