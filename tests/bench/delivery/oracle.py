"""Shows, before anything is measured, that the followers see what is wrong with a stream."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.delivery.load import Ask, Place, open_followers
from tests.bench.delivery.programs import Programs

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_LAST: Final = 5
_GRACE_S: Final = 5.0
_AGE_US: Final = 250_000


@dataclass(frozen=True, slots=True)
class Case:
    """A stream, and what is to be counted in it where that is not nothing."""

    name: str
    frames: Sequence[bytes]
    counted: Mapping[str, int]


def _frame(entry_id: str, *numbers: int, sent: int = 1) -> bytes:
    """One event with as many tokens as are named."""
    text = "".join(f"@{sent}:{number};" for number in numbers)
    return f'id: {entry_id}\nevent: token\ndata: {{"text":"{text}"}}\n\n'.encode()


_SOUND: Final = [_frame("7-3", 1, 2, 3), b"event: heartbeat\ndata:\n\n", _frame("7-4", 4)]
_END: Final = _frame("7-5", 5)

_CASES: Final = (
    Case("sound", [*_SOUND, _END], {}),
    Case("a take-over", [*_SOUND, _frame("8-5", 5)], {}),
    Case("a hole", [*_SOUND[:2], _END], {"missing": 1}),
    Case("a hole in a frame", [_frame("7-4", 1, 2, 4), _END], {"missing": 1}),
    Case("a repeated frame", [*_SOUND, _SOUND[2], _END], {"duplicates": 1, "wrong_ids": 1}),
    Case("a repeat in a frame", [_frame("7-4", 1, 2, 3, 3, 4), _END], {"duplicates": 1}),
    Case(
        "an id of something else",
        [*_SOUND[:2], _frame("7-5", 4), _frame("7-6", 5)],
        {"wrong_ids": 2},
    ),
    Case("an epoch that goes back", [*_SOUND, _frame("6-5", 5)], {"wrong_ids": 1}),
    Case("an end that is too early", _SOUND, {"missing": 1, "lost": 1}),
)

_COUNTS: Final = ("missing", "duplicates", "wrong_ids", "lost", "refused")


async def check_followers(programs: Programs) -> None:
    """Serve every case, in chunks of every small size. Raises: AssertionError: one was misread."""
    for case in _CASES:
        for size in (1, 2, 3, 7, 1 << 16):
            counted = await _count(programs, case, size)
            expected = {name: case.counted.get(name, 0) for name in _COUNTS}
            told = {name: counted[name] for name in _COUNTS}
            assert told == expected, f"{case.name} in pieces of {size}: {told}, not {expected}"
    await _check_clock(programs)
    await _check_coming_again(programs)


async def _check_coming_again(programs: Programs) -> None:
    """One that was cut comes back; sent away, it comes again with the id it has."""
    asked: list[bytes] = []
    answers = [b"", b"retry: 20\n\n" + _frame("7-3", 1, 2, 3), _frame("7-4", 4) + _END]
    is_over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(_HEAD + b"\r\n" + answers[len(asked) - 1])
        if len(asked) == 1:
            await is_over.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ask = Ask("/", Place("-", 1), Place("7-0", 1))
        async with open_followers(
            programs, port, [ask], last=_LAST, catch_up_to=_LAST
        ) as followers:
            await followers.wait_ready()
            followers.begin()
            counted = await followers.finish(_GRACE_S)
        is_over.set()
    assert [b"Last-Event-ID: 7-0" in asked[1], b"Last-Event-ID: 7-3" in asked[2]] == [True, True]
    expected = {**dict.fromkeys(_COUNTS, 0), "came_again": 1, "caught_up": 1, "complete": 1}
    told = {name: counted[name] for name in expected}
    assert told == expected, f"one that comes again: {told}, not {expected}"


async def _check_clock(programs: Programs) -> None:
    """A token that was written a while ago is told to be that old."""
    sent = round(time.monotonic() * 1e6) - _AGE_US
    frames = [_frame(f"7-{number}", number, sent=sent) for number in range(1, _LAST + 1)]
    counted = await _count(programs, Case("an old token", frames, {}), 1 << 16)
    now = round(time.monotonic() * 1e6)
    age = counted["latency_us"]["p50"]
    assert _AGE_US <= age <= (now - sent) * 1.01, f"{age} µs old, not {_AGE_US} to {now - sent}"


async def _count(programs: Programs, case: Case, size: int) -> dict[str, Any]:
    """Serve one case in chunks of one size."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"".join(case.frames)
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        writer.write(_HEAD + b"transfer-encoding: chunked\r\n\r\n")
        writer.writelines(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ask = Ask("/", Place("-", 1))
        async with open_followers(programs, port, [ask], last=_LAST) as followers:
            return await followers.finish(_GRACE_S)
