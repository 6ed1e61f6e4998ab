"""Where history ends and live begins, nothing falls between and nothing is told twice.

The log grows at exactly that moment: after a follower's history was read, before it is live.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields

import pytest

from api.dependencies import Held
from api.followed import FollowedLog
from api.sse import Dialect
from api.tail import Tail, TailSettings
from shared.connections import Client
from shared.event_log import GenerationView
from shared.generation import Surface
from shared.ids import EntryId, GenerationId
from tests.support.api_process import ApiProcess
from tests.support.author import token
from tests.support.cutting_proxy import open_cutting_proxy
from tests.support.follower import Follower
from tests.support.reading import Reading
from tests.support.wait import wait_until

AT_ONCE = 20
"""Logs that are being read at the same time."""


class LosesOne(Tail):
    """Broken on purpose: the first entry after the history is lost."""

    async def _begin(self, followed: FollowedLog) -> bytes:
        history = await super()._begin(followed)
        self._cursor = self._cursor.successor
        return history


class RepeatsOne(Tail):
    """Broken on purpose: the last entry of the history is told again."""

    async def _begin(self, followed: FollowedLog) -> bytes:
        history = await super()._begin(followed)
        self._cursor = EntryId(self._cursor.epoch, self._cursor.seq - 1)
        return history


@dataclass(frozen=True, slots=True)
class HeldAtTheSwitch(Held):
    """What the process holds, with a hand in the log right after its history was read."""

    at_switch: dict[GenerationId, list[Callable[[], Awaitable[None]]]] = field(default_factory=dict)
    """What is to happen at the switches of a log, in turn."""
    tails: type[Tail] = Tail

    async def look(self, generation: GenerationId, cursor: EntryId) -> GenerationView:
        view = await Held.look(self, generation, cursor)
        if steps := self.at_switch.get(generation):
            await steps.pop(0)()
            if (followed := self.hub.find(generation)) is not None:
                # In company: what was said is in memory when the history has been told.
                last_id = (await self.event_log.view(generation)).last_id
                await wait_until(lambda: followed.window.last_id >= last_id, "the hub to read it")
        return view

    def tail(self, generation: GenerationId, dialect: Dialect) -> Tail:
        return self.tails(
            generation,
            dialect,
            hub=self.hub,
            history=self.history,
            store=self.store,
            settings=TailSettings(self.settings.heartbeat, self.settings.repair_wait),
        )


def hold_the_switch(api: ApiProcess, tails: type[Tail] = Tail) -> HeldAtTheSwitch:
    """Every request of `api` from now on is answered through this."""
    own = {each.name: getattr(api.held, each.name) for each in fields(Held)}
    switch = HeldAtTheSwitch(**own, tails=tails)
    api.app.state.held = switch
    return switch


async def read_past(follower: Follower, text: str) -> None:
    """Read until some text has come, or the connection was cut."""
    async for event in follower:
        if text in event.data:
            return


async def check_switches(
    api: ApiProcess, switch: HeldAtTheSwitch, reading: Reading, cut: int | None = None
) -> int:
    """Read a log that grows at the first connection's switch, live, and at the second's switch.

    Returns how many bytes the first one had. Raises AssertionError if anything was read wrongly.
    """
    author = reading.author

    async def grow() -> None:
        await author.say(token("at the"), token(" first\nswitch"))

    async def end() -> None:
        await author.say(token("at the second"))
        await author.close()

    switch.at_switch[author.generation] = [grow, end]
    async with (
        open_cutting_proxy("127.0.0.1", api.port, cuts=[cut], counting="body") as proxy,
        reading.open(proxy.url) as first,
    ):
        await read_past(first, "switch")
        await author.say(token("live"))
        await read_past(first, "live")
        first.cut()
        await reading.check(await reading.resume(api.api_url, first))
        return proxy.connections[0].counted_bytes


@pytest.mark.parametrize(("surface", "company"), [(Surface.NATIVE, True), (Surface.CHAT, False)])
async def test_a_cut_at_any_byte_around_the_switch_loses_nothing(
    api: ApiProcess, client: Client, surface: Surface, company: bool
) -> None:
    """Cut at every byte of a log that grows at the switch, its reader has it whole and once.

    In company of a follower who came before, the live entries are in memory already.
    """
    switch = hold_the_switch(api)
    room = asyncio.Semaphore(AT_ONCE)

    async def read(cut: int | None) -> int:
        reading = await Reading.begin(client, surface)
        async with room, AsyncExitStack() as exits:
            if company:
                await exits.enter_async_context(reading.open(api.api_url))
            return await check_switches(api, switch, reading, cut)

    length = await read(None)
    async with asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(read(cut)) for cut in range(length)]

    assert list(range(length)) == [each.result() for each in reads]


@pytest.mark.parametrize("tails", [LosesOne, RepeatsOne])
@pytest.mark.parametrize("surface", list(Surface))
async def test_the_oracle_notices_a_tail_that_is_wrong_at_the_switch(
    api: ApiProcess, client: Client, surface: Surface, tails: type[Tail]
) -> None:
    """The test above fails for a tail that loses or repeats a single entry at the switch."""
    switch = hold_the_switch(api, tails)
    with pytest.raises(AssertionError, match=r"I2|the text is not what was said"):
        await check_switches(api, switch, await Reading.begin(client, surface))
