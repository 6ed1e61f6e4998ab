"""Everything fails, some of it at once, and nobody reads a wrong byte."""

import pytest

from tests.chaos.storm import SHORT_MINUTES, chosen_minutes, chosen_seed, run
from tests.support.redis_server import Kind


@pytest.mark.parametrize("kind", ["valkey", pytest.param("redis", marks=pytest.mark.redis_server)])
@pytest.mark.usefixtures("nothing_left_behind")
async def test_no_client_is_told_anything_wrong_whatever_dies(kind: Kind) -> None:
    """Workers, API, Redis and provider are killed and frozen; I1 to I8 hold for every reader."""
    seed = chosen_seed()
    print(f"chaos: SEED={seed} SERVER={kind}")
    print(await run(seed, chosen_minutes(SHORT_MINUTES), kind))
