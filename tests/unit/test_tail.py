"""One reader of one log, on fakeredis and a virtual clock: history, live, reset, end, drain."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import timedelta

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.history import History
from api.hub import Hub
from api.sse import CHAT, NATIVE, Dialect
from api.tail import Tail, TailSettings
from shared.events import Entry, EventType
from shared.ids import BEGINNING, EntryId, GenerationId, parse_entry_id
from tests.support.fold import Folded, fold, fold_log
from tests.support.sse_reader import Event, SseReader
from tests.support.stores import Stores, tokens
from tests.support.virtual_clock import pass_time, run_virtual

HEARTBEAT = timedelta(seconds=15)
REPAIR_WAIT = timedelta(seconds=3)


class Scene:
    """A store, and a hub that polls it."""

    def __init__(self, window_bytes: int) -> None:
        connection = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2)
        self.stores = Stores(connection)
        poll = timedelta(milliseconds=50)
        self.hub = Hub(
            self.stores.client, self.stores.keys, None, window_bytes=window_bytes, poll=poll
        )
        self.generation: GenerationId
        self.last: EntryId

    async def claim(self, token: str, *, reset: bool = False) -> None:
        self.last = (await self.stores.claim(self.generation, token, reset=reset)).last_id

    async def say(self, token: str, *texts: str) -> None:
        entries = tokens(self.last, *texts)
        await self.stores.append(self.generation, token, entries)
        self.last = entries[-1].id

    async def end(self, token: str) -> None:
        done = Entry(self.last.successor, EventType.DONE, b"{}")
        await self.stores.close(self.generation, token, done)

    async def frames(
        self, cursor: EntryId = BEGINNING, dialect: Dialect = NATIVE
    ) -> AsyncGenerator[bytes, None]:
        """What a follower gets from here on."""
        tail = Tail(
            self.generation,
            dialect,
            hub=self.hub,
            history=History(self.stores.log),
            store=self.stores.store,
            settings=TailSettings(HEARTBEAT, REPAIR_WAIT),
        )
        view = await self.stores.log.view(self.generation, cursor)
        frames = tail.frames(view, cursor)
        assert isinstance(frames, AsyncGenerator)
        async with aclosing(frames):
            async for frame in frames:
                yield frame

    async def read(self, cursor: EntryId = BEGINNING, until: str = "") -> list[Event]:
        """All events beyond the cursor, to the end, or up to the first of a type."""
        reader, events = SseReader(), list[Event]()
        async with aclosing(self.frames(cursor)) as frames:
            async for frame in frames:
                events += reader.feed(frame)
                if until and any(event.type == until for event in events):
                    break
        return events


def play(act: Callable[[Scene], Awaitable[None]], window_bytes: int = 10_000) -> None:
    async def main() -> None:
        scene = Scene(window_bytes)
        scene.generation = await scene.stores.create()
        running = asyncio.create_task(scene.hub.run())
        try:
            await act(scene)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    run_virtual(main())


async def truth(scene: Scene) -> Folded:
    return fold_log(await scene.stores.entries(scene.generation))


attempts = st.lists(
    st.tuples(st.booleans(), st.lists(st.text("ab\n", max_size=2), max_size=4)),
    min_size=1,
    max_size=3,
)


@given(attempts, st.lists(st.integers(0, 9), max_size=4), st.sampled_from([1, 40, 10_000]))
def test_wherever_a_reader_is_cut_it_ends_up_with_the_log(
    attempts: list[tuple[bool, list[str]]], cuts: list[int], window_bytes: int
) -> None:
    """Resumed after any number of events, any number of times, it holds what the log says."""

    async def act(scene: Scene) -> None:
        for number, (reset, texts) in enumerate(attempts):
            await scene.claim(f"w{number}/1", reset=reset)
            if texts:
                await scene.say(f"w{number}/1", *texts)
        await scene.end(f"w{len(attempts) - 1}/1")
        got: list[Event] = []
        for cut in cuts:
            if got and got[-1].type == "done":
                break
            cursor = parse_entry_id(got[-1].last_event_id) if got else BEGINNING
            got += (await scene.read(cursor))[:cut]
        if not (got and got[-1].type == "done"):
            got += await scene.read(parse_entry_id(got[-1].last_event_id) if got else BEGINNING)
        assert fold(got) == await truth(scene)

    play(act, window_bytes)


def test_a_follower_hears_live_what_is_appended_later() -> None:
    """From history into the present without gap or overlap, up to the closing event."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        await scene.say("w/1", "a", "b")
        reading = asyncio.create_task(scene.read())
        for text in "cde":
            await pass_time(timedelta(milliseconds=70))
            await scene.say("w/1", text)
        await scene.end("w/1")
        assert fold(await reading) == await truth(scene)

    play(act)


