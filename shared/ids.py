"""The two kinds of id: of a generation, and of an entry in its log."""

import base64
import hashlib
import re
import secrets
from typing import Final, NamedTuple, NewType

from shared.errors import CursorMalformed, GenerationUnknown

GenerationId = NewType("GenerationId", str)
"""`gen_` and 32 characters of base32 (160 bits): unguessable, since whoever knows it may read."""

_ID_BYTES: Final = 20
_GENERATION_ID: Final = re.compile(r"gen_[a-z2-7]{32}", re.ASCII)

MAX_PART: Final = 2**64 - 1
"""Both halves of a stream id are unsigned 64-bit numbers. Source: Redis, `t_stream.c`."""
_ENTRY_ID: Final = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)


def draw_generation_id() -> GenerationId:
    """Return a fresh random id."""
    return _generation_id(secrets.token_bytes(_ID_BYTES))


def derive_generation_id(*parts: str, secret: bytes) -> GenerationId:
    """Return the one id that `parts` (tenant, idempotency key, …) name under `secret`.

    The hash is keyed, so that knowing somebody's idempotency key is not knowing the id.
    """
    digest = hashlib.blake2b(digest_size=_ID_BYTES, key=hashlib.sha256(secret).digest())
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return _generation_id(digest.digest())


def _generation_id(raw: bytes) -> GenerationId:
    return GenerationId("gen_" + base64.b32encode(raw).decode().lower())


def parse_generation_id(text: str) -> GenerationId:
    """Return `text` as an id. Raises: GenerationUnknown, since no such generation can exist."""
    if not _GENERATION_ID.fullmatch(text):
        raise GenerationUnknown
    return GenerationId(text)


class EntryId(NamedTuple):
    """`<epoch>-<seq>`: the position of one entry, the cursor after it, and the SSE `id:`.

    Tuples compare as Redis compares stream ids, so order of ids is order of the log.
    """

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @property
    def successor(self) -> "EntryId":
        """The next id of the same epoch: within one epoch ids are dense."""
        return EntryId(self.epoch, self.seq + 1)


BEGINNING: Final = EntryId(0, 0)
"""The cursor before every entry. No entry has it: Redis refuses 0-0."""


def parse_entry_id(text: str) -> EntryId:
    """Read a cursor from outside, in its one canonical spelling. Raises: CursorMalformed."""
    match = _ENTRY_ID.fullmatch(text)
    if match is None:
        raise CursorMalformed
    epoch, seq = int(match[1]), int(match[2])
    if epoch > MAX_PART or seq > MAX_PART:
        raise CursorMalformed
    return EntryId(epoch, seq)


def decode_entry_id(raw: bytes) -> EntryId:
    """Read an id that Redis itself wrote."""
    epoch, _, seq = raw.partition(b"-")
    # As EntryId(…), in half the time: what a follower is given is decoded entry by entry.
    return tuple.__new__(EntryId, (int(epoch), int(seq)))
