"""`SEED=1 MINUTES=10 python -m tests.chaos`: a run as long as one likes."""

import asyncio

from tests.chaos.storm import chosen_minutes, chosen_seed, run


def main() -> None:
    """Say the seed first, so that a failure can be had again."""
    seed = chosen_seed()
    print(f"chaos: SEED={seed}", flush=True)
    print(asyncio.run(run(seed, chosen_minutes())))


if __name__ == "__main__":
    main()
