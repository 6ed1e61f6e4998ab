"""What one round must leave behind it, and the count of what held."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.event_source import Followed
from tests.support.fold import fold
from worker.standin import answer, request_key


@dataclass(slots=True)
class Verdict:
    """What was checked, said at once on stdout."""

    passed: int = 0
    failed: int = 0

    def check(self, holds: bool, sentence: str, detail: object = "") -> None:
        self.passed += holds
        self.failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'} {sentence}{f': {detail}' if detail else ''}")
        sys.stdout.flush()


def judge(
    verdict: Verdict,
    prompts: Sequence[str],
    followed: Sequence[Sequence[Followed | AssertionError]],
    snapshots: Sequence[Mapping[str, Any]],
    entries: Sequence[Mapping[str, Any]],
    *,
    asked_once: bool,
    cuts: bool,
) -> None:
    """Compare what clients saw, what the API tells, what the model was asked."""
    wrong: list[str] = []
    model = str(entries[0]["model"]) if entries else ""
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    for number, (of_one, snapshot) in enumerate(zip(followed, snapshots, strict=True)):
        meant = "".join(answer(model, messages[number]))
        if snapshot["status"] != "done" or snapshot["text"] != meant:
            wrong.append(f"{number}: snapshot is {snapshot['status']}, or not what the model said")
        for client in of_one:
            try:
                if isinstance(client, AssertionError):
                    raise client
                folded = fold(client.events)
            except AssertionError as error:
                wrong.append(f"{number}: {error}")
                continue
            if folded.closing_type != "done" or folded.text != snapshot["text"]:
                wrong.append(f"{number}: a client has {folded.closing_type} and {folded.text!r}")
    clients = [client for of_one in followed for client in of_one if isinstance(client, Followed)]
    verdict.check(
        not wrong,
        "every client has every token once, in order, as the snapshot and the model",
        wrong[:5] or f"{len(clients)} clients, {sum(len(c.events) for c in clients)} events",
    )
    again = sum(client.connections > 1 for client in clients)
    if cuts:
        verdict.check(again > 0, "clients lost their connection and came back", again)

    keys = [request_key(model, each) for each in messages]
    asked = dict.fromkeys(keys, 0)
    for entry in entries:
        asked[str(entry["key"])] = asked.get(str(entry["key"]), 0) + 1
    most = max(asked.values(), default=0)
    as_expected = set(asked) == set(keys) and min(asked.values(), default=0) >= 1
    verdict.check(
        as_expected and (most == 1 or not asked_once),
        "each generation was asked of the model" + (" once" if asked_once else ""),
        f"{len(keys)} generations, {len(entries)} requests, at most {most} for one",
    )
