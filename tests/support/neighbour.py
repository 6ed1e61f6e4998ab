"""A generation that runs beside what goes wrong in a worker, and what that worker logged of it."""

import json
from dataclasses import dataclass
from typing import Any, Self

from shared.ids import GenerationId
from tests.support.processes import Process
from tests.support.stack import expected_text
from tests.support.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Neighbour:
    """It must not notice."""

    shop: Workshop
    generation: GenerationId
    prompt: str

    @classmethod
    async def begin(cls, shop: Workshop, tokens: int = 50) -> Self:
        """Have one accepted, and wait until it has begun to speak."""
        prompt = f"[standin tokens={tokens} pace=30 vary=1] {len(shop.standin.ledger.entries)}"
        generation = await shop.accept(prompt)
        await shop.wait_type(generation, "token")
        return cls(shop, generation, prompt)

    async def check(self) -> None:
        """It ends as it should, in the one attempt in which it began."""
        folded = await self.shop.closed(self.generation)
        assert (folded.closing_type, folded.text) == ("done", expected_text(self.prompt))
        assert [attempt["resume"] for attempt in folded.attempts] == ["fresh"]


async def check_alive(shop: Workshop) -> None:
    """The worker does the next job as if nothing had been."""
    prompt = "[standin tokens=3] Still alive"
    assert (await shop.closed(await shop.accept(prompt))).text == expected_text(prompt)


def logged(worker: Process, event: str, text: str = "") -> list[dict[str, Any]]:
    """What the worker logged under that name, in lines that hold `text`."""
    lines = [json.loads(line) for line in worker.lines if line.startswith("{") and text in line]
    return [line for line in lines if line["event"] == event]
