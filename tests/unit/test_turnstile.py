"""A bounded number in each turn of the event loop, in order, and nobody is forgotten."""

import asyncio

from api.turnstile import Turnstile
from tests.support.virtual_clock import run_virtual
from tests.support.wait import next_turn

AT_ONCE = 3


def play(count: int, leaves: frozenset[int] = frozenset()) -> list[list[int]]:
    """Who went through in which turn, if so many come at once and some leave before their turn."""
    turns: list[list[int]] = []

    async def main() -> None:
        turnstile, ended = Turnstile(AT_ONCE), asyncio.Event()
        through: list[int] = []

        async def come(number: int) -> None:
            await turnstile.enter()
            through.append(number)

        async def watch() -> None:
            while not ended.is_set():
                seen = len(through)
                await next_turn()
                if through[seen:]:
                    turns.append(through[seen:])

        watching = asyncio.create_task(watch())
        comers = [asyncio.create_task(come(number)) for number in range(count)]
        await next_turn()
        for number in leaves:
            comers[number].cancel()
        await asyncio.wait(comers)
        await next_turn()
        ended.set()
        await watching

    run_virtual(main())
    return turns


def test_few_go_through_at_once() -> None:
    """No turn is lost where there is no storm."""
    assert play(2) == [[0, 1]]


def test_many_go_through_in_order_a_few_in_each_turn() -> None:
    """All others have their turn of the event loop in between."""
    turns = play(20)
    assert [number for turn in turns for number in turn] == list(range(20))
    assert max(len(turn) for turn in turns) == AT_ONCE


def test_who_leaves_while_it_waits_holds_nobody_up() -> None:
    """Its place goes to the next."""
    turns = play(12, leaves=frozenset({4, 5, 11}))
    assert [number for turn in turns for number in turn] == [0, 1, 2, 3, 6, 7, 8, 9, 10]


def test_it_is_open_again_after_a_storm() -> None:
    """Whoever comes later enters at once."""

    async def main() -> None:
        turnstile = Turnstile(AT_ONCE)
        await asyncio.gather(*[turnstile.enter() for _ in range(10)])
        for _ in range(3):
            await next_turn()
        for _ in range(AT_ONCE):
            entry = asyncio.ensure_future(turnstile.enter())
            await next_turn()
            assert entry.done()

    run_virtual(main())
