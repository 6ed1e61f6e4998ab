"""What one round must leave behind it."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.compose.rounds import Round
from tests.support.compose.verdict import Verdict
from tests.support.event_source import Followed
from tests.support.fold import fold
from worker.standin import answer, request_key


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one round; the first three have an entry for each generation."""

    prompts: Sequence[str]
    followed: Sequence[Sequence[Followed | AssertionError]]
    snapshots: Sequence[Mapping[str, Any]]
    requests: Sequence[Mapping[str, Any]]
    """The stand-in's ledger."""
    silences: Sequence[float]
    began: float


def judge(verdict: Verdict, this: Round, seen: Seen, anew: Collection[str]) -> None:
    """Compare what clients saw, what the API tells, what the model was asked.

    `anew` are the ids of the generations that must have been begun a second time.
    """
    model = str(seen.requests[0]["model"]) if seen.requests else ""
    messages = [[{"role": "user", "content": prompt}] for prompt in seen.prompts]
    wrong = _wrong_texts(seen, ["".join(answer(model, each)) for each in messages])
    clients = [each for of_one in seen.followed for each in of_one if isinstance(each, Followed)]
    verdict.check(
        not wrong,
        "every client has every token once, in order, as the snapshot and the model",
        wrong[:5] or f"{len(clients)} clients, {sum(len(c.events) for c in clients)} events",
    )
    came_back = sum(client.connections > 1 for client in clients)
    if this.cuts:
        verdict.check(came_back > 0, "clients lost their connection and came back", came_back)
    longest_s = max(seen.silences)
    verdict.check(
        longest_s <= this.silence_s,
        f"no reader waited more than {this.silence_s:g} s",
        f"{longest_s:.2f} s",
    )
    wanted = {
        request_key(model, each): 1 + (snapshot["id"] in anew)
        for each, snapshot in zip(messages, seen.snapshots, strict=True)
    }
    asked = dict.fromkeys(wanted, 0)
    for request in seen.requests:
        asked[str(request["key"])] = asked.get(str(request["key"]), 0) + 1
    once, twice = (sum(times == n for times in asked.values()) for n in (1, 2))
    verdict.check(
        asked == wanted,
        f"the model was asked once, and again for the {len(anew)} whose worker was lost",
        f"{once} once, {twice} twice, {len(asked) - once - twice} otherwise",
    )
    verdict.figures.append(
        {
            "round": this.name,
            "generations": len(seen.prompts),
            "clients": len(clients),
            "came back": came_back,
            "reconnects": sum(client.connections - 1 for client in clients),
            "asked once": once,
            "asked twice": twice,
            "wrong": len(wrong),
            "longest silence": f"{longest_s:.2f} s",
            "took": f"{time.monotonic() - seen.began:.0f} s",
        }
    )


def _wrong_texts(seen: Seen, meant: Sequence[str]) -> list[str]:
    """A sentence for each client and snapshot that does not say what the model meant."""
    wrong = []
    of_all = zip(meant, seen.snapshots, seen.followed, strict=True)
    for number, (text, snapshot, of_one) in enumerate(of_all):
        if snapshot["status"] != "done" or snapshot["text"] != text:
            wrong.append(f"{number}: snapshot is {snapshot['status']}, or not what the model said")
        for client in of_one:
            try:
                if isinstance(client, AssertionError):
                    raise client
                folded = fold(client.events)
            except AssertionError as error:
                wrong.append(f"{number}: {error}")
                continue
            if folded.closing_type != "done" or folded.text != text:
                wrong.append(f"{number}: a client has {folded.closing_type} and {folded.text!r}")
    return wrong
