"""Everything fails, some of it at once, and nobody reads a wrong byte."""

from tests.chaos.storm import chosen_minutes, chosen_seed, run


async def test_no_client_is_told_anything_wrong_whatever_dies() -> None:
    """Workers, API, Redis and provider are killed and frozen; I1 to I8 hold for every reader."""
    seed = chosen_seed()
    print(f"chaos: SEED={seed}")
    print(await run(seed, chosen_minutes()))
