"""History is read once for all who need it at the same moment; on fakeredis and a virtual clock."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import fakeredis
import pytest

from api.followed import FollowedLog
from api.history import AT_ONCE, PATIENCE_S, History
from api.window import Window
from shared.errors import RecordUnreadable, StoreUnavailable
from shared.event_log import PAGE, EventLog, LogView, Question
from shared.events import Run
from shared.ids import BEGINNING, EntryId, GenerationId
from tests.support.stores import Stores, tokens
from tests.support.virtual_clock import run_virtual
from tests.support.wait import next_turn
from tests.support.windows import read_all


class GatedLog(EventLog):
    """Counts round trips, which wait for a gate."""

    def __init__(self, stores: Stores) -> None:
        super().__init__(stores.client, stores.keys)
        self.gate = asyncio.Event()
        self.gate.set()
        self.flights: list[list[Question]] = []
        self.read_back_from: list[EntryId] = []
        self.error: Exception | None = None

    async def view_all(self, questions: Iterable[Question]) -> list[LogView | RecordUnreadable]:
        asked = list(questions)
        self.flights.append(asked)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return await super().view_all(asked)

    async def read_back(
        self, generation: GenerationId, before: EntryId, count: int = PAGE
    ) -> list[Run]:
        self.read_back_from.append(before)
        return await super().read_back(generation, before, count)


class Scene:
    """Logs, and the history of them."""

    def __init__(self) -> None:
        connection = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2)
        self.stores = Stores(connection)
        self.log = GatedLog(self.stores)
        self.history = History(self.log)

    async def create(self, *texts: str) -> tuple[GenerationId, EntryId]:
        """A generation that has said something, and where it stands."""
        generation = await self.stores.create()
        last = (await self.stores.claim(generation, "w/1")).last_id
        return generation, await self.say(generation, last, *texts)

    async def say(self, generation: GenerationId, last: EntryId, *texts: str) -> EntryId:
        if not texts:
            return last
        said = tokens(last, *texts)
        await self.stores.append(generation, "w/1", said)
        return said[-1].id

    def ask(
        self, generation: GenerationId, after: EntryId = BEGINNING, limit: int = PAGE
    ) -> "asyncio.Task[LogView]":
        return asyncio.create_task(self.history.look(generation, after, limit))


def play(act: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        await act(Scene())

    run_virtual(main())


def test_who_asks_while_others_are_asked_for_goes_together() -> None:
    """However many followers, a round trip at a time, and one question for each log."""

    async def act(scene: Scene) -> None:
        (first, _), (second, _) = await scene.create("a"), await scene.create("b")
        scene.log.gate.clear()
        tasks = [scene.ask(first)]
        await next_turn()
        for _ in range(50):
            tasks += [scene.ask(first), scene.ask(second)]
        await next_turn()
        scene.log.gate.set()
        alone, *together = await asyncio.gather(*tasks)
        assert [[question.generation for question in asked] for asked in scene.log.flights] == [
            [first],
            [first, second],
        ]
        assert len(alone.entries) == 3
        assert all(not view.entries and view.record is not None for view in together)

    play(act)


def test_entries_are_on_their_way_to_one_at_a_time() -> None:
    """Whoever asks meanwhile, in whatever round trip, is told where the log stands."""

    async def act(scene: Scene) -> None:
        generation, _ = await scene.create("a")
        history = History(scene.log, lanes=2)
        for _ in range(2):
            scene.log.gate.clear()
            tasks = []
            for _ in range(2):
                tasks.append(asyncio.create_task(history.look(generation, BEGINNING)))
                await next_turn()
            scene.log.gate.set()
            views = await asyncio.gather(*tasks)
            assert [len(view.entries) for view in views] == [3, 0]
            assert views[0].last_id == views[1].last_id
        assert len(scene.log.flights) == 4
        # Two in one round trip are both sent to the window, and leave nothing behind.
        for wanted in ([0, 0], [3]):
            looks = [history.look(generation, BEGINNING) for _ in wanted]
            assert [len(view.entries) for view in await asyncio.gather(*looks)] == wanted

    play(act)


def test_an_answer_is_not_older_than_its_question() -> None:
    """Who asks while a read is under way is not given what that brings."""

    async def act(scene: Scene) -> None:
        generation, last = await scene.create("a")
        scene.log.gate.clear()
        first = scene.ask(generation)
        await next_turn()
        second = scene.ask(generation)
        await next_turn()
        new = await scene.say(generation, last, "b")
        scene.log.gate.set()
        await first
        assert (await second).last_id == new
        assert len(scene.log.flights) == 2

    play(act)


def test_who_asks_alone_is_given_what_lies_beyond_its_cursor() -> None:
    """As much of it as it wants."""

    async def act(scene: Scene) -> None:
        generation, last = await scene.create("a", "b", "c")
        for limit, wanted in ((PAGE, [2, 3]), (1, [2]), (0, [])):
            view = await scene.ask(generation, EntryId(last.epoch, 1), limit)
            assert [entry.id.seq for entry in view.entries] == wanted
            assert view.last_id == last
            assert view.record is not None

    play(act)


def test_a_flight_is_bounded() -> None:
    """Redis serves others between two of them."""

    async def act(scene: Scene) -> None:
        generations = [(await scene.create())[0] for _ in range(2 * AT_ONCE + 1)]
        views = await asyncio.gather(*[scene.ask(generation) for generation in generations])
        assert [len(asked) for asked in scene.log.flights] == [AT_ONCE, AT_ONCE, 1]
        assert all(view.record is not None for view in views)

    play(act)


def test_a_redis_that_is_away_fails_those_who_asked_then() -> None:
    """The next are asked for anew."""

    async def act(scene: Scene) -> None:
        generation, last = await scene.create()
        scene.log.error = StoreUnavailable("away")
        tasks = [scene.ask(generation), scene.ask(generation)]
        for task in tasks:
            with pytest.raises(StoreUnavailable):
                await task
        scene.log.error = None
        assert (await scene.ask(generation)).last_id == last

    play(act)


def test_who_waits_for_too_long_is_told_so() -> None:
    """A Redis that says nothing holds nobody for ever, nor those behind them."""

    async def act(scene: Scene) -> None:
        generation, last = await scene.create()
        scene.log.gate.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        first = scene.ask(generation)
        await next_turn()
        behind = [
            scene.ask(generation),
            asyncio.create_task(scene.history.read(generation, BEGINNING, last)),
        ]
        for task in (first, *behind):
            with pytest.raises(StoreUnavailable):
                await task
        assert loop.time() - began == pytest.approx(PATIENCE_S)
        scene.log.gate.set()
        assert (await scene.ask(generation)).record is not None

    play(act)


def test_who_leaves_takes_nobodys_answer_along() -> None:
    """A client that is gone cancels its own question only."""

    async def act(scene: Scene) -> None:
        generation, last = await scene.create()
        gone, stays = scene.ask(generation), scene.ask(generation)
        await next_turn()
        gone.cancel()
        assert (await stays).last_id == last

    play(act)


def test_a_window_reaches_back_once_for_all() -> None:
    """A hundred followers come back to a log: its past is read once, page by page."""

    async def act(scene: Scene) -> None:
        texts = [f"{number} " for number in range(2 * PAGE)]
        generation, last = await scene.create(*texts)
        followed = FollowedLog(b"log", Window(generation, last, 10_000_000))
        await asyncio.gather(*[scene.history.reach_back(followed) for _ in range(100)])
        assert len(scene.log.read_back_from) == 3
        assert followed.window.floor == BEGINNING
        told = read_all(followed.window, BEGINNING)
        assert told is not None
        assert told[-1].last_event_id == str(last)

    play(act)


def test_a_small_window_reaches_back_as_far_as_it_may() -> None:
    """Who is further behind reads Redis on its own."""

    async def act(scene: Scene) -> None:
        generation, last = await scene.create(*["x"] * PAGE)
        followed = FollowedLog(b"log", Window(generation, last, 20_000))
        for _ in range(2):
            await scene.history.reach_back(followed)
        assert len(scene.log.read_back_from) == 1
        assert EntryId(last.epoch, 0) < followed.window.floor < last

    play(act)
