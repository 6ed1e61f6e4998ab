"""wait_until waits for what it was told, and gives up with what it saw."""

import asyncio

import pytest

from tests.support.wait import wait_until, wait_until_blocking


async def test_wait_until_returns_the_truthy_value() -> None:
    """The value that ended the wait is handed out."""
    values = iter([None, "", "ready"])
    assert await wait_until(lambda: next(values), "a value") == "ready"


async def test_wait_until_takes_an_async_predicate() -> None:
    """What the predicate awaits counts, not the awaitable."""
    values = iter([0, 0, 3])

    async def predicate() -> int:
        return next(values)

    assert await wait_until(predicate, "three") == 3


async def test_wait_until_lets_the_loop_run() -> None:
    """What other tasks do while waiting is seen."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    assert await wait_until(done.is_set, "the event") is True


async def test_wait_until_gives_up_with_description_and_last_value() -> None:
    """The message says what was waited for and what was there instead."""
    with pytest.raises(AssertionError, match=r"waiting for seven jobs; last: \[\]"):
        await wait_until(list, "seven jobs", timeout_s=0.01)


async def test_wait_until_gives_up_on_a_hanging_predicate() -> None:
    """A predicate that never returns does not hold the test for ever."""

    async def hangs() -> bool:
        return await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="never returned"):
        await wait_until(hangs, "nothing", timeout_s=0.01)


async def test_wait_until_passes_errors_of_the_predicate_on() -> None:
    """A TimeoutError of the predicate's own is not mistaken for ours."""

    def fails() -> bool:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await wait_until(fails, "nothing")


def test_wait_until_blocking_does_the_same_without_a_loop() -> None:
    """Session fixtures wait by the same rules."""
    values = iter([None, 5])
    assert wait_until_blocking(lambda: next(values), "five") == 5
    with pytest.raises(AssertionError, match="waiting for a pony; last: False"):
        wait_until_blocking(lambda: False, "a pony", timeout_s=0.01)
