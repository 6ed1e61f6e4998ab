"""The taking of evidence: what Redis, the model, the workers and the readers know in the end."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import inf
from typing import Any

from tests.chaos.clients import Asked, Clients
from tests.chaos.faults import Faults
from tests.chaos.fleet import Told, Workers
from tests.chaos.lost import Past
from tests.chaos.report import Report
from tests.chaos.spoken import Call, find_speakers, outcomes_of
from tests.chaos.verdict import Evidence, judge
from tests.support.api_client import ApiClient
from tests.support.fold import log_events, position
from tests.support.leaks import check_keys
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import Event
from tests.support.stack import user
from tests.support.wait import wait_until
from worker.standin import request_key

_SETTLED_S = 30.0

# The clocks of a claim and of what is done to its worker are read one after the other.
_MOMENT_S = 1.0

_WATCH_S, _LOOK_S = 2.0, 0.5
"""A writer that lives has written an end again that Redis forgot when its watch is over, or as soon
as Redis is back: the workers' default, and how long they take to notice that.
"""

_LEARNT_WITHIN_S = 2.0
"""An append tells at once that the log is another's, a renewal within half a second."""

_LINES_TOLD = 40


class Court:
    """Asks everybody, and judges."""

    def __init__(
        self,
        server: RedisServer,
        standin_url: str,
        workers: Workers,
        clients: Clients,
        faults: Faults,
    ) -> None:
        self._server, self._standin = server, ApiClient(standin_url)
        self._workers, self._clients, self._faults = workers, clients, faults
        self._calls: Mapping[str, Sequence[Call]] = {}
        self._claims: Mapping[str, Sequence[Told]] = {}
        self._stops: Mapping[str, Sequence[Told]] = {}

    async def judge_all(self, report: Report) -> None:
        """Judge every generation and count it.

        Raises: ExceptionGroup of AssertionErrors, one for each that is wrong, with what is known.
        """
        check_keys(self._server)
        await self._refresh()
        wrong: list[AssertionError] = []
        for asked in self._clients.asked:
            evidence = await self._collect(asked)
            try:
                end = judge(evidence)
            except AssertionError as error:
                for line in self._describe(asked, evidence):
                    error.add_note(line)
                wrong.append(error)
            else:
                report.add(evidence, end, self._causes(asked, evidence.pasts))
        outcomes = [o for made in self._calls.values() for call in made for o in outcomes_of(call)]
        report.hits["provider cut"] = sum(o in ("cut", "ended_early") for o in outcomes)
        report.hits["provider refused"] = outcomes.count("refused")
        if wrong:
            raise ExceptionGroup(f"{len(wrong)} of {len(self._clients.asked)} are wrong", wrong)

    async def describe_open(self) -> list[str]:
        """What is known of those whose readers still wait for an end."""
        await self._refresh()
        lines: list[str] = []
        for asked in self._clients.asked:
            if not all(reader.has_ended for reader in asked.readers):
                lines += self._describe(asked, await self._collect(asked))
        return lines

    async def hear(self, asked: Asked) -> Evidence:
        """What is known of one generation now."""
        await self._refresh()
        return await self._collect(asked)

    async def wait_nothing_left(self) -> None:
        """I8: no job, no owner, no call to the model, none that goes on in the background."""

        async def nothing() -> bool:
            return not await self._left()

        try:
            await wait_until(nothing, "jobs, owners and calls to go", _SETTLED_S)
        except AssertionError:
            left = json.dumps(await self._left())
            raise AssertionError(f"I8: left behind: {left}") from None

    async def _left(self) -> list[str]:
        account = (await self._standin.call("GET", "/ledger")).json
        async with self._server.client() as client:
            found = [job.decode() for job in await client.zrange("arq:queue", 0, -1)]
            found += [key.decode() async for key in client.scan_iter("arq:*:*", count=1_000)]
        found = [name for name in found if "arq:retry:" not in name]
        calls = {name: account[name] for name in ("open", "running") if account[name]}
        return [*found, *(f"{count} calls {name}" for name, count in calls.items())]

    async def _refresh(self) -> None:
        calls: dict[str, list[Call]] = defaultdict(list)
        for request in (await self._standin.call("GET", "/ledger")).json["requests"]:
            calls[request["key"]].append(request)
        self._calls = calls
        self._claims = self._workers.told("attempt_started")
        self._stops = self._workers.told("attempt_stopped")

    async def _collect(self, asked: Asked) -> Evidence:
        client: Any
        async with self._server.client() as client:
            log = await client.xrange(f"gen:{{{asked.generation}}}:log")
            record = await client.hgetall(f"gen:{{{asked.generation}}}")
        snapshot = (await self._clients.snapshot(asked.generation)).json
        pasts = self._faults.pasts.get(asked.generation, [])
        ask = asked.ask
        return Evidence(
            ask=ask,
            readers=asked.readers,
            log=log,
            state=record.get(b"state", b"").decode(),
            snapshot=snapshot,
            calls=self._calls.get(request_key(ask.model, user(ask.prompt)), []),
            pasts=pasts,
            undone=[past for past in pasts if self._may_be_undone(asked.generation, past, log)],
            cancelled_as=asked.cancelled_as,
            lingering=self._find_lingering(asked, log),
            was_left_alone=self._was_left_alone(asked, record),
        )

    def _may_be_undone(self, generation: str, past: Past, log: Sequence[Any]) -> bool:
        """Whether an end that Redis forgot had nobody to write it again: not guaranteed then.

        What Redis forgets is less than a writer keeps watch over: one that lives had not let go.
        """
        if not past.is_closed or past.finished_at is None:
            return False
        if any(entry_id == past.entries[-1][0] for entry_id, _ in log):
            return False
        if past.is_unclaimed:
            return True  # Its writer drops what it wrote.
        back_at = next(until for since, until in self._faults.outages if since >= past.at)
        since, until = past.finished_at, max(past.finished_at + _WATCH_S, back_at) + _LOOK_S
        if position(past.entries[-1][0].decode()).seq == 0:
            # Written by an API, which keeps no watch; a worker does once it has learnt of it.
            stops = self._stops.get(generation, [])
            if not any(since <= stop.at <= past.at + _MOMENT_S for stop in stops):
                return True
        writers = [worker for worker in self._workers.all if worker.name == past.writer]
        return not writers or any(writer.was_hit(since, until) for writer in writers)

    def _find_lingering(self, asked: Asked, log: Sequence[Any]) -> list[int]:
        """The calls that went on although the next attempt had asked: whoever made one should have
        learnt that it does not count, once it was awake and Redis was there.
        """
        ask, lingering = asked.ask, []
        asleep = [
            hit
            for claim in self._claims.get(asked.generation, [])
            for hit in claim.worker.hits
            if hit[1] < inf
        ]
        calls = self._calls.get(request_key(ask.model, user(ask.prompt)), [])
        said: list[Call] = []
        with suppress(AssertionError):  # for the judge to say
            said = find_speakers(ask, log, calls) if log else []
        for call, after in pairwise(call for call in calls if call["surface"] == "chat"):
            if said and call is said[-1]:
                continue  # It is the other that does not count.
            known_at = after["received_at"]
            for since, until in sorted([*asleep, *self._faults.outages]):
                if since <= known_at + _LEARNT_WITHIN_S:
                    known_at = max(known_at, until)
            if call["ended_at"] > known_at + _LEARNT_WITHIN_S:
                lingering.append(call["attempt"])
        return lingering

    def _was_left_alone(self, asked: Asked, record: Mapping[bytes, bytes]) -> bool:
        """Whether no fault is known that costs another call, and none can be unknown.

        A worker that dies between its claim and the line it logs is one of which nothing is known.
        """
        claims = self._claims.get(asked.generation, [])
        known = len(claims) == int(record.get(b"attempts", 0))
        return known and not self._causes(asked, self._faults.pasts.get(asked.generation, []))

    def _causes(self, asked: Asked, pasts: Sequence[Past]) -> list[str]:
        claims = self._claims.get(asked.generation, [])
        causes = ["writes lost"] if pasts else []
        if any(
            claim.worker.was_hit(claim.at - _MOMENT_S, after.at + _MOMENT_S)
            for claim, after in pairwise(claims)
        ):
            causes.append("worker killed, frozen or told to end")
        if asked.ask.fault is not None:
            causes.append("provider failed")
        return causes

    def _describe(self, asked: Asked, evidence: Evidence) -> list[str]:
        """Everything that a diagnosis needs."""
        return [
            f"generation {asked.generation} of {asked.ask}, {evidence.state}",
            f"log: {_told(log_events(evidence.log))}",
            *(
                f"forgotten at {past.at} of {past.writer} behind {past.kept}: "
                f"{_told(log_events(past.entries))}"
                for past in evidence.pasts
            ),
            *(
                f"reader, ended {reader.has_ended}, unknown {reader.not_found} times,"
                f" at {reader.cursor}: {_told(reader.events)}"
                for reader in evidence.readers
            ),
            *(
                f"call {call['attempt']}: {call['outcome']}, brought {call['continues']},"
                f" paid {call['tokens_generated']}, {call['received_at']} to {call['ended_at']}"
                for call in evidence.calls
            ),
            *self._worker_lines(asked.generation),
        ]

    def _worker_lines(self, generation: str) -> list[str]:
        lines = [
            f"{worker.name} {worker.hits}: {line}"
            for worker in self._workers.all
            for line in worker.process.lines
            if generation in line
        ]
        return lines[-_LINES_TOLD:]


def _told(events: Iterable[Event]) -> str:
    """Types and ids; of runs of tokens only the first and the last."""
    told: list[str] = []
    for event in events:
        word = f"{event.type} {event.last_event_id}"
        if event.type == "token" and told and told[-1].startswith("token "):
            told[-1] = f"{told[-1].partition(' … ')[0]} … {event.last_event_id}"
        else:
            told.append(word)
    return ", ".join(told)
