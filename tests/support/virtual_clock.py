"""An event loop whose time passes only while nobody has anything to do.

    run_virtual(main())     # a back-off of an hour takes no time at all

For code without sockets (fakeredis has none). What waits for ever is found at once: where no task
can go on and no timer is set, the run fails instead of hanging.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _InstantSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Never blocks; the time it was told to block for is what the clock is moved by."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
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


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a virtual clock.

    Raises:
        AssertionError: every task waits, and no time-out would ever wake one.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
