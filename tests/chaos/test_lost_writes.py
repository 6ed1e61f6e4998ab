"""Redis loses its last writes, acknowledged ones, and nobody reads a wrong byte or waits for ever.

By a file that ends too early, and by a replica that was behind. What happens is staged once for
each (`tests.support.lost_writes`); each test judges one generation of it. All begin with the proof
that something was lost, since SIGKILL alone loses nothing.
"""

import asyncio
from typing import cast

import pytest

from tests.support.fold import RESET_ID
from tests.support.losing_redis import Way
from tests.support.lost_writes import STALLED, lose_writes
from tests.support.promises import PROMISES
from tests.support.redis_server import Kind
from tests.support.stack import expected_text, expected_tokens
from tests.support.story import Seen, Story, held, kinds, positions

PROBED_S = 2.0
"""From the moment Redis answers again, for a log whose owner lives and is silent."""

SLACK_S = 1.5
"""For a machine that does other things."""

LOSSES = [
    pytest.param(("file", "valkey"), id="file-valkey"),
    pytest.param(("file", "redis"), id="file-redis", marks=pytest.mark.redis_server),
    pytest.param(("replica", "valkey"), id="replica-valkey"),
    pytest.param(("replica", "redis"), id="replica-redis", marks=pytest.mark.redis_server),
]


# Plain, without an event loop: what it saw outlives the loop of each single test.
@pytest.fixture(scope="module", params=LOSSES)
def seen(request: pytest.FixtureRequest) -> Seen:
    """One loss, staged once for all tests of it."""
    way, kind = cast(tuple[Way, Kind], request.param)
    return asyncio.run(lose_writes(way, kind))


def told(seen: Seen, name: str) -> Story:
    """One story, with its proof that something was lost."""
    story = seen.stories[name]
    story.check_something_was_lost()
    return story


def check_readers_noticed_nothing(story: Story) -> None:
    """Nobody was told to forget, and all hold what the log says."""
    for reader in story.readers:
        assert "reset" not in reader.types()
        assert held(reader) == story.folded
    assert story.stayed.statuses == [200]


def check_readers_began_anew(story: Story) -> None:
    """Who had what was lost was told so, once; all hold what the log says."""
    for reader in (story.stayed, story.came_back):
        assert [event.last_event_id for event in reader.events].count(RESET_ID) == 1
    for reader in story.readers:
        assert held(reader) == story.folded


def test_what_a_speaking_owner_wrote_is_there_again(seen: Seen) -> None:
    """Under the same ids, byte for byte; readers ahead of the log wait and go on."""
    story = told(seen, "speaking")
    assert story.after[: len(story.before)] == story.before
    assert kinds(story.after).count("started") == 1
    assert story.outcome == ("done", expected_text(story.prompt))
    check_readers_noticed_nothing(story)
    assert story.asked == 1


def test_what_a_silent_owner_wrote_is_there_again(seen: Seen) -> None:
    """It has no reason to write, and looks: nobody has to wait for its next word."""
    story = told(seen, "silent")
    assert story.recovered_s <= PROBED_S + SLACK_S
    assert story.after[: len(story.before)] == story.before
    said = "".join(expected_tokens(story.prompt)[: STALLED["silent"]])
    assert story.outcome == ("cancelled", said)
    check_readers_noticed_nothing(story)
    assert story.asked == 1


def test_an_end_that_was_lost_is_written_again(seen: Seen) -> None:
    """Its writer had kept all of it for a while: the log is what it was, to the last byte."""
    story = told(seen, "ending")
    assert kinds(story.before)[-1] == "done"
    assert story.after == story.before
    assert story.outcome == ("done", expected_text(story.prompt))
    check_readers_noticed_nothing(story)
    assert story.asked == 1


def test_a_cancel_that_was_lost_is_cancelled_again(seen: Seen) -> None:
    """The API has closed it and is gone; the worker that was stopped by that closes it again."""
    story = told(seen, "cancelled")
    assert kinds(story.before)[-1] == "cancelled"
    assert story.after[:-1] == story.before[:-1]
    assert story.outcome[0] == "cancelled"
    for reader in story.readers:
        assert (held(reader).closing_type, held(reader).text) == story.outcome
    assert story.asked == 1


def test_what_was_deleted_is_deleted_again(seen: Seen) -> None:
    """The loss brought it back; as with a cancel its worker knows, and nobody reads it later."""
    story = told(seen, "deleted")
    assert story.folded.closing_type == "cancelled"
    assert story.shown == {}
    assert story.late is not None
    assert story.late.statuses == [404]
    assert story.asked == 1


@pytest.mark.parametrize("name", ["claimed", "claimed_silent"])
def test_a_claim_that_was_lost_is_dropped_and_never_used_again(seen: Seen, name: str) -> None:
    """The job runs again in another epoch; readers of the lost one forget it."""
    story = told(seen, name)
    assert kinds(story.kept) == ["queued"]
    lost = {at.epoch for at in positions(story.before)} - {at.epoch for at in positions(story.kept)}
    assert len(lost) == 1
    assert lost.isdisjoint(at.epoch for at in positions(story.after))
    assert story.outcome == ("done", expected_text(story.prompt, attempt=2))
    check_readers_began_anew(story)
    assert story.asked == 2


def test_a_creation_that_was_lost_ends_its_readers_and_is_made_anew_when_asked(seen: Seen) -> None:
    """Nobody is held for what does not exist; the same key makes the same generation again."""
    story = told(seen, "created")
    assert story.kept == []
    assert story.stayed.statuses == [200, 404]
    assert story.came_back.statuses == [200, 404]
    assert (seen.again.status, seen.again.json["id"]) == (202, story.generation)
    assert story.outcome == ("done", expected_text(story.prompt, attempt=2))
    assert story.late is not None
    assert held(story.late) == story.folded
    assert story.asked == 2


def test_what_a_dead_owner_wrote_is_taken_back(seen: Seen) -> None:
    """Another goes on from what is left; readers of what is not are told to forget it."""
    story = told(seen, "orphaned")
    assert story.after[: len(story.kept)] == story.kept
    lost = story.before[len(story.kept) :]
    assert not [entry for entry in story.after if entry in lost]
    assert story.outcome == ("done", expected_text(story.prompt, attempt=2))
    check_readers_began_anew(story)
    assert story.asked == 2


def test_everything_recovers_within_the_stated_bound(seen: Seen) -> None:
    """Lease, mark and two seconds after Redis answered, every log is whole or has a new owner."""
    bound_s = PROMISES["Redis lost writes"].bound.within().total_seconds()
    late = {name: s.recovered_s for name, s in seen.stories.items()}
    assert {n: after for n, after in late.items() if after > bound_s + SLACK_S} == {}


def test_every_reader_comes_to_an_end(seen: Seen) -> None:
    """Nobody is left with heartbeats, not even one that had the closing entry while it was lost."""
    hanging = [
        (name, at)
        for name, story in seen.stories.items()
        for at, reader in enumerate(story.readers)
        if not reader.has_ended
    ]
    assert hanging == []


def test_nothing_is_left_behind(seen: Seen) -> None:
    """I8: no job, no owner, no call to the model."""
    assert seen.left == []
