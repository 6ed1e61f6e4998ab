"""A whole Rejoin under test: a Redis, an API process, workers, and the stand-in as their model.

async with open_stack(workers=2, worker_env={"WORKER_LEASE": "1"}) as stack:
    generation = await stack.create("[standin tokens=50 pace=100] hello")
    stack.workers[0].kill()
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.support.api_client import ApiClient
from tests.support.processes import Process, free_port, open_process
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.wait import wait_until
from worker.standin import Ledger, Standin, StandinSettings, answer
from worker.standin.app import serve

MODEL = "standin"

SHORT_WATCH = {"WORKER_WATCH": "0.1"}
"""For tests that are not about writes that Redis loses: a job is gone soon after its end."""

WORKER_IS_UP = "worker_started"
"""What a worker logs once it takes jobs."""


def api_environment(redis_url: str, port: int, extra: Mapping[str, str]) -> dict[str, str]:
    """What an API process under test is told."""
    return {"REDIS_URL": redis_url, "API_PORT": str(port), **extra}


def worker_environment(redis_url: str, base_url: str, extra: Mapping[str, str]) -> dict[str, str]:
    """What a worker under test is told."""
    return {
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_MODEL": MODEL,
        **extra,
    }


def user(prompt: str) -> list[dict[str, Any]]:
    """The messages that a bare prompt stands for."""
    return [{"role": "user", "content": prompt}]


def expected_tokens(prompt: str, **options: Any) -> tuple[str, ...]:
    """What the stand-in says to a bare prompt, token by token."""
    return answer(MODEL, user(prompt), **options)


def expected_text(prompt: str, **options: Any) -> str:
    """The same as one text."""
    return "".join(expected_tokens(prompt, **options))


@asynccontextmanager
async def open_model(port: int) -> AsyncIterator[Standin]:
    """The stand-in in this event loop; as fast as it can where a prompt names no pace."""
    async with serve(StandinSettings(port=port, tokens_per_second=0)) as standin:
        yield standin


class Stack(ApiClient):
    """Everything that runs for one test. Its HTTP side is `ApiClient`."""

    def __init__(
        self,
        api_url: str,
        redis: RedisServer,
        standin: Standin,
        api: Process,
        workers: list[Process],
    ) -> None:
        super().__init__(api_url)
        self.redis = redis
        self.standin = standin
        self.api = api
        """The API process, `python -m api`."""
        self.workers = workers
        """The worker processes, `python -m worker`, dead ones included."""

    @property
    def ledger(self) -> Ledger:
        """Every request that the model had."""
        return self.standin.ledger

    async def wait_model_silent(self) -> None:
        """Wait until no provider call is open."""
        await wait_until(lambda: self.ledger.open == 0, "all provider calls to end")

    async def entries(self, generation: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The raw log."""
        async with self.redis.client() as client:
            found: list[tuple[bytes, dict[bytes, bytes]]] = await client.xrange(
                f"gen:{{{generation}}}:log"
            )
            return found

    async def keys(self, pattern: str = "*") -> list[str]:
        """Every key there is."""
        async with self.redis.client() as client:
            return sorted(key.decode() for key in await client.keys(pattern))

    async def generation_keys(self) -> list[str]:
        """Records and logs."""
        return await self.keys("gen:*")


class OwnStack(Stack):
    """A stack of the test's own, which may be killed, frozen, and grow."""

    def __init__(self, *args: Any, exits: AsyncExitStack, worker_env: Mapping[str, str]) -> None:
        super().__init__(*args)
        self._exits = exits
        self._worker_env = worker_env

    async def start_worker(self, **env: str) -> Process:
        """Start one more worker; ready when this returns."""
        told = worker_environment(
            self.redis.url, self.standin.base_url, {**self._worker_env, **env}
        )
        worker = await self._exits.enter_async_context(
            open_process("worker", told, ready=WORKER_IS_UP)
        )
        self.workers.append(worker)
        return worker


@asynccontextmanager
async def open_stack(
    *,
    workers: int = 1,
    aof: bool = False,
    api_env: Mapping[str, str] | None = None,
    worker_env: Mapping[str, str] | None = None,
) -> AsyncIterator[OwnStack]:
    """Start a Redis, the stand-in, an API and `workers`; all end with the block."""
    async with AsyncExitStack() as exits:
        redis = await exits.enter_async_context(open_redis_server(aof=aof))
        standin = await exits.enter_async_context(open_model(free_port()))
        port = free_port()
        api_url = f"http://127.0.0.1:{port}"
        told = api_environment(redis.url, port, api_env or {})
        api = await exits.enter_async_context(open_process("api", told, ready=f"{api_url}/healthz"))
        stack = OwnStack(api_url, redis, standin, api, [], exits=exits, worker_env=worker_env or {})
        for _ in range(workers):
            await stack.start_worker()
        yield stack
