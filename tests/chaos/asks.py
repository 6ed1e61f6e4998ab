"""What is asked for in a run: drawn from the seed alone, whatever the run does to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from tests.support.stack import MODEL

LADDER: Final[Mapping[str, Sequence[str]]] = {
    "standin-bg": ("reattach", "continue", "restart"),
    "standin-c": ("continue", "restart"),
    "*": ("restart",),
}
"""What the workers do after an attempt that died, by model; the stand-in answers to any name."""

MODELS: Final = (MODEL, "standin-c", "standin-bg")

# Slow enough for something to happen to an answer, quick enough to be told from a stalled one.
_TOKENS = (20, 120)
_TOKENS_PER_SECOND = (12, 30)
_KINDS = ("prose", "prose", "plain", "lines", "unicode")

FaultKind = Literal["cut", "end", "status"]

_FAULTS: Final[Sequence[FaultKind]] = ("cut", "status", "cut", "end")
"""In turn, so that even a short run has each."""

_FAULT_ONE_IN, _CANCEL_ONE_IN, _CHAT_ONE_IN = 6, 10, 7


@dataclass(frozen=True, slots=True)
class ProviderFault:
    """What the model server does wrong."""

    kind: FaultKind
    """The connection is cut; the answer ends without a reason; the request is refused."""
    after: int = 0
    """That many tokens of what it was going to say."""
    times: int | None = None
    """It befalls only that many requests for the same content; all of them if None."""

    @property
    def words(self) -> list[str]:
        """The same for the stand-in."""
        what = "status=503" if self.kind == "status" else f"{self.kind}_after={self.after}"
        return [what] if self.times is None else [what, f"times={self.times}"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One generation that a client will want.

    Every attempt of the model says other words (`vary=1`), so that two attempts that mix in one
    answer cannot go unnoticed.
    """

    number: int
    key: str
    """Its idempotency key: the client repeats the request until it is accepted."""
    prompt: str
    model: str = MODEL
    fault: ProviderFault | None = None
    cancel_after: int | None = None
    """The client cancels it once it has seen that many events."""
    readers: int = 1
    is_chat: bool = False
    """Asked by `GET /chat/stream`, whose one reader cannot be told to forget."""

    @property
    def body(self) -> dict[str, str]:
        """What is sent to `POST /v1/generations`."""
        return {"prompt": self.prompt, "model": self.model}

    @property
    def rungs(self) -> Sequence[str]:
        """What may follow an attempt that died."""
        return LADDER.get(self.model, LADDER["*"])


def draw_asks(seed: int) -> Iterator[Ask]:
    """Asks without end."""
    number = 0
    while True:
        yield _draw(seed, number, Random(f"{seed}/ask/{number}"))
        number += 1


def _draw(seed: int, number: int, random: Random) -> Ask:
    tokens = random.randint(*_TOKENS)
    pace = random.randint(*_TOKENS_PER_SECOND)
    is_chat = number % _CHAT_ONE_IN == 6
    # A model that goes on from what it said needs it to the letter; this surface makes CR LF.
    kind = "prose" if is_chat else random.choice(_KINDS)
    turn, rest = divmod(number, _FAULT_ONE_IN)
    fault = _draw_fault(random, _FAULTS[turn % len(_FAULTS)], tokens) if rest == 3 else None
    cancels = not is_chat and number % _CANCEL_ONE_IN == 5
    words = [f"tokens={tokens}", f"pace={pace}", f"kind={kind}", "vary=1"]
    words += fault.words if fault else []
    return Ask(
        number=number,
        key=f"{seed}/{number}",
        prompt=f"[standin {' '.join(words)}] Chaos {seed}/{number}",
        model=random.choice(MODELS),
        fault=fault,
        cancel_after=random.randint(1, tokens) if cancels else None,
        readers=1 if is_chat else random.randint(1, 3),
        is_chat=is_chat,
    )


def _draw_fault(random: Random, kind: FaultKind, tokens: int) -> ProviderFault:
    if kind == "status":
        # Twice is still mended: a third failure of the same generation would end it.
        return ProviderFault(kind, times=random.randint(1, 2))
    return ProviderFault(kind, random.randint(0, tokens), random.choice((None, 1)))
