"""One kind of line end, however the model cuts its text."""

from itertools import groupby
from operator import itemgetter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.events import JOINABLE, Event, EventType
from worker.newlines import LineFeeds

pieces = st.lists(st.text(alphabet="\r\n ax", max_size=4), max_size=8)


def converted(said: list[Event]) -> dict[EventType, str]:
    """Every kind of text after the conversion."""
    line_feeds, texts = LineFeeds(), dict.fromkeys(JOINABLE, "")
    for event in said:
        for left, _ in line_feeds.convert(event, None):
            assert left.data["text"] != ""
            texts[left.type] += left.data["text"]
    for left, _ in line_feeds.flush():
        texts[left.type] += left.data["text"]
    assert line_feeds.flush() == []
    return texts


@given(pieces)
@example(["a\r", "\nb"])
@example(["a\r", "", "\nb"])
@example(["\r", "\r", "\n", "\n"])
@example(["a\r", "\n"])
def test_any_cutting_of_a_text_is_converted_like_the_whole(texts: list[str]) -> None:
    """CR and CRLF become LF, halves of a CRLF in two tokens included."""
    said = [Event(EventType.TOKEN, {"text": text}) for text in texts]
    whole = "".join(texts).replace("\r\n", "\n").replace("\r", "\n")
    assert converted(said)[EventType.TOKEN] == whole


@given(st.lists(st.tuples(st.sampled_from(sorted(JOINABLE)), st.text("\r\nx", max_size=3))))
@example([(EventType.TOKEN, "a\r"), (EventType.REASONING, "\nb")])
@example([(EventType.TOKEN, "a\r"), (EventType.REASONING, "b"), (EventType.TOKEN, "\nc")])
def test_each_kind_of_text_is_converted_for_itself(said: list[tuple[EventType, str]]) -> None:
    """Whatever is said in a row is converted like the whole; another kind between ends a row."""
    expected = dict.fromkeys(JOINABLE, "")
    for kind, row in groupby(said, key=itemgetter(0)):
        text = "".join(piece for _, piece in row)
        expected[kind] += text.replace("\r\n", "\n").replace("\r", "\n")
    assert converted([Event(kind, {"text": text}) for kind, text in said]) == expected


@pytest.mark.parametrize("kind", sorted(set(EventType) - JOINABLE))
def test_what_is_not_text_passes_untouched(kind: EventType) -> None:
    """Arguments of a tool call are JSON, where CR is not a line end."""
    event = Event(kind, {"index": 0, "arguments": "\r\n"})
    assert LineFeeds().convert(event, 3) == [(event, 3)]
