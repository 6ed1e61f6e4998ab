"""The processes that die and are replaced: workers and APIs, and what happened to each when."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from math import inf

from tests.chaos.asks import LADDER
from tests.support.processes import Process, free_port, open_process
from tests.support.stack import WORKER_IS_UP, api_environment, worker_environment

DRAIN_S = 3.0
"""What a worker told to end gives its generations: less than most take, so that it hands over."""

_END_S = 20.0


@dataclass(slots=True)
class Worker:
    """One worker process; its name is never used again."""

    name: str
    process: Process
    hits: list[tuple[float, float]] = field(default_factory=list)
    """When something was done to it that ends its hold on what it runs: from, until."""

    def was_hit(self, since: float, until: float = inf) -> bool:
        """Whether that was so at any time between the two."""
        return any(begin <= until and end >= since for begin, end in self.hits)


@dataclass(frozen=True, slots=True)
class Told:
    """A worker said something of a generation."""

    worker: Worker
    at: float


class Workers:
    """Two workers; one that dies is replaced at once, by a process with another name."""

    def __init__(self, redis_url: str, base_url: str, exits: AsyncExitStack) -> None:
        self._redis_url, self._base_url, self._exits = redis_url, base_url, exits
        self.running: dict[str, Worker] = {}
        """Those that nothing is being done to."""
        self.all: list[Worker] = []
        self._names = count()

    async def start(self) -> None:
        """Start one more."""
        name = f"worker{next(self._names)}"
        told = {
            "WORKER_NAME": name,
            "WORKER_MAX_DEATHS": "50",
            "WORKER_DRAIN": str(DRAIN_S),
            "WORKER_LADDER": json.dumps(LADDER),
        }
        env = worker_environment(self._redis_url, self._base_url, told)
        process = await self._exits.enter_async_context(open_process("worker", env, WORKER_IS_UP))
        self.running[name] = Worker(name, process)
        self.all.append(self.running[name])

    def kill(self, name: str) -> None:
        """SIGKILL; the next one is for the caller to start."""
        worker = self.running.pop(name)
        worker.hits.append((time.time(), inf))
        worker.process.kill()

    def freeze(self, name: str) -> Worker:
        """SIGSTOP; it counts as hit until `thaw`."""
        worker = self.running.pop(name)
        worker.hits.append((time.time(), inf))
        worker.process.freeze()
        return worker

    def thaw(self, worker: Worker) -> None:
        """SIGCONT."""
        worker.process.thaw()
        worker.hits[-1] = (worker.hits[-1][0], time.time())
        self.running[worker.name] = worker

    async def end(self, name: str) -> None:
        """SIGTERM; it ends by itself and in order."""
        worker = self.running.pop(name)
        worker.hits.append((time.time(), inf))
        await end_in_order(worker.process)

    def told(self, event: str) -> Mapping[str, Sequence[Told]]:
        """What the workers' own logs say under that name, by generation and in order."""
        found: dict[str, list[Told]] = defaultdict(list)
        for worker in self.all:
            for line in worker.process.lines:
                if f'"event": "{event}"' in line:
                    said = json.loads(line)
                    at = datetime.fromisoformat(said["timestamp"]).timestamp()
                    found[said["generation"]].append(Told(worker, at))
        for lines in found.values():
            lines.sort(key=lambda told: told.at)
        return found


class Apis:
    """API processes, each always at its own address."""

    def __init__(self, redis_url: str, number: int, exits: AsyncExitStack) -> None:
        self._redis_url, self._exits = redis_url, exits
        self.addresses = [f"http://127.0.0.1:{free_port()}" for _ in range(number)]
        self.running: dict[str, Process] = {}

    async def start(self, address: str) -> None:
        """Start the one at that address."""
        env = api_environment(self._redis_url, int(address.rpartition(":")[2]), {})
        self.running[address] = await self._exits.enter_async_context(
            open_process("api", env, f"{address}/healthz")
        )


async def end_in_order(process: Process) -> None:
    """Tell it to end. Raises: AssertionError, it did not, or not in order."""
    process.terminate()
    status = await process.wait(_END_S)
    assert status == 0, f"I8: ended with {status} when told to end:\n{process.output}"
