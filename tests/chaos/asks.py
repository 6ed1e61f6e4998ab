"""What is asked for in a run: drawn from the seed alone, whatever the run does to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

# Slow enough for something to happen to an answer, quick enough to be told from a stalled one.
_TOKENS = (20, 120)
_TOKENS_PER_SECOND = (12, 30)
_KINDS = ("prose", "prose", "plain", "lines", "unicode")
_CUT_ONE_IN = 7
_CANCEL_ONE_IN = 10


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
    cut_after: int | None
    """The provider's connection is cut after that many tokens, in every attempt."""
    cancel_after: int | None
    """The client cancels it once it has seen that many events."""
    readers: int


def draw_asks(seed: int) -> Iterator[Ask]:
    """Asks without end."""
    number = 0
    while True:
        random = Random(f"{seed}/ask/{number}")
        tokens = random.randint(*_TOKENS)
        words = [
            f"tokens={tokens}",
            f"pace={random.randint(*_TOKENS_PER_SECOND)}",
            f"kind={random.choice(_KINDS)}",
            "vary=1",
        ]
        cut_after = random.randint(0, tokens) if number % _CUT_ONE_IN == 3 else None
        if cut_after is not None:
            words.append(f"cut_after={cut_after}")
        cancels = number % _CANCEL_ONE_IN == 5
        yield Ask(
            number=number,
            key=f"{seed}/{number}",
            prompt=f"[standin {' '.join(words)}] Chaos {seed}/{number}",
            cut_after=cut_after,
            cancel_after=random.randint(1, tokens) if cancels else None,
            readers=random.randint(1, 3),
        )
        number += 1
