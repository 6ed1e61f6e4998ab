"""What each cursor is answered: 204, 400, 404, the rest of the log, or `reset` and all of it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import quote

import pytest

from shared.connections import Client
from tests.support.api_client import Reply, follow_path
from tests.support.api_process import ApiProcess, open_api
from tests.support.author import Author, token
from tests.support.fold import RESET_ID, fold, fold_log
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import Event

TOO_LONG = timedelta(minutes=5)
"""A wait for a repair that no test survives."""

MALFORMED = (
    *("-1", "1-", "-", "1", "1--2", "1-2-3", "a-b", "0x1-0", "+1-0", "1-+0", "01-0", "1-00"),
    *(" ", "1 -0", "1-0 ", " 1-0", "1.0-0", "*", "$", ">", "(1-0", "1-*", "0-0/", "\u0661-\u0660"),
    *("9" * 40, f"{'9' * 40}-0", f"0-{'9' * 40}", f"{2**64}-0", f"0-{2**64}"),
    *("1-0\x00", "\x001-0", "1-0\r", "1-0\n", "1\n-0", "\n"),
)


PROBLEM = "application/problem+json"
CURSOR_MALFORMED = (400, PROBLEM, "cursor_malformed")
GENERATION_UNKNOWN = (404, PROBLEM, "generation_unknown")


def what(reply: Reply) -> tuple[int, str, str]:
    """What a problem is, in short."""
    return reply.status, reply.headers["content-type"], reply.json["code"]


@pytest.fixture
async def patient_api(valkey: RedisServer) -> AsyncIterator[ApiProcess]:
    """An API that waits for ever for a repair: a reset that comes was sent at once."""
    async with open_api(valkey.url, repair_wait=TOO_LONG) as api:
        yield api


async def write_whole(client: Client) -> Author:
    """A log that is closed."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("Hel"), token("lo"))
    await author.close()
    return author


async def test_a_closed_log_read_to_its_closing_id_is_204(api: ApiProcess, client: Client) -> None:
    """A browser that has seen the end is told to stop reconnecting, with nothing else."""
    author = await write_whole(client)
    for via_header in (True, False):
        async with api.follow(author.generation, author.last_id, via_header=via_header) as answer:
            assert (answer.status, await answer.read_body()) == (204, b"")


async def test_each_id_of_a_log_brings_exactly_what_is_beyond_it(
    api: ApiProcess, client: Client
) -> None:
    """Whatever entry was seen last, the next event is the one after it."""
    author = await write_whole(client)
    ids = [entry_id.decode() for entry_id, _ in await author.raw()]
    for i, cursor in enumerate(ids[:-1]):
        async with api.follow(author.generation, cursor) as follower:
            seen = [event.last_event_id for event in await follower.read_to_end()]
        # The two tokens are told as one where both are history.
        beyond = [each for each in ids[i + 1 :] if each != ids[2] or cursor == ids[2]]
        assert seen == beyond, cursor


async def test_a_late_reader_is_spared_what_was_taken_back(api: ApiProcess, client: Client) -> None:
    """Its history starts at the last reset, wherever before it the cursor stands."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("taken back"))
    earlier = author.last_id
    await author.claim(reset=True)
    await author.say(token("stands"))
    await author.close()
    for cursor in ("", earlier, f"{author.epoch}-0"):
        async with api.follow(author.generation, cursor) as follower:
            events = await follower.read_to_end()
        assert [event.type for event in events] == ["reset", "token", "done"]
        assert fold(events).text == "stands"


async def test_the_header_goes_before_the_query(api: ApiProcess, client: Client) -> None:
    """A page asks with a query once; a browser's reconnect then knows more, by its header."""
    author = await write_whole(client)
    path = f"{follow_path(author.generation)}?last_event_id={author.epoch}-0"
    reply = await api.call("GET", path, headers={"last-event-id": author.last_id})
    assert reply.status == 204


async def test_a_cursor_beyond_a_closed_log_hears_all_of_it_anew_at_once(
    patient_api: ApiProcess, client: Client
) -> None:
    """It names something Redis lost: `reset` with the id 0-0, then the history, nothing silent."""
    author = await write_whole(client)
    said = fold_log(await author.raw())
    for beyond in (f"{author.epoch}-99", f"{author.epoch + 1}-0", "18446744073709551615-0"):
        async with patient_api.follow(author.generation, beyond) as follower:
            reset, *events = await follower.read_to_end()
        assert Event("reset", "{}", RESET_ID) == reset
        assert said == fold(events)


async def test_a_cursor_between_epochs_hears_all_of_it_anew_at_once(
    patient_api: ApiProcess, client: Client
) -> None:
    """What comes next does not stand on a cursor that no entry has: the reader must forget."""
    author = await Author.create(client)
    await author.claim()
    await author.say(token("a"))
    lost = [f"{author.epoch}-{seq}" for seq in (2, 3, 99)]
    await author.claim()
    await author.say(token("b"))
    await author.close()
    said = fold_log(await author.raw())
    for cursor in ("0-1", *lost):
        async with patient_api.follow(author.generation, cursor) as follower:
            reset, *events = await follower.read_to_end()
        assert Event("reset", "{}", RESET_ID) == reset
        assert said == fold(events)


async def test_a_cursor_ahead_of_a_queued_generation_hears_all_of_it_anew_at_once(
    patient_api: ApiProcess, client: Client
) -> None:
    """Nobody holds the log, so nobody can repair what the reader saw."""
    author = await Author.create(client)
    async with patient_api.follow(author.generation, "18446744073709551615-5") as follower:
        assert [event.type for event in await follower.read_n(2)] == ["reset", "queued"]


async def test_a_malformed_cursor_is_a_problem(api: ApiProcess, client: Client) -> None:
    """What no log can have issued is refused, not guessed at; by the query, as HTTP allows all."""
    path = follow_path((await write_whole(client)).generation)
    for cursor in MALFORMED:
        reply = await api.call("GET", f"{path}?last_event_id={quote(cursor, safe='')}")
        assert what(reply) == CURSOR_MALFORMED, repr(cursor)


async def test_a_malformed_header_is_a_problem_too(api: ApiProcess, client: Client) -> None:
    """The same by the header, as far as HTTP lets it through."""
    path = follow_path((await write_whole(client)).generation)
    for cursor in ("-1", "1-", "9" * 40, "1-2-3", "\u0661-\u0660"):
        reply = await api.call("GET", path, headers={"last-event-id": cursor})
        assert what(reply) == CURSOR_MALFORMED, repr(cursor)


async def test_a_generation_that_is_not_there_is_404(api: ApiProcess) -> None:
    """Unknown, or no id at all: the answer is the same, and a browser stops asking."""
    for generation in ("gen_" + "a" * 32, "gen_", "nope", "gen_" + "A" * 32, "%00", "0-0"):
        of_it = f"/v1/generations/{generation}"
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
            reply = await api.call(method, of_it + path)
            assert what(reply) == GENERATION_UNKNOWN, (method, of_it + path)


async def test_a_generation_whose_retention_is_over_is_404(api: ApiProcess, client: Client) -> None:
    """Once record and log are gone, every cursor finds nothing."""
    author = await write_whole(client)
    await author.delete()
    for cursor in ("", author.last_id, "0-0"):
        async with api.follow(author.generation, cursor) as answer:
            assert answer.status == 404
