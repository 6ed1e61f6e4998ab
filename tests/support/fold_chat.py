"""The oracle of `/chat/stream`: what its events say to a client, and what may not be wrong."""

from collections.abc import Iterable

from tests.support.fold import CLOSING_TYPES, WIRE_ONLY_TYPES, Folded, check_ids
from tests.support.sse_reader import Event


def fold_chat(events: Iterable[Event]) -> Folded:
    """Append every token's text as it is; ids rise, one closing event, last.

    Raises:
        AssertionError: an invariant does not hold.
    """
    folded = Folded()
    for event in events:
        if event.type in WIRE_ONLY_TYPES:
            continue
        assert folded.closing_type is None, f"I4: {event.type} after {folded.closing_type}"
        if event.type in CLOSING_TYPES:
            folded.closing_type = event.type
        elif event.type == "token":
            folded.text += event.data
        folded.ids.append(event.last_event_id)
    check_ids(folded.ids)
    return folded


def naive_text(body: bytes) -> str:
    """What a consumer prints that splits at newlines and takes each `data: ` line as a token."""
    lines = body.decode().split("\n")
    return "".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
