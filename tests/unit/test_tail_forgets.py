"""A reader that was told to forget is not told again before it has heard anything."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

from shared.ids import BEGINNING
from tests.support.sse_reader import Event, SseReader
from tests.support.virtual_clock import pass_time
from tests.unit.test_tail import HEARTBEAT, Scene, play


def test_a_log_without_its_beginning_is_not_told_over_and_over() -> None:
    """One `reset`, then heartbeats: neither a storm of frames nor a connection that looks dead."""

    async def act(scene: Scene) -> None:
        await scene.claim("w/1")
        log = scene.stores.keys.log(scene.generation)
        (first, *_) = await scene.stores.client.call("XRANGE", log, "-", "+")
        await scene.stores.client.call("XDEL", log, first[0])
        reader, events = SseReader(), list[Event]()

        async def read() -> None:
            async with aclosing(scene.frames(BEGINNING)) as frames:
                async for frame in frames:
                    events.extend(reader.feed(frame))

        reading = asyncio.create_task(read())
        await pass_time(HEARTBEAT + timedelta(seconds=5))
        reading.cancel()
        await asyncio.wait([reading])
        assert [event.type for event in events] == ["reset", "heartbeat"]

    play(act)
