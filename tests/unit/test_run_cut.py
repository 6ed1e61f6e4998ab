"""An answer that is cut anywhere, in any way, is the same answer: byte for byte, asked for once."""

import asyncio
from collections.abc import Sequence
from itertools import product
from typing import Literal

from hypothesis import example, given
from hypothesis import strategies as st

from shared.generation import Surface
from tests.support.fold import Folded
from tests.support.owning import Cut, Owning, RunServer, drained, play_owning
from tests.support.scripted_model import BREAK, SILENCE, Told, call, ended, of, piece, text
from tests.support.virtual_clock import pass_time
from worker.outcome import Outcome

Way = Literal["connection cut", "worker drained", "worker fenced"]
WAYS: tuple[Way, ...] = ("connection cut", "worker drained", "worker fenced")
Plan = list[tuple[str, str]]

kinds = st.sampled_from(["text", "text", "text", "reasoning", "refusal", "call", "piece"])
pieces = st.sampled_from(["a", "é", "\r", "\n", "b\r", "\nc", "\r\n", "\ud83d", "\ude00", ""])
plans = st.lists(st.tuples(kinds, pieces), min_size=1, max_size=6)


def told_of(plan: Plan) -> list[Told]:
    """The run that says it; a piece of no call begins one."""
    told, calls = list[Told](), 0
    for kind, said in plan:
        if kind == "call" or (kind == "piece" and not calls):
            calls += 1
            told.append(call(calls, "f", said))
        elif kind == "piece":
            told.append(piece(calls, said))
        elif kind == "text":
            told.append(text(said))
        else:
            name = {"reasoning": "reasoning_text", "refusal": "refusal"}[kind]
            told.append(of(f"response.{name}.delta", delta=said))
    return [*told, ended("completed")]


def answer(told: Sequence[Told], surface: Surface, way: Way, cut: int | None) -> Folded:
    """What the log says of a run whose first reading ended behind event `cut`."""
    ends: list[Cut] = [(cut, BREAK if way == "connection cut" else SILENCE)] if cut else []
    server = RunServer(told, cuts=ends)
    got: list[Folded] = []

    async def act(owning: Owning) -> None:
        generation = await owning.stores.create(surface=surface)
        first = asyncio.create_task(owning.own(generation).run())
        if ends and way != "connection cut":
            await pass_time(owning.tools.settings.renewal * 4)
            if way == "worker drained":
                first.cancel()
                await drained(first)
            assert await owning.own(generation, "v/1").run() is Outcome.FINISHED
        if not first.cancelled():
            await first
        assert (server.begun, server.ended, server.left_open) == (["resp_1"], [], 0)
        got.append(await owning.folded(generation))

    play_owning(server, act)
    (folded,) = got
    return folded


@given(plan=plans, surface=st.sampled_from(list(Surface)), how=st.data())
@example(plan=[("text", "a\r"), ("call", ""), ("text", "\nb")], surface=Surface.CHAT, how=None)
@example(plan=[("text", "\r"), ("reasoning", "a"), ("text", "\n")], surface=Surface.CHAT, how=None)
@example(plan=[("text", "a\ud83d"), ("call", "\ude00")], surface=Surface.NATIVE, how=None)
@example(plan=[("text", "a"), ("text", "b\ud83d")], surface=Surface.NATIVE, how=None)
@example(plan=[("call", "{"), ("piece", "}"), ("call", "{")], surface=Surface.NATIVE, how=None)
def test_a_cut_answer_is_the_whole_answer(
    plan: Plan, surface: Surface, how: st.DataObject | None
) -> None:
    """Halves of characters and of line ends, calls and all other kinds, wherever it ends."""
    told = told_of(plan)
    whole = answer(told, surface, "connection cut", None)
    cuts = list(product(WAYS, range(1, len(plan) + 1)))
    for way, cut in cuts if how is None else [how.draw(st.sampled_from(cuts))]:
        got = answer(told, surface, way, cut)
        assert (got.closing_type, got.closing_data) == (whole.closing_type, whole.closing_data)
        assert (got.text, got.reasoning, got.refusal) == (
            whole.text,
            whole.reasoning,
            whole.refusal,
        )
        assert got.tool_calls == whole.tool_calls
