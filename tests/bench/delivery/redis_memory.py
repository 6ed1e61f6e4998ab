"""What an answer of a thousand tokens takes in Redis, beside the plain recipe's."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from shared.events import encode_data
from tests.bench.delivery.load import Stream
from tests.bench.delivery.logs import make_logs
from tests.bench.line import Line, Result, Scale
from tests.bench.table import cell
from tests.support.redis_server import RedisServer, open_redis_server
from tests.support.stack import expected_tokens

TOKENS: Final = 1_000
LOGS: Final = 100

TOGETHER: Final = 4
"""Tokens of one entry, where a worker is busy and they gather."""

Texts = Sequence[str]
"""Of the entries of one log."""


async def _measure_logs(texts: Texts) -> float:
    """Bytes of a log with its record."""
    async with open_redis_server() as server:
        before = _used_bytes(server)
        for log in await make_logs(server, LOGS):
            _append_all(server, log, texts)
        return (_used_bytes(server) - before) / LOGS


def _append_all(server: RedisServer, log: Stream, texts: Texts) -> None:
    """Append as a worker does: JSON under ids of its own choice."""
    with server.blocking_client() as client:
        pipe = client.pipeline(transaction=False)
        for number, text in enumerate(texts, start=1):
            data = encode_data({"text": text})
            pipe.xadd(log.key, {"t": "token", "d": data}, id=f"{log.epoch}-{number}")
        pipe.execute()


async def _measure_plain_streams(texts: Texts) -> float:
    """Bytes of a stream of the plain recipe: there is no record, and Redis chooses the ids."""
    async with open_redis_server() as server:
        before = _used_bytes(server)
        with server.blocking_client() as client:
            for number in range(LOGS):
                pipe = client.pipeline(transaction=False)
                for text in texts:
                    pipe.xadd(f"stream:{number:032}", {"t": "token", "d": text})
                pipe.execute()
        return (_used_bytes(server) - before) / LOGS


def _used_bytes(server: RedisServer) -> int:
    with server.blocking_client() as client:
        memory: Any = client.info("memory")
    return int(memory["used_memory"])


async def measure(scale: Scale) -> Result:
    """Write the same answer in three ways."""
    tokens = expected_tokens(f"[standin tokens={TOKENS}] How much is a log?")
    joined = ["".join(tokens[n : n + TOGETHER]) for n in range(0, TOKENS, TOGETHER)]
    ways: list[tuple[str, Callable[[Texts], Awaitable[float]], Texts]] = [
        ("**Rejoin**, a token an entry", _measure_logs, tokens),
        (f"**Rejoin**, {TOGETHER} tokens an entry", _measure_logs, joined),
        ("plain `XADD *`, a token an entry", _measure_plain_streams, tokens),
    ]
    taken: dict[str, list[float]] = {name: [] for name, *_ in ways}
    for _ in range(scale.runs):
        for name, way, texts in ways:
            taken[name].append(await way(texts))
    size = sum(len(token.encode()) for token in tokens)
    return Result(
        columns=["way", f"Redis, KiB for {TOKENS:,} tokens", "times the text"],
        rows=[
            [
                name,
                cell([number / 1024 for number in numbers], ".1f"),
                cell([number / size for number in numbers], ".1f"),
            ]
            for name, numbers in taken.items()
        ],
        notes=[
            f"{LOGS} answers of {TOKENS:,} tokens, {size / 1024:.1f} KiB of text each; what Redis"
            " says it uses more than before, Rejoin's records included. (`resumable-stream`"
            " leaves one small key in Redis: it keeps the answer in the process that makes it.)",
        ],
        data={"tokens": TOKENS, "text_bytes": size, "bytes": taken},
    )


LINE = Line("redis-memory", "What does an answer take in Redis?", measure)
