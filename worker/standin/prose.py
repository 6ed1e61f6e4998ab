"""English that is pleasant to watch growing, in pieces like a model's tokens."""

import re
from collections.abc import Iterator
from functools import lru_cache
from random import Random

PARAGRAPH = "\n\n"

_SENTENCES = (
    "A {river} does not ask who is watching before it {moves}.",
    "When the bridge is out, the water waits for nobody, and yet nothing of it is lost.",
    "You can {leave} for an hour and find the same {river}, a little further on.",
    "What matters is a {place} to come back to, written down before the {storm} begins.",
    "Every {drop} carries a number, so the reader always knows which one comes next.",
    "A {storm} may carry off the boat, but the {river} keeps {steady} time.",
    "Somebody upstream is still speaking, {word} after {word}, at a {steady} pace.",
    "The {keeper} writes each {word} down once, and reads it aloud as often as you like.",
    "If the lantern goes out in the middle of a sentence, the sentence is still there.",
    "There is no hurry: the page you {leave} is the page you will return to.",
    "Half of patience is a good memory, and the other half is a {steady} {river}.",
    "The {keeper} never guesses; an empty line in the book is an answer as well.",
    "Two travellers on different banks can {follow} the same {river} without dividing it.",
    "Late arrivals hear the story from its beginning, only somewhat faster.",
    "Between one {drop} and the next there is room for a whole {storm}.",
    "A stone thrown into the {river} makes a ring, and the ring {moves} outward in order.",
    "It is better to say that the path has changed than to pretend it goes on.",
    "What was said twice is heard once, because the {keeper} can count.",
    "The mountain forgets the snow, the snow forgets the sky, but the {river} remembers both.",
    "Follow the {place} you last touched, and the rest will {follow} you.",
)
_WORDS = {
    "river": ("river", "stream", "current", "brook", "tide", "narrow canal"),
    "drop": ("drop", "ripple", "syllable", "fragment", "small wave"),
    "moves": ("moves", "wanders", "hurries", "continues", "drifts"),
    "leave": ("leave", "disconnect", "look away", "close your eyes"),
    "follow": ("follow", "accompany", "rejoin"),
    "place": ("bookmark", "landmark", "notch", "footprint", "remembered place"),
    "storm": ("storm", "silence", "thunderstorm", "long tunnel", "disconnection"),
    "steady": ("steady", "patient", "quiet", "measured", "companionable"),
    "word": ("word", "token", "phrase", "letter"),
    "keeper": ("keeper", "librarian", "ferryman", "lighthouse keeper", "bookkeeper"),
}
_CLOSERS = (
    "Onward.",
    "It flows.",
    "The thread holds.",
    "Nothing was lost here.",
    "The water keeps its place.",
    "Every word arrived in its order.",
)
_REFUSAL = "I am sorry, but I cannot help with that."
_ECHO_WORDS = 8
_ECHO_WORD_CHARACTERS = 24
_SPLIT_FROM_CHARACTERS = 9
_MIN_LAST_PARAGRAPH = 24


@lru_cache(maxsize=8192)
def tokens_of(text: str) -> tuple[str, ...]:
    """Words with the space before them, punctuation, and some long words in two pieces."""
    pieces: list[str] = []
    for piece in re.findall(r" ?\w+| ?[^\w\s]|\s", text):
        if len(piece) >= _SPLIT_FROM_CHARACTERS and ord(piece[-1]) % 2:
            middle = len(piece) * 2 // 3
            pieces += (piece[:middle], piece[middle:])
        else:
            pieces.append(piece)
    return tuple(pieces)


_CLOSERS_BY_LENGTH = {len(tokens_of(" " + closer)): closer for closer in _CLOSERS}
_LONGEST_CLOSER = max(_CLOSERS_BY_LENGTH)


def prose(random: Random, prompt: str, count: int, *, paragraphs: bool) -> list[str]:
    """Exactly count tokens that end with a sentence's end (from two tokens on)."""
    tokens: list[str] = []
    sentences = _sentences(random, prompt)
    until_paragraph = 2
    while (left := count - len(tokens)) > 0:
        sentence = tokens_of(" " + next(sentences))
        rest = left - len(sentence)
        if rest >= 0 and rest != 1:
            at_start = not tokens or tokens[-1] == PARAGRAPH
            tokens += (sentence[0].lstrip(), *sentence[1:]) if at_start else sentence
            until_paragraph -= 1
        else:
            tokens += _closing(left, at_start=not tokens or tokens[-1] == PARAGRAPH)
        if paragraphs and not until_paragraph and count - len(tokens) > _MIN_LAST_PARAGRAPH:
            tokens.append(PARAGRAPH)
            until_paragraph = random.randint(3, 5)
    return tokens


def refusal(count: int | None) -> list[str]:
    """What a model says that will not answer, repeated or cut to count tokens if given."""
    sentence = tokens_of(_REFUSAL)
    if count is None:
        return list(sentence)
    tokens = list(sentence)
    while len(tokens) < count:
        tokens += tokens_of(" " + _REFUSAL)
    return tokens[:count]


def _sentences(random: Random, prompt: str) -> Iterator[str]:
    # Only words, so that the echo brings in no newline, quote or lone surrogate.
    words = re.findall(r"\w+", prompt[:4096])
    if words:
        echo = " ".join(word[:_ECHO_WORD_CHARACTERS] for word in words[:_ECHO_WORDS])
        yield f"You asked about “{echo}{'…' if len(words) > _ECHO_WORDS else ''}”."
    while True:
        for sentence in random.sample(_SENTENCES, len(_SENTENCES)):
            yield sentence.format_map({slot: random.choice(w) for slot, w in _WORDS.items()})


def _closing(left: int, *, at_start: bool) -> Iterator[str]:
    if left == 1:
        yield "Onward" if at_start else "."
        return
    while left:
        length = min(left, _LONGEST_CLOSER)
        if left - length == 1:
            length -= 1
        first, *rest = tokens_of(" " + _CLOSERS_BY_LENGTH[length])
        yield first.lstrip() if at_start else first
        yield from rest
        left -= length
        at_start = False
