"""Run the stand-in until SIGTERM or SIGINT: `python -m worker.standin`."""

import asyncio
import signal

from worker.standin.app import serve
from worker.standin.settings import StandinSettings


async def main() -> None:
    """Serve, and say on stdout where."""
    told_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)
    async with serve(StandinSettings()) as standin:
        print(f"standin listening on {standin.url}", flush=True)
        await told_to_end.wait()


if __name__ == "__main__":
    asyncio.run(main())
