"""Ways to stream a model to clients, whole: ours, the usual recipe, and without a queue at all.

Everything is a process of its own and speaks over sockets, to one stand-in for the model. What
answers a client speaks of `token` events and ends with `done` in all of them.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from tests.bench.wire import Ask, post
from tests.support.processes import Process, free_port, open_process
from tests.support.redis_server import open_redis_server
from tests.support.sse_reader import Event
from tests.support.stack import WORKER_IS_UP, api_environment, worker_environment

_BASELINES = "tests.bench.baselines"


class Stack(Protocol):
    """One way, running."""

    name: str
    processes: Mapping[str, Process]
    """Those that stand between the model and the client, by what they do: API, worker, Redis."""

    async def begin(self, prompt: str) -> Ask:
        """Have a prompt answered: what a client must ask to be sent the answer."""
        ...

    def read_text(self, event: Event) -> str:
        """The text of a `token` event."""
        ...


class RejoinStack:
    """`python -m api`, `python -m worker`, Valkey."""

    name = "**Rejoin**"

    def __init__(self, url: str, processes: Mapping[str, Process]) -> None:
        self._url = url
        self.processes = processes

    async def begin(self, prompt: str) -> Ask:
        """Create a generation."""
        answer = await post(f"{self._url}/v1/generations", {"prompt": prompt})
        path = json.loads(answer.partition(b"\r\n\r\n")[2])["events_url"]
        return Ask("GET", self._url + path)

    def read_text(self, event: Event) -> str:
        """Its data are an object."""
        text: str = json.loads(event.data)["text"]
        return text


class UsualStack:
    """`arq_api`, `arq_worker`, Valkey."""

    name = "arq as it comes + one XREAD per client"

    def __init__(self, url: str, processes: Mapping[str, Process]) -> None:
        self._url = url
        self.processes = processes

    async def begin(self, prompt: str) -> Ask:
        """Enqueue a job."""
        answer = await post(f"{self._url}/generations", {"prompt": prompt})
        generation = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]
        return Ask("GET", f"{self._url}/generations/{generation}/events")

    def read_text(self, event: Event) -> str:
        """Its data are the text."""
        return event.data


class DirectStack:
    """`direct_api`, which asks the model inside the request."""

    name = "direct: no queue, nothing to resume"

    def __init__(self, url: str, processes: Mapping[str, Process]) -> None:
        self._url = url
        self.processes = processes

    async def begin(self, prompt: str) -> Ask:
        """Nothing begins before the client asks."""
        return Ask("POST", f"{self._url}/chat", {"prompt": prompt})

    def read_text(self, event: Event) -> str:
        """Its data are the text."""
        return event.data


@dataclass(frozen=True, slots=True)
class Stacks:
    """All ways, and the model they ask."""

    model: Process
    model_url: str
    direct: DirectStack
    rejoin: RejoinStack
    usual: UsualStack


@asynccontextmanager
async def open_stacks(
    *, ours: Mapping[str, str], theirs: Mapping[str, str]
) -> AsyncIterator[Stacks]:
    """Start everything; `ours` and `theirs` are variables of the workers' environments."""
    async with AsyncExitStack() as exits:

        async def start(module: str, env: Mapping[str, str], ready: str) -> Process:
            return await exits.enter_async_context(open_process(module, dict(env), ready))

        model_url, rejoin, usual, direct = (f"http://127.0.0.1:{free_port()}" for _ in range(4))
        base_url = f"{model_url}/v1"
        openai = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-test"}
        env = {"STANDIN_PORT": _port(model_url)}
        model = await start("worker.standin", env, f"{model_url}/healthz")
        redis = await exits.enter_async_context(open_redis_server())
        env = api_environment(redis.url, int(_port(rejoin)), {})
        our_processes = {
            "API": await start("api", env, f"{rejoin}/healthz"),
            "worker": await start(
                "worker", worker_environment(redis.url, base_url, ours), WORKER_IS_UP
            ),
            "Redis": redis.process,
        }
        redis = await exits.enter_async_context(open_redis_server())
        env = {"REDIS_URL": redis.url, **openai, **theirs}
        worker = await start(f"{_BASELINES}.arq_worker", env, "worker started")
        env = {**env, "PORT": _port(usual)}
        their_processes = {
            "API": await start(f"{_BASELINES}.arq_api", env, f"{usual}/healthz"),
            "worker": worker,
            "Redis": redis.process,
        }
        env = {**openai, "PORT": _port(direct)}
        api = await start(f"{_BASELINES}.direct_api", env, f"{direct}/healthz")
        yield Stacks(
            model,
            model_url,
            DirectStack(direct, {"API": api}),
            RejoinStack(rejoin, our_processes),
            UsualStack(usual, their_processes),
        )


def _port(url: str) -> str:
    return str(urlsplit(url).port)
