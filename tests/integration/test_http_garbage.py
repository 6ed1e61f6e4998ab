"""What somebody else wrote into the keys of one generation: its clients are told, others go on."""

from contextlib import AsyncExitStack

import pytest

from shared.connections import Client
from shared.events import Event, EventType
from shared.generation import Surface
from shared.ids import parse_entry_id
from shared.keys import Keys
from tests.support.api_client import follow_path
from tests.support.api_process import ApiProcess
from tests.support.author import Author, token
from tests.support.follower import End
from tests.support.reading import Reading

KEYS = Keys()
WRONG = ["request", "state", "epoch", "deadline", "record", "log"]


async def spoil(client: Client, author: Author, what: str) -> None:
    """Write over a field of the record, or put a list in the place of a key."""
    record, log = KEYS.record(author.generation), KEYS.log(author.generation)
    if what in ("record", "log"):
        key = record if what == "record" else log
        await client.call_all((("DEL", key), ("RPUSH", key, "garbage"), ("EXPIRE", key, 60)))
    else:
        await client.call("HSET", record, what, "garbage")


@pytest.mark.parametrize("what", WRONG)
async def test_what_cannot_be_read_is_a_problem_of_its_own(
    api: ApiProcess, client: Client, what: str
) -> None:
    """Show and follow, and cancel where it would write: a clean 500 that a program can tell."""
    author = await Author.create(client)
    await author.claim()
    await spoil(client, author, what)
    of_it = f"/v1/generations/{author.generation}"
    calls = [("GET", of_it), ("GET", follow_path(author.generation))]
    if what != "request":
        calls.append(("POST", f"{of_it}/cancel"))
    for method, path in calls:
        reply = await api.call(method, path)
        assert (reply.status, reply.json["code"]) == (500, "record_unreadable"), (method, path)
        assert reply.headers["content-type"] == "application/problem+json"
        assert b"garbage" not in reply.body


async def reconnect(client: Client) -> None:
    """Have the hub lose its connection: it compares everything that is followed when it is back."""
    told: str = (await client.call("CLIENT", "LIST")).decode()
    (hub,) = (line for line in told.splitlines() if " name=rejoin-hub " in line)
    await client.call("CLIENT", "KILL", "ID", hub.split()[0].removeprefix("id="))


@pytest.mark.parametrize("surface", Surface)
@pytest.mark.parametrize("what", ["state", "deadline", "record", "log"])
async def test_garbage_under_one_follower_disturbs_no_other(
    api: ApiProcess, client: Client, what: str, surface: Surface
) -> None:
    """The hub reads and compares both: the one response ends cleanly, the other goes on."""
    spoilt, other = await Reading.begin(client, surface), await Reading.begin(client, surface)
    async with spoilt.open(api.api_url) as victim, other.open(api.api_url) as follower:
        assert (victim.status, follower.status) == (200, 200)
        await spoil(client, spoilt.author, what)
        await reconnect(client)
        await victim.read_to_end()
        assert victim.end is End.CLEAN
        await other.author.say(token("more"))
        await other.author.close()
        await other.check(await follower.read_to_end())
        assert follower.end is End.CLEAN


async def test_an_entry_that_is_none_of_ours_disturbs_no_other_log(
    api: ApiProcess, client: Client
) -> None:
    """It is met by the one connection that reads for all."""
    spoilt, other = [await Reading.begin(client, Surface.NATIVE) for _ in range(2)]
    async with spoilt.open(api.api_url) as victim, other.open(api.api_url) as follower:
        assert (victim.status, follower.status) == (200, 200)
        await client.call("XADD", KEYS.log(spoilt.author.generation), "*", "dance", "garbage")
        await victim.read_to_end()
        assert victim.end is End.CLEAN
        await other.author.close()
        await other.check(await follower.read_to_end())


@pytest.mark.parametrize(
    ("kind", "data"),
    [("token", "garbage"), ("started", '{"prev":"garbage"}'), ("started", "[]"), ("dance", "{}")],
)
async def test_an_entry_that_cannot_be_told_ends_the_responses_of_its_log_alone(
    api: ApiProcess, client: Client, kind: str, data: str
) -> None:
    """Whoever follows it, one or many; and who comes back is told why."""
    spoilt, other = [await Reading.begin(client, Surface.NATIVE) for _ in range(2)]
    async with (
        spoilt.open(api.api_url) as one,
        spoilt.open(api.api_url) as two,
        other.open(api.api_url) as follower,
    ):
        assert {one.status, two.status, follower.status} == {200}
        beyond = f"{parse_entry_id(spoilt.author.last_id).epoch + 1}-0"
        log = KEYS.log(spoilt.author.generation)
        await client.call("XADD", log, beyond, "t", kind, "d", data)
        for victim in (one, two):
            await victim.read_to_end()
            assert victim.end is End.CLEAN
        await other.author.close()
        await other.check(await follower.read_to_end())
    again = await api.call("GET", follow_path(spoilt.author.generation))
    assert (again.status, again.json["code"]) == (500, "record_unreadable")


@pytest.mark.parametrize("surface", Surface)
async def test_a_text_that_is_none_ends_the_responses_of_its_log_alone(
    api: ApiProcess, client: Client, surface: Surface
) -> None:
    """Read together with another, with which it is joined into one frame."""
    spoilt, other = await Reading.begin(client, surface), await Reading.begin(client, surface)
    async with spoilt.open(api.api_url) as victim, other.open(api.api_url) as follower:
        assert (victim.status, follower.status) == (200, 200)
        await spoilt.author.say(token("a"), Event(EventType.TOKEN, {"said": "garbage"}))
        await victim.read_to_end()
        assert victim.end is End.CLEAN
        await other.author.close()
        await other.check(await follower.read_to_end())


async def test_a_deadline_is_settled_once_for_all_followers(
    api: ApiProcess, client: Client
) -> None:
    """Thousands that write the same would leave no room for new generations."""
    author = await Author.create(client)
    await author.claim()
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(api.follow(author.generation)) for _ in range(20)
        ]
        for follower in followers:
            await follower.read_until("started")
        await client.call("CONFIG", "RESETSTAT")
        await client.call("HSET", KEYS.record(author.generation), "deadline", 1)
        for follower in followers:
            assert [event.type for event in await follower.read_to_end()] == ["failed"]
    stats = await client.call("INFO", "commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 1
