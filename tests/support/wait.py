"""Waiting for a condition: the only place of the tests that may sleep.

A test says *what* it waits for, never *how long*: the time-out is only the moment at which it
gives up, and it gives up with the sentence the test supplied and the value it saw last.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar, cast, overload

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 10.0

# Short at first, so that what is already nearly true costs nothing; then gentle to the CPU that
# the processes under test share with us.
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.02


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _gave_up(describe: str, timeout_s: float, last: object) -> AssertionError:
    return AssertionError(f"gave up after {timeout_s:g} s waiting for {describe}; last: {last!r}")


@overload
async def wait_until(
    predicate: Callable[[], Awaitable[T | None]],
    describe: str,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> T: ...


@overload
async def wait_until(
    predicate: Callable[[], T | None], describe: str, timeout_s: float = DEFAULT_TIMEOUT_S
) -> T: ...


async def wait_until(
    predicate: Callable[[], object], describe: str, timeout_s: float = DEFAULT_TIMEOUT_S
) -> object:
    """Return the first truthy value of `predicate`, which may be sync or async.

    `describe` completes the sentence "gave up waiting for …". What the predicate raises is
    passed on at once: a predicate that knows that its condition can never come true says so.

    Raises:
        AssertionError: `timeout_s` passed, or an async predicate hung for as long.
    """
    last: object = "(the predicate never returned)"
    bound = asyncio.timeout(timeout_s)
    try:
        async with bound:
            for pause in _pauses():
                value = predicate()
                last = await cast(Awaitable[object], value) if inspect.isawaitable(value) else value
                if last:
                    return last
                await asyncio.sleep(pause)
    except TimeoutError:
        if not bound.expired():
            raise  # the predicate's own
    raise _gave_up(describe, timeout_s, last)


def wait_until_blocking(
    predicate: Callable[[], T | None], describe: str, timeout_s: float = DEFAULT_TIMEOUT_S
) -> T:
    """`wait_until` for session fixtures, which have no event loop."""
    gives_up_at = time.monotonic() + timeout_s
    for pause in _pauses():
        value = predicate()
        if value:
            return value
        if time.monotonic() >= gives_up_at:
            break
        time.sleep(pause)
    raise _gave_up(describe, timeout_s, value)


async def next_turn() -> None:
    """Give every other task that is ready one turn of the loop; no time passes."""
    await asyncio.sleep(0)


@asynccontextmanager
async def within(timeout_s: float, describe: Callable[[], str]) -> AsyncIterator[None]:
    """Bound a wait: a time-out here is a failed expectation, told with what had come so far."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise AssertionError(f"{describe()} within {timeout_s:g} s") from None
