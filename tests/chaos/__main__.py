"""`SEED=1 MINUTES=10 SERVER=redis python -m tests.chaos`: a run as long as one likes."""

import asyncio

from tests.chaos.storm import chosen_minutes, chosen_seed, chosen_server, run

_MINUTES = 5.0


def main() -> None:
    """Say the seed first, so that a failure can be had again."""
    seed, server = chosen_seed(), chosen_server()
    print(f"chaos: SEED={seed} SERVER={server}", flush=True)
    print(asyncio.run(run(seed, chosen_minutes(_MINUTES), server)))


if __name__ == "__main__":
    main()
