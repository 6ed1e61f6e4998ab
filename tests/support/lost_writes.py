"""One loss of Redis' last writes that meets generations in every state at once.

Two workers: `victim`, which holds the orphaned one and dies with Redis, and `survivor`, which holds
all others and is the only one left. What Redis loses of each generation:

    speaking         text; its owner goes on speaking
    silent           text; its owner has nothing more to say
    ending           text and `done`
    cancelled        text and `cancelled`, which the API wrote
    deleted          the same, and that nobody may read it any more
    claimed          its claim and text; its owner goes on speaking
    claimed_silent   the same, and its owner has nothing more to say
    created          its creation, claim and text
    orphaned         text; its owner dies too
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from tests.support.api_client import ApiClient, Reply
from tests.support.fold import Entry, fold
from tests.support.losing_redis import LosingRedis, Way, open_losing_redis
from tests.support.processes import Process, free_port, open_process
from tests.support.reader import Reader
from tests.support.redis_server import Kind
from tests.support.stack import (
    MODEL,
    WORKER_IS_UP,
    api_environment,
    expected_tokens,
    open_model,
    user,
    worker_environment,
)
from tests.support.story import RECOVERED, Seen, Story
from tests.support.wait import wait_until
from worker.standin import Standin, request_key

PROMPTS: Final = {
    "speaking": "[standin tokens=150 pace=25] Speaking",
    "silent": "[standin tokens=90 pace=25 stall_after=40] Silent",
    "ending": "[standin tokens=50 pace=25] Ending",
    "cancelled": "[standin tokens=400 pace=25] Cancelled",
    "deleted": "[standin tokens=400 pace=25] Deleted",
    "claimed": "[standin tokens=60 pace=25 vary=1] Claimed",
    "claimed_silent": "[standin tokens=40 pace=80 stall_after=20 times=1 vary=1] Claimed, silent",
    "created": "[standin tokens=120 pace=25 vary=1] Created",
    "orphaned": "[standin tokens=90 pace=40 stall_after=70 times=1 vary=1] Orphaned",
}
STALLED: Final = {"silent": 40, "claimed_silent": 20, "orphaned": 70}
"""How many tokens the first answer has of those that fall silent."""

_SEVERAL: Final = 5
"""Events that readers have before the mark, and again beyond it."""

_RECOVERED_S = 12.0
_CLOSED_S = 10.0
_ENDED_S = 6.0


async def lose_writes(way: Way, kind: Kind) -> Seen:
    """Run all of it once."""
    async with AsyncExitStack() as exits:
        redis = await exits.enter_async_context(open_losing_redis(way, kind))
        model = await exits.enter_async_context(open_model(0))
        port = free_port()
        api_url = f"http://127.0.0.1:{port}"

        async def start_worker(**env: str) -> Process:
            told = worker_environment(redis.url, model.base_url, env)
            opened = open_process("worker", told, WORKER_IS_UP)
            return await exits.enter_async_context(opened)

        api = open_process("api", api_environment(redis.url, port, {}), f"{api_url}/healthz")
        # The victim has one slot, and looks often since others may be told before it.
        victim, survivor, _ = await asyncio.gather(
            start_worker(WORKER_NAME="victim", WORKER_MAX_GENERATIONS="1", WORKER_POLL="0.1"),
            start_worker(WORKER_NAME="survivor"),
            exits.enter_async_context(api),
        )
        return await _Play(redis, model, ApiClient(api_url), victim, survivor).run()


class _Play:
    def __init__(
        self,
        redis: LosingRedis,
        model: Standin,
        api: ApiClient,
        victim: Process,
        survivor: Process,
    ) -> None:
        self._redis = redis
        self._model = model
        self._api = api
        self._victim = victim
        self._survivor = survivor
        self._stories: dict[str, Story] = {}

    async def run(self) -> Seen:
        await self._begin()
        await self._go_beyond_the_mark()
        await self._lose()
        again = await self._recover()
        await self._end()
        return Seen(self._stories, again, await self._left())

    async def _begin(self) -> None:
        """All that is there before the mark; the survivor sleeps while it must not take a job."""
        self._survivor.freeze()
        await self._create("orphaned")
        await self._wait_events(2, "orphaned")
        self._survivor.thaw()
        begun = ("speaking", "silent", "ending", "cancelled", "deleted")
        for name in begun:
            await self._create(name)
        await self._wait_events(_SEVERAL, "orphaned", *begun)
        self._survivor.freeze()
        queued = ("claimed", "claimed_silent")
        for name in queued:
            await self._create(name)
        await self._wait_events(1, *queued)
        await self._redis.mark()
        self._survivor.thaw()

    async def _go_beyond_the_mark(self) -> None:
        """All that will be lost is not only acknowledged: clients have it."""
        spoken = len(self._stories["speaking"].stayed.events)
        await self._wait_events(2, "claimed", "claimed_silent")
        await self._create("created")
        await self._wait_events(_SEVERAL, "created", "claimed")
        await self._wait_events(spoken + _SEVERAL, "speaking")
        for name in STALLED:
            await self._wait_silent(name)
        await self._wait_closed("ending")
        cancelled = await self._api.cancel(self._stories["cancelled"].generation)
        deleted = await self._api.delete(self._stories["deleted"].generation)
        assert (cancelled.status, deleted.status) == (200, 204)
        for name in ("cancelled", "deleted"):
            await self._wait_closed(name)

    async def _lose(self) -> None:
        for story in self._stories.values():
            await story.came_back.leave()
            story.cursor = story.came_back.cursor
        for story in self._stories.values():
            story.before = await self._log(story)
        await self._redis.lose()
        self._victim.kill()
        for story in self._stories.values():
            story.kept = await self._log(story)

    async def _recover(self) -> Reply:
        """Let Redis answer; measure what comes how soon. Ask again for what is not there."""
        loop = asyncio.get_running_loop()
        # Readers are back a moment before the owner: they do find themselves ahead of their logs.
        self._survivor.freeze()
        self._redis.answer()
        answered_at = loop.time()
        for story in self._stories.values():
            story.came_back.come()
        for story in self._stories.values():
            await story.came_back.wait_answered()
        self._survivor.thaw()
        again = asyncio.create_task(self._ask_again())
        waited = set(self._stories)

        async def all_recovered() -> bool:
            for name in sorted(waited):
                story = self._stories[name]
                if RECOVERED[name](story, await self._log(story)):
                    story.recovered_s = loop.time() - answered_at
                    waited.discard(name)
            return not waited

        await _bounded(all_recovered, "all to recover", _RECOVERED_S)
        await self._api.cancel(self._stories["silent"].generation)
        return await again

    async def _ask_again(self) -> Reply:
        """The client whose generation is gone repeats its request at once."""
        reader = self._stories["created"].stayed

        async def is_told() -> bool:
            return reader.has_ended

        await _bounded(is_told, "its reader to be told", _RECOVERED_S)
        return await self._api.post({"prompt": PROMPTS["created"]}, key="created")

    async def _end(self) -> None:
        """Wait for all ends, and let somebody read who never came before."""

        async def all_closed() -> bool:
            for story in self._stories.values():
                story.after = await self._log(story)
            return all(story.is_closed for story in self._stories.values())

        await _bounded(all_closed, "all logs to be closed", _CLOSED_S)
        for story in self._stories.values():
            story.late = Reader(self._api, story.generation)
            story.late.come()
        readers = [reader for story in self._stories.values() for reader in story.readers]

        async def all_ended() -> bool:
            return all(reader.has_ended for reader in readers)

        await _bounded(all_ended, "all readers to end", _ENDED_S)
        for reader in readers:
            if not reader.has_ended:
                await reader.leave()
        for story in self._stories.values():
            reply = await self._api.call("GET", f"/v1/generations/{story.generation}")
            story.shown = reply.json if reply.status == 200 else {}
            key = request_key(MODEL, user(story.prompt))
            story.asked = sum(entry.key == key for entry in self._model.ledger.entries)

    async def _left(self) -> list[str]:
        """What is still there when the owners had time to let go."""
        found: list[str] = []

        async def nothing() -> bool:
            async with self._redis.serving.client() as client:
                found[:] = [str(job) for job in await client.zrange("arq:queue", 0, -1)]
                for kind in ("job", "in-progress"):
                    found.extend([str(key) async for key in client.scan_iter(f"arq:{kind}:*")])
            found.extend(["a call to the model"] * self._model.ledger.open)
            return not found

        await _bounded(nothing, "jobs, owners and calls to go", _ENDED_S)
        return found

    # --- the pieces of the above --------------------------------------------------------------

    async def _create(self, name: str) -> None:
        prompt = PROMPTS[name]
        generation = await self._api.create(prompt, key=name)
        stayed, came_back = (Reader(self._api, generation) for _ in range(2))
        self._stories[name] = Story(prompt, generation, stayed, came_back)
        stayed.come()
        came_back.come()

    async def _wait_events(self, count: int, *names: str) -> None:
        for name in names:
            for reader in self._stories[name].readers:
                await reader.wait_events(count)

    async def _wait_silent(self, name: str) -> None:
        said = "".join(expected_tokens(PROMPTS[name])[: STALLED[name]])

        def have_all() -> bool:
            return all(fold(r.events).text == said for r in self._stories[name].readers)

        await wait_until(have_all, f"all that {name} says")

    async def _wait_closed(self, name: str) -> None:
        readers = self._stories[name].readers
        await wait_until(lambda: all(r.is_closed for r in readers), f"the end of {name}")

    async def _log(self, story: Story) -> list[Entry]:
        async with self._redis.serving.client() as client:
            found: list[Entry] = await client.xrange(f"gen:{{{story.generation}}}:log")
            return found


async def _bounded(
    predicate: Callable[[], Awaitable[bool]], describe: str, gives_up_s: float
) -> None:
    """Wait, and give up quietly: the tests say what is missing, each for itself."""
    loop = asyncio.get_running_loop()
    gives_up_at = loop.time() + gives_up_s

    async def is_over() -> bool:
        return await predicate() or loop.time() >= gives_up_at

    await wait_until(is_over, describe, 2 * gives_up_s)
