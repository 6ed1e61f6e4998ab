"""`GET /chat/stream`: one call that creates, streams and resumes, and pays once."""

from tests.support.api_client import chat_path
from tests.support.fold_chat import fold_chat, naive_text
from tests.support.follower import End, Follower
from tests.support.sse_reader import Event
from tests.support.stack import Stack, expected_text

PLAIN = "[standin tokens=20 kind=plain] hello"
SLOW = "[standin tokens=20 kind=plain pace=100] hello"
SILENT = "[standin tokens=20 kind=plain first_token_ms=300] hello"


async def read_whole(follower: Follower) -> list[Event]:
    assert follower.status == 200
    return await follower.read_to_end()


def generation_of(event_id: str) -> str:
    return event_id.partition("/")[0]


async def test_the_first_frame_is_an_id_alone(stack: Stack) -> None:
    """A reconnect before anything was said already names the generation to resume."""
    async with stack.chat(PLAIN) as follower:
        events = await read_whole(follower)
        first, _, rest = bytes(follower.body).partition(b"\n\n")

    generation = generation_of(events[0].last_event_id)
    assert first == f"id: {generation}/0-0".encode()
    assert rest.startswith(b"retry: ")
    assert generation.startswith("gen_")


async def test_the_answer_is_text_and_then_an_empty_done(stack: Stack) -> None:
    """Every token's data is the text itself; the closing event has no data of its own."""
    async with stack.chat(PLAIN) as follower:
        folded = fold_chat(await read_whole(follower))
        assert bytes(follower.body).endswith(b"\nevent: done\ndata:\n\n")
        assert follower.end is End.CLEAN

    assert folded.text == expected_text(PLAIN)
    assert folded.closing_type == "done"


async def test_a_naive_reader_of_lines_prints_the_whole_text(stack: Stack) -> None:
    """Fetch, split at newlines, take each `data: ` line as a token: right without a parser."""
    async with stack.chat(PLAIN) as follower:
        await read_whole(follower)
        assert naive_text(bytes(follower.body)) == expected_text(PLAIN)


async def test_newlines_survive_and_become_line_feeds(stack: Stack) -> None:
    """A standard parser gets every line; CR and CRLF, which the format cannot say, become LF."""
    prompt = "[standin tokens=200 kind=lines] hello"
    said = expected_text(prompt)
    assert "\r" in said
    async with stack.chat(prompt) as follower:
        folded = fold_chat(await read_whole(follower))

    assert folded.text == said.replace("\r\n", "\n").replace("\r", "\n")


async def test_characters_of_every_sort_survive(stack: Stack) -> None:
    """What Unicode has is told as it is."""
    prompt = "[standin tokens=200 kind=unicode] hello"
    async with stack.chat(prompt) as follower:
        assert fold_chat(await read_whole(follower)).text == expected_text(prompt)


async def test_a_reconnect_to_the_same_url_resumes_and_pays_once(stack: Stack) -> None:
    """Cut after some tokens, it goes on with the next; the model was asked a single time."""
    async with stack.chat(SLOW) as follower:
        events = await follower.read_until("token")
        follower.cut()
        cursor = follower.last_event_id
    async with stack.chat(SLOW, cursor) as follower:
        events += await read_whole(follower)

    assert fold_chat(events).text == expected_text(SLOW)
    assert len({generation_of(event.last_event_id) for event in events}) == 1
    assert [entry.tokens_sent for entry in stack.ledger.entries] == [20]


async def test_a_reconnect_before_the_first_token_pays_once(stack: Stack) -> None:
    """The id of the first frame is enough: nothing of the answer needs to have been seen."""
    async with stack.chat(SILENT) as follower:
        (event,) = await follower.read_n(1)
        assert event.type == "queued"
        follower.cut()
        cursor = f"{generation_of(event.last_event_id)}/0-0"
    async with stack.chat(SILENT, cursor) as follower:
        events = await read_whole(follower)

    assert fold_chat(events).text == expected_text(SILENT)
    assert len(stack.ledger.entries) == 1


async def test_a_key_makes_even_an_unseen_first_frame_safe(stack: Stack) -> None:
    """Asked again with the same key and no cursor at all, it is the same generation."""
    async with stack.chat(SILENT, key="once") as first:
        first.cut()
    async with stack.chat(SILENT, key="once") as second:
        events = await read_whole(second)

    assert fold_chat(events).text == expected_text(SILENT)
    assert len(stack.ledger.entries) == 1


async def test_another_prompt_under_the_same_key_is_refused(stack: Stack) -> None:
    """A key names one request."""
    async with stack.chat(PLAIN, key="once") as first:
        await read_whole(first)
    reply = await stack.call("GET", chat_path("another", key="once"))

    assert (reply.status, reply.json["code"]) == (422, "idempotency_conflict")
    assert len(stack.ledger.entries) == 1


async def test_a_finished_answer_is_replayed_to_who_asks_with_its_key(stack: Stack) -> None:
    """Without a cursor the whole text comes again, and nothing is paid for it."""
    texts = []
    for _ in range(2):
        async with stack.chat(PLAIN, key="once") as follower:
            texts.append(fold_chat(await read_whole(follower)).text)
    assert texts == [expected_text(PLAIN)] * 2
    assert len(stack.ledger.entries) == 1


async def test_a_browser_that_saw_the_end_is_told_to_stop(stack: Stack) -> None:
    """204 at the closing id: `EventSource` does not come back, and nothing is paid again."""
    async with stack.chat(PLAIN) as follower:
        await read_whole(follower)
        cursor = follower.last_event_id
    async with stack.chat(PLAIN, cursor) as again:
        assert again.status == 204
    assert len(stack.ledger.entries) == 1


async def test_an_unknown_generation_in_the_cursor_is_never_a_create(stack: Stack) -> None:
    """404, and the browser gives up; it must not pay because its generation is long gone."""
    native = await stack.create(PLAIN)
    await stack.read(native)
    asked = len(stack.ledger.entries)
    before = await stack.generation_keys()
    for cursor in (f"gen_{'a' * 32}/5-5", f"gen_{'a' * 32}/0-0", "nope/1-1", f"{native}/0-0"):
        reply = await stack.call("GET", chat_path(PLAIN), headers={"last-event-id": cursor})
        assert (reply.status, reply.json["code"]) == (404, "generation_unknown"), cursor
    for cursor in ("5-5", "nope", f"{native}/", f"{native}/x", f"{native}/1-1/2-2"):
        reply = await stack.call("GET", chat_path(PLAIN), headers={"last-event-id": cursor})
        assert (reply.status, reply.json["code"]) == (400, "cursor_malformed"), cursor

    assert await stack.generation_keys() == before
    assert len(stack.ledger.entries) == asked


async def test_a_failing_model_is_told_in_a_control_frame(stack: Stack) -> None:
    """`data:{` without the space: a parser reads it, a naive reader of lines prints text only."""
    prompt = "[standin tokens=20 kind=plain error_after=5] hello"
    async with stack.chat(prompt) as follower:
        events = await read_whole(follower)
        body = bytes(follower.body)

    assert events[-1].type == "failed"
    assert b'\nevent: failed\ndata:{"code":' in body
    assert fold_chat(events).text != ""
    assert naive_text(body) == fold_chat(events).text


async def test_a_prompt_that_is_missing_is_refused(stack: Stack) -> None:
    """Nothing to ask: a problem, and no key in Redis."""
    for path in ("/chat/stream", chat_path(""), chat_path("hello", key="")):
        reply = await stack.call("GET", path)
        assert (reply.status, reply.json["code"]) == (422, "request_invalid"), path
    assert await stack.keys() == []
