"""A request that Redis forgot, made anew with its key while a worker still holds the old one."""

from datetime import timedelta

from shared.generation import Order, Surface
from shared.ids import GenerationId
from tests.support.redis_server import RedisServer
from tests.support.stack import open_model, user
from tests.support.wait import wait_until
from tests.support.workshop import Workshop, open_workshop

PROMPT = "[standin tokens=40 pace=40] Again"
LONG = timedelta(seconds=60)


async def accept_again(shop: Workshop, generation: GenerationId) -> None:
    """What an API does with the same request and the same key: the id is the same."""
    order = Order(
        request={"messages": user(PROMPT)},
        tenant="default",
        surface=Surface.NATIVE,
        queue_timeout=LONG,
        generation_timeout=LONG,
        retention=LONG,
    )
    await shop.queue.offer(generation, lifetime=order.longest_life, max_length=10)
    await shop.store.create(generation, order)
    await shop.queue.release(generation, lifetime=order.longest_life)


async def test_a_forgotten_request_that_is_made_anew_runs(valkey: RedisServer) -> None:
    """The worker of the forgotten one lets go of it without taking the new one's job along."""
    async with (
        open_model(0) as model,
        open_workshop(valkey, model) as shop,
        shop.open_worker() as worker,
    ):
        generation = await shop.accept(PROMPT)

        async def has_begun() -> bool:
            return "token" in await shop.types(generation)

        await wait_until(has_begun, "the first token")
        valkey.flush()
        await worker.wait_logged("attempt_stopped")
        await accept_again(shop, generation)
        folded = await shop.ended(generation)
        await shop.wait_idle()
    assert folded.closing_type == "done"
