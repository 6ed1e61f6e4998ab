"""A listening socket on loopback whose connections are served by tasks it owns and ends.

Raw sockets rather than asyncio's streams: a transport throws away what it has buffered when a
reset arrives, and these tools exist to be exact about the last byte before a reset.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Serve = Callable[[socket.socket], Awaitable[None]]


@asynccontextmanager
async def open_listener(serve: Serve) -> AsyncIterator[int]:
    """Run `serve` for each connection; yields the port. At exit every task is cancelled.

    An error in `serve` is raised at exit, unless the body failed by itself already.
    """
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    async def serve_and_close(sock: socket.socket) -> None:
        with sock:
            await serve(sock)

    def accept(listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # it was gone before we came to it
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tasks.append(loop.create_task(serve_and_close(sock)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept, listener)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        raise ExceptionGroup("while serving connections", errors)