def test_a_follower_that_fell_out_of_the_window_reads_the_log() -> None:
    """However little is kept, and however much comes at once."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        reading = asyncio.create_task(scene.read())
        await pass_time(timedelta(milliseconds=70))
        await scene.say("w/1", *(f"{number} " for number in range(700)))
        await scene.end("w/1")
        assert fold(await reading) == await truth(scene)

    play(act, window_bytes=1)


def test_a_silent_log_is_told_by_heartbeats() -> None:
    """One after each pause without traffic."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        loop = asyncio.get_running_loop()
        await scene.read(until="heartbeat")
        assert loop.time() == pytest.approx(HEARTBEAT.total_seconds())

    play(act)


def test_a_draining_server_says_so_and_ends() -> None:
    """The cursor stays; the reader comes back elsewhere."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        reading = asyncio.create_task(scene.read())
        await pass_time(timedelta(seconds=1))
        scene.hub.drain()
        events = await reading
        assert [event.type for event in events] == ["queued", "started", "reconnect"]

    play(act)


def test_a_late_reader_is_spared_what_a_reset_takes_back() -> None:
    """Its history starts at the last reset."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        await scene.say("w/1", "lost")
        await scene.claim("v/1", reset=True)
        await scene.say("v/1", "kept")
        await scene.end("v/1")
        events = await scene.read()
        assert [event.type for event in events] == ["reset", "token", "done"]

    play(act)


def test_a_deadline_that_passed_is_closed_by_whoever_follows() -> None:
    """A reader of a generation that nobody runs gets its end."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        reading = asyncio.create_task(scene.read())
        await pass_time(timedelta(seconds=1))
        await scene.stores.pass_deadline(scene.generation)
        events = await reading
        assert (events[-1].type, fold(events)) == ("failed", await truth(scene))

    play(act)


def test_a_reader_ahead_of_its_log_waits_for_the_repair() -> None:
    """The owner appends the same entries again: no reset, nothing twice."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        start = scene.last
        await scene.say("w/1", "a")
        moment = await scene.stores.snapshot(scene.generation)
        await scene.say("w/1", "b")
        cursor = scene.last
        await scene.stores.roll_back(scene.generation, moment)
        reading = asyncio.create_task(scene.read(cursor))
        await pass_time(REPAIR_WAIT / 2)
        await scene.stores.append(scene.generation, "w/1", tokens(start, "a", "b", "c")[1:])
        scene.last = scene.last.successor
        await scene.end("w/1")
        events = await reading
        assert [event.type for event in events] == ["token", "done"]
        assert (await truth(scene)).text == "abc"

    play(act)


def test_a_reader_whose_cursor_no_one_repairs_is_told_to_forget() -> None:
    """`reset` under 0-0, then the log as it is, within the time for a repair."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        moment = await scene.stores.snapshot(scene.generation)
        await scene.say("w/1", "lost")
        cursor = scene.last
        await scene.stores.roll_back(scene.generation, moment)
        await scene.claim("v/1")
        await scene.say("v/1", "new")
        await scene.end("v/1")
        events = await scene.read(cursor)
        assert (events[0].type, events[0].last_event_id) == ("reset", "0-0")
        assert fold(events) == await truth(scene)
        assert asyncio.get_running_loop().time() < 1

    play(act)


@pytest.mark.parametrize(
    ("taken_over", "earliest"),
    [(False, REPAIR_WAIT), (True, timedelta(0))],
    ids=["its owner is silent", "its owner was replaced"],
)
def test_a_reader_waits_for_a_repair_no_longer_than_there_may_be_one(
    taken_over: bool, earliest: timedelta
) -> None:
    """Lease and mark for the cursor's own owner; not at all where another one has the log."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        moment = await scene.stores.snapshot(scene.generation)
        await scene.say("w/1", *"lost")
        cursor = scene.last
        await scene.stores.roll_back(scene.generation, moment)
        if taken_over:
            epoch = cursor.epoch - 1
            await scene.stores.client.call(
                "HSET", scene.stores.keys.record(scene.generation), "epoch", epoch
            )
        events = await scene.read(cursor, until="started")
        assert [event.type for event in events] == ["reset", "queued", "started"]
        waited = asyncio.get_running_loop().time()
        assert earliest.total_seconds() - 0.001 <= waited < earliest.total_seconds() + 0.5

    play(act)


def test_a_chat_whose_cursor_is_lost_fails_and_ends() -> None:
    """It cannot be told to forget, so it is told that it failed."""

    async def act(scene: Scene) -> None:
        async with aclosing(scene.frames(EntryId(1, 1), CHAT)) as frames:
            told = b"".join([frame async for frame in frames])
        assert [event.type for event in SseReader().feed(told)] == ["failed"]

    play(act)
