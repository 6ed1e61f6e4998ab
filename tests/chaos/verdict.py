"""The judge: I1 to I8 of the design, for every generation and every reader of a run.

That `fold_log` and `fold` fail on a corrupted log is shown in tests/unit/test_support_fold.py.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.clients import Asked, Clients, Reader
from tests.support.api_client import ApiClient
from tests.support.fold import Folded, fold, fold_log
from tests.support.leaks import check_keys
from tests.support.redis_server import RedisServer
from tests.support.stack import MODEL, expected_text, expected_tokens, user
from tests.support.wait import wait_until
from worker.standin import request_key

_SETTLED_S = 15.0

Calls = Mapping[str, Sequence[Mapping[str, Any]]]
"""What the model was asked, by the key of the content."""


async def read_ledger(standin_url: str) -> tuple[int, Calls]:
    """How many calls to the model are open, and all there were."""
    reply = await ApiClient(standin_url).call("GET", "/ledger")
    calls = defaultdict(list)
    for request in reply.json["requests"]:
        calls[request["key"]].append(request)
    return reply.json["open"], calls


async def check_generation(asked: Asked, client: Any, calls: Calls, clients: Clients) -> str:
    """I1 to I6 on the log, on every reader and on the snapshot. Returns how it ended."""
    entries = await client.xrange(f"gen:{{{asked.generation}}}:log")
    folded = fold_log(entries)
    record = await client.hgetall(f"gen:{{{asked.generation}}}")
    assert record[b"state"].decode() == folded.closing_type, (
        "the record says another end than the log"
    )
    _check_text(asked, folded, calls[request_key(MODEL, user(asked.ask.prompt))])
    for reader in asked.readers:
        _check_reader(reader, folded)
    snapshot = (await clients.snapshot(asked.generation)).json
    assert (snapshot["status"], snapshot["text"]) == (folded.closing_type, folded.text)
    assert snapshot["last_event_id"] == folded.last_event_id
    return folded.closing_type or ""


def _check_reader(reader: Reader, log: Folded) -> None:
    assert reader.has_ended, "a reader never saw the end"
    assert fold(reader.events) == log, "a reader holds something else than the log"


def _check_text(asked: Asked, folded: Folded, calls: Sequence[Mapping[str, Any]]) -> None:
    """I6: the text is what the model said in the attempt that counts, whole where it is `done`."""
    ask, outcomes = asked.ask, [(call["attempt"], call["outcome"]) for call in calls]
    assert folded.closing_data is not None
    match folded.closing_type:
        case "done":
            whole = [expected_text(ask.prompt, attempt=n) for n, o in outcomes if o == "completed"]
            assert folded.text in whole, f"I6: not the text of a completed attempt of {outcomes}"
        case "failed":
            assert folded.closing_data["code"] == "provider_truncated", folded.closing_data
            assert ask.cut_after is not None, "I6: nobody cut this one"
            cut = [
                "".join(expected_tokens(ask.prompt, attempt=n)[: ask.cut_after])
                for n, o in outcomes
                if o == "cut"
            ]
            assert folded.text in cut, f"I6: not the text of a cut attempt of {outcomes}"
        case "cancelled":
            assert ask.cancel_after is not None, "I6: nobody cancelled this one"
            texts = [""] + [expected_text(ask.prompt, attempt=n) for n, _ in outcomes]
            assert any(text.startswith(folded.text) for text in texts), "I6: not what was said"


async def check_nothing_is_left(server: RedisServer, standin_url: str) -> None:
    """I8: no job, no owner, no key without a lifetime, no call to the model."""

    async def left() -> list[str]:
        calls, _ = await read_ledger(standin_url)
        async with server.client() as client:
            found = [str(job) for job in await client.zrange("arq:queue", 0, -1)]
            found += [str(key) async for key in client.scan_iter("arq:*:*", count=1_000)]
        found = [name for name in found if "arq:retry:" not in name]
        return found + ([f"{calls} calls to the model"] if calls else [])

    async def nothing() -> bool:
        return not await left()

    try:
        await wait_until(nothing, "jobs, owners and calls to go", _SETTLED_S)
    except AssertionError:
        raise AssertionError(f"I8: left behind: {json.dumps(await left())}") from None
    check_keys(server)
