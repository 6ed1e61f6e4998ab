"""The responses that can be asked for again, by id."""

import asyncio
from collections import deque

from aiohttp import web

from worker.standin.responses.run import Run

CAPACITY = 1_000


class Runs:
    """All that run in the background, and the newest `capacity` of those that ended."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._runs: dict[str, Run] = {}
        self._ended: deque[str] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, response_id: str) -> Run | None:
        """The run, one that it has `forgotten` included; None if there never was one."""
        return self._runs.get(response_id)

    def start(self, run: Run) -> None:
        """Let it run in the background."""
        self._runs[run.id] = run
        task = run.start()
        self._tasks.add(task)

        def note_end(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            self._keep_ended(run)
            if not ended.cancelled():
                ended.result()

        task.add_done_callback(note_end)

    def keep(self, run: Run) -> None:
        """Keep one that ended over its connection."""
        self._runs[run.id] = run
        self._keep_ended(run)

    async def stop(self) -> None:
        """End all that run."""
        for run in self._runs.values():
            run.stop()
        tasks = self._tasks.copy()
        if tasks:
            await asyncio.wait(tasks)

    def _keep_ended(self, run: Run) -> None:
        self._ended.append(run.id)
        while len(self._ended) > self._capacity:
            del self._runs[self._ended.popleft()]


RUNS = web.AppKey("RUNS", Runs)
