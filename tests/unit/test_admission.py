"""Accepting a generation: whatever breaks between its steps, nothing is lost or made twice."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import fakeredis
import pytest

from api.admission import Admission, Ticket
from api.settings import ApiSettings
from shared.connections import Argument, Client
from shared.errors import IdempotencyConflict, NotAdmitted, StoreUnavailable
from shared.generation import State, Surface
from shared.scripts import Script
from tests.support.stores import Stores
from tests.support.virtual_clock import run_virtual

REQUEST = {"messages": [{"role": "user", "content": "Hello"}]}


class Breaking(Client):
    """A client that cannot run one of the scripts."""

    broken = ""

    async def run(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        if script.name == self.broken:
            raise StoreUnavailable("gone")
        return await super().run(script, keys, args)


class Scene:
    """An API's way in to an empty store."""

    def __init__(self, max_queue: int = 10) -> None:
        connection = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7,)), protocol=2)
        self.client = Breaking(connection, script_flags=False)
        self.stores = Stores(connection, self.client)
        stores = self.stores
        settings = ApiSettings(max_queue=max_queue)
        self.admission = Admission(stores.store, stores.queue, stores.keys, settings)

    async def accept(
        self, key: str | None = None, surface: Surface = Surface.NATIVE
    ) -> tuple[Ticket, State]:
        ticket = await self.admission.offer(REQUEST, surface, key)
        return ticket, await self.admission.create(ticket)

    async def due_ms(self, ticket: Ticket) -> int:
        due_ms = await self.stores.due_ms(ticket.generation)
        assert due_ms is not None
        return due_ms


def play(act: Callable[[Scene], Awaitable[None]], **options: int) -> None:
    async def main() -> None:
        await act(Scene(**options))

    run_virtual(main())


def test_an_accepted_generation_exists_and_is_due() -> None:
    """Record, job and a wake are there when the client gets its answer."""

    async def act(scene: Scene) -> None:
        ticket, state = await scene.accept()
        record = await scene.stores.store.record(ticket.generation)
        assert (state, record.state, record.request) == (State.QUEUED, State.QUEUED, REQUEST)
        assert await scene.due_ms(ticket) <= 0

    play(act)


def test_without_a_key_every_request_is_a_new_one() -> None:
    """Nobody's answer is given to somebody else who asks the same."""

    async def act(scene: Scene) -> None:
        assert (await scene.accept())[0].generation != (await scene.accept())[0].generation

    play(act)


def test_the_same_key_names_the_same_generation_on_one_surface() -> None:
    """A repeat finds it; the chat surface and another key have others."""

    async def act(scene: Scene) -> None:
        first, _ = await scene.accept("k")
        again, state = await scene.accept("k")
        assert (again.generation, state) == (first.generation, State.QUEUED)
        assert (await scene.accept("l"))[0].generation != first.generation
        assert (await scene.accept("k", Surface.CHAT))[0].generation != first.generation
        assert await scene.stores.queue.length() == 3

    play(act)


def test_another_request_under_the_same_key_is_a_conflict() -> None:
    """The first one stays as it is."""

    async def act(scene: Scene) -> None:
        first, _ = await scene.accept("k")
        other = await scene.admission.offer({"messages": []}, Surface.NATIVE, "k")
        with pytest.raises(IdempotencyConflict):
            await scene.admission.create(other)
        assert (await scene.stores.store.record(first.generation)).request == REQUEST

    play(act)


def test_a_repeat_of_a_finished_one_starts_nothing() -> None:
    """Its job is not made due again; the one promised on the way is dropped by whoever takes it."""

    async def act(scene: Scene) -> None:
        ticket, _ = await scene.accept("k")
        await scene.stores.store.cancel(ticket.generation)
        await scene.stores.client.call("DEL", scene.stores.keys.queue, scene.stores.keys.wake)
        _, state = await scene.accept("k")
        assert state is State.CANCELLED
        assert await scene.due_ms(ticket) > 0
        assert await scene.stores.client.call("LLEN", scene.stores.keys.wake) == 0

    play(act)


def test_a_full_queue_refuses_before_anything_exists() -> None:
    """No record without a job, and no key that was not there before but the secret."""

    async def act(scene: Scene) -> None:
        await scene.accept()
        keys = await scene.stores.all_keys()
        with pytest.raises(NotAdmitted):
            await scene.accept("k")
        assert await scene.stores.all_keys() == keys | {scene.stores.keys.secret.encode()}

    play(act, max_queue=1)


def test_a_generation_whose_release_was_lost_is_accepted_all_the_same() -> None:
    """It exists, and its job is due by itself in a moment."""

    async def act(scene: Scene) -> None:
        scene.client.broken = "release"
        ticket, state = await scene.accept()
        assert state is State.QUEUED
        assert await scene.due_ms(ticket) > 0

    play(act)


def test_a_crash_between_job_and_record_is_made_good_by_the_repeat() -> None:
    """With the same key the client gets the generation it would have had, once."""

    async def act(scene: Scene) -> None:
        scene.client.broken = "create"
        with pytest.raises(StoreUnavailable):
            await scene.accept("k")
        scene.client.broken = ""
        ticket, state = await scene.accept("k")
        assert state is State.QUEUED
        assert await scene.stores.queue.length() == 1
        assert await scene.due_ms(ticket) <= 0

    play(act)
