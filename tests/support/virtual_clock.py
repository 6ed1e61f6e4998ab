"""An event loop whose time passes only while nobody has anything to do.

    run_virtual(main())     # a back-off of an hour takes no time at all

For code without sockets (fakeredis has none). What waits for ever is found at once: where no task
can go on and no timer is set, the run fails instead of hanging; so does one that spins. Threads
that the loop itself started are waited for in real time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


MOST_TURNS = 20_000
"""No test of ours needs nearly as many turns of the loop; one that never comes to rest does."""


class _InstantSelector(selectors.DefaultSelector):
    """Blocks for threads only; else the time it was told to block for moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.threads = 0
        self.turns = 0

    def select(self, timeout: float | None = None) -> Any:
        self.turns = (self.turns + 1) % MOST_TURNS
        assert self.turns, "this goes on and on without coming to rest"
        ready = super().select(None if self.threads and timeout != 0 else 0)
        if not ready:
            assert timeout is not None, "every task waits for something that nobody will do"
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above. Its `time` begins at 0."""

    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now_s

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._instant.threads += 1
        future.add_done_callback(self._end_thread)
        return future

    def _end_thread(self, _: object) -> None:
        self._instant.threads -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self._instant.threads += 1
        await super().shutdown_default_executor()
        self._instant.threads -= 1


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a virtual clock.

    Raises:
        AssertionError: every task waits, and no time-out would ever wake one.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def pass_time(duration: timedelta) -> None:
    """Let the clock of a virtual loop go on; whatever can be done before then is done before."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(duration.total_seconds(), passed.set)
    await passed.wait()
