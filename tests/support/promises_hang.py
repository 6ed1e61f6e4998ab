"""A worker whose event loop can be made to hang: `python -m tests.support.promises_hang`.

It is `python -m worker` in everything else. SIGUSR1 blocks the main thread for good, as an endless
loop or a blocking call would; the lease thread lives on, which SIGSTOP would not let it.
"""

import signal
import threading
from types import FrameType

from worker.__main__ import main

HANG = signal.SIGUSR1


def _hang(_number: int, _frame: FrameType | None) -> None:
    threading.Event().wait()


if __name__ == "__main__":
    signal.signal(HANG, _hang)
    main()
