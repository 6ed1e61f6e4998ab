"""One ownership of a generation, on fakeredis and a virtual clock, before a server of runs.

    server = RunServer([text("a"), text("b"), ended("completed")])

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create()
        assert await owning.own(generation).run() is Outcome.FINISHED

    play_owning(server, act)

What a test lets go wrong in between it says by `log.is_away`, `store.before_claim`, `server.gate`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import fakeredis
import httpx2

from shared.connections import Command
from shared.errors import StoreUnavailable
from shared.event_log import AppendReply, EventLog
from shared.generation import Upstream
from shared.generation_store import Claim, Closed, GenerationStore, Leftover
from shared.ids import EntryId, GenerationId
from shared.queue import Lease
from tests.support.fold import Folded, fold_log
from tests.support.scripted_model import Piece, ScriptedModel, Told, connected, created, frames
from tests.support.stores import Stores, tokens
from tests.support.virtual_clock import pass_time, run_virtual
from tests.support.wait import next_turn
from worker.flusher import Flusher
from worker.generate import Ownership
from worker.outcome import Outcome
from worker.settings import WorkerSettings
from worker.tools import Tools

PATH = "/v1/responses"
LONG = timedelta(seconds=600)

_STREAM = {"content-type": "text/event-stream"}

Cut = tuple[int, Piece]
"""Behind which event a connection ends, and how: BREAK or SILENCE."""


class RunServer(ScriptedModel):
    """Each POST begins the next run, `resp_1`, `resp_2`, …; each GET reads one on."""

    def __init__(self, *runs: Sequence[Told], cuts: Iterable[Cut] = ()) -> None:
        """`cuts`: for each connection in turn; those that follow hear everything."""
        super().__init__([])
        self.gate: asyncio.Event | None = None
        """What a POST waits for, if anything."""
        self.end_gate: asyncio.Event | None = None
        """What a request to end a run waits for."""
        self.ended: list[str] = []
        """The runs that somebody had ended."""
        self.begun: list[str] = []
        self.read_from: list[int | None] = []
        """Behind which event each GET wanted to go on."""
        self._runs = [
            [created(f"resp_{number}"), *told] for number, told in enumerate(runs, start=1)
        ]
        self._cuts = list(cuts)

    @property
    def left_open(self) -> int:
        """Responses that nobody closed."""
        return sum(not body.is_closed for body in self.bodies[1:])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        name = request.url.path.removeprefix(PATH).strip("/")
        self.requests.append(f"{request.method} {name}".strip())
        await request.aread()
        if name.endswith("/cancel"):
            self.ended.append(name.removesuffix("/cancel"))
            if self.end_gate is not None:
                await self.end_gate.wait()
            return httpx2.Response(200, json={"status": "cancelled", "usage": None})
        behind = -1
        if request.method == "POST":
            name = f"resp_{len(self.begun) + 1}"
            self.begun.append(name)
            if self.gate is not None:
                await self.gate.wait()
        else:
            wanted = parse_qs(request.url.query.decode()).get("starting_after")
            self.read_from.append(int(wanted[0]) if wanted else None)
            behind = int(wanted[0]) if wanted else -1
        told = self._runs[int(name.removeprefix("resp_")) - 1]
        last, cut = self._cuts.pop(0) if self._cuts else (len(told), None)
        pieces = frames(*told)[behind + 1 : last + 1]
        self.then([*pieces, cut] if cut is not None else pieces)
        return httpx2.Response(200, headers=_STREAM, stream=self.bodies[-1])


class ShakyLog(EventLog):
    """Can be away while the rest of the store is not."""

    is_away: Callable[[], Awaitable[bool]] | None = None

    async def send(self, commands: Sequence[Command]) -> list[AppendReply | Exception]:
        if self.is_away is not None and await self.is_away():
            raise StoreUnavailable("away")
        return await super().send(commands)


class ShakyStore(GenerationStore):
    """Lets something happen just before a claim, or a failure; can be away when clearing up."""

    before_claim: Callable[[], Awaitable[object]] | None = None
    before_fail: Callable[[], Awaitable[object]] | None = None
    is_away = False

    async def claim(self, *args: Any, **named: Any) -> Claim:
        if self.before_claim is not None:
            happens, self.before_claim = self.before_claim, None
            await happens()
        return await super().claim(*args, **named)

    async def fail(self, *args: Any, **named: Any) -> Closed:
        if self.before_fail is not None:
            await self.before_fail()
        return await super().fail(*args, **named)

    async def leftover(self, generation: GenerationId) -> Leftover | None:
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().leftover(generation)

    async def settle(self, *args: Any, **named: Any) -> bool:
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().settle(*args, **named)


class Owning:
    """A worker's tools, and short ways to what other workers do meanwhile."""

    def __init__(self, stores: Stores, tools: Tools, store: ShakyStore, log: ShakyLog) -> None:
        self.stores, self.tools, self.store, self.log = stores, tools, store, log
        self.freed = 0
        """How often the slot was let go of."""

    def own(self, generation: GenerationId, by: str = "w/1") -> Ownership:
        """`by`: the token of the lease."""
        return Ownership(self.tools, Lease(generation, by), self._free_slot)

    def _free_slot(self) -> None:
        self.freed += 1

    async def say(
        self, generation: GenerationId, token: str, last: EntryId, text: str, run: Upstream
    ) -> EntryId:
        """What another owner appends."""
        (entry,) = tokens(last, text)
        command = self.stores.log.append_command(
            generation, token, entry.id, [entry], run, notes_upstream=True
        )
        await self.stores.log.send([command])
        return entry.id

    async def folded(self, generation: GenerationId) -> Folded:
        return fold_log(await self.stores.entries(generation))

    async def upstream(self, generation: GenerationId) -> Upstream | None:
        return (await self.stores.store.record(generation)).upstream


async def wait_begun(server: RunServer, count: int = 1) -> None:
    """Wait until so many runs were asked for; a pause before another attempt takes no time."""
    while len(server.begun) < count:
        await pass_time(timedelta(milliseconds=10))
    await next_turn()


async def drained(task: "asyncio.Task[Outcome]") -> None:
    """Wait for a task that was cancelled."""
    with suppress(asyncio.CancelledError):
        await task


def play_owning(
    server: RunServer, act: Callable[[Owning], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    """Run `act` beside a flusher that looks at silent logs."""
    settings = {
        "ladder": {"*": ("reattach", "restart")},
        "stall_timeout": LONG,
        "first_token_timeout": LONG,
        **settings,
    }

    async def main() -> None:
        connection = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2)
        stores = Stores(connection)
        store = ShakyStore(stores.client, stores.keys)
        log = ShakyLog(stores.client, stores.keys)
        flusher = Flusher(log)
        async with connected(server, **settings) as model:
            tools = Tools(store, stores.queue, log, flusher, model, WorkerSettings(**settings), "m")
            running = [
                asyncio.create_task(flusher.run()),
                asyncio.create_task(flusher.look_forever(tools.settings.renewal)),
            ]
            try:
                await act(Owning(stores, tools, store, log))
            finally:
                for task in running:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"left behind: {others}"

    run_virtual(main())
