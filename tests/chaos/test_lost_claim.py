"""An attempt that Redis forgot, with the highest id that anybody saw."""

import random
from collections.abc import Callable
from itertools import count

from pydantic import SecretStr

from shared.connections import Client, open_connection
from shared.generation_store import EPOCH_SPREAD
from shared.settings import RedisSettings
from tests.support.api_process import open_api
from tests.support.author import Author, token
from tests.support.fold import RESET_ID, fold, fold_log
from tests.support.redis_server import RedisServer
from tests.support.wait import within

PATIENCE_S = 5.0
"""A reset comes within a millisecond: without this, a reader of nothing else reads for ever."""


def seed_draw(wanted: Callable[[int], bool]) -> None:
    """Have the next claim draw a spread of its epoch that is as wanted."""
    for seed in count():
        random.seed(seed)
        if wanted(random.randrange(EPOCH_SPREAD)):
            random.seed(seed)
            return


async def test_nobody_is_given_a_forgotten_attempt_that_an_api_still_holds(
    valkey: RedisServer,
) -> None:
    """What replaced it has lower ids: a reader hears that, not `reset` for ever."""
    settings = RedisSettings(url=SecretStr(valkey.url))
    async with open_connection(settings, "test") as connection, open_api(valkey.url) as api:
        author = await Author.create(Client(connection))
        await author.claim()
        await author.say(token("a"))
        past = await author.remember()
        async with api.follow(author.generation) as witness:
            await witness.read_until("token")
            seed_draw(lambda spread: spread > 0.9 * EPOCH_SPREAD)
            await author.claim(reset=True)
            await witness.read_until("reset")
            forgotten = author.epoch
            await author.roll_back(past)
            seed_draw(lambda spread: spread < 0.1 * EPOCH_SPREAD)
            await author.claim(reset=True)
            assert author.epoch < forgotten
            await author.say(token("b"))
            async with api.follow(author.generation) as reader:
                await reader.read_until("token")
                await author.close()
                async with within(PATIENCE_S, lambda: f"no end after {reader.events[-3:]}"):
                    await reader.read_until("done")

        anew = [event for event in reader.events if event.last_event_id == RESET_ID]
        assert len(anew) <= 1
        assert fold(reader.events) == fold_log(await author.raw())
