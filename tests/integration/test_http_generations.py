"""Create, show, cancel and delete a generation over HTTP."""

import asyncio
from datetime import datetime
from typing import Any

from shared.connections import Client
from shared.event_log import PAGE
from tests.support.api_process import ApiProcess
from tests.support.author import Author, token
from tests.support.fold import fold, fold_log
from tests.support.follower import End
from tests.support.stack import MODEL, Stack, expected_text, user
from tests.support.wait import wait_until, within
from worker.standin import Outcome, compose

PROMPT = "[standin tokens=30 kind=lines] hello"
PACED = "[standin tokens=60 kind=lines pace=200] hello"
TIMES = ("created_at", "started_at", "finished_at")
ENDLESS = "[standin tokens=2000 kind=plain pace=100] hello"


async def wait_said(stack: Stack, generation: str) -> None:
    """Wait until some text is there."""

    async def said() -> bool:
        return bool((await stack.snapshot(generation))["text"])

    await wait_until(said, "some text")


# --- create -------------------------------------------------------------------------------------


async def test_a_generation_is_accepted_at_once(stack: Stack) -> None:
    """202, where it is, and where its events are."""
    reply = await stack.post({"prompt": PROMPT})
    generation = reply.json["id"]

    assert reply.status == 202
    assert reply.headers["location"] == f"/v1/generations/{generation}"
    assert reply.json == {
        "id": generation,
        "status": "queued",
        "events_url": f"/v1/generations/{generation}/events",
    }
    await stack.read(generation)


async def test_what_the_model_said_arrives(stack: Stack) -> None:
    """Every token, once, in order, and how it ended; the log itself is without fault."""
    generation = await stack.create(PROMPT)
    folded = await stack.read(generation)

    assert folded.text == expected_text(PROMPT)
    assert folded.closing_type == "done"
    assert folded == fold_log(await stack.entries(generation))


async def test_a_repeated_request_with_the_same_key_is_the_same_generation(stack: Stack) -> None:
    """Ten at once, as impatient clients send them, and one later: one id, one provider call."""
    ids = await asyncio.gather(*[stack.create(PROMPT, key="once") for _ in range(10)])
    folded = await stack.read(ids[0])
    ids.append(await stack.create(PROMPT, key="once"))

    assert set(ids) == {ids[0]}
    assert folded.text == expected_text(PROMPT)
    assert len(stack.ledger.entries) == 1


async def test_a_repeat_says_how_far_it_is(stack: Stack) -> None:
    """The answer to a repeat has the state of the generation that is there."""
    generation = await stack.create(PROMPT, key="once")
    await stack.read(generation)
    reply = await stack.post({"prompt": PROMPT}, key="once")

    assert (reply.status, reply.json["status"]) == (202, "done")


async def test_another_request_with_the_same_key_is_refused(stack: Stack) -> None:
    """A conflict, and nothing is started for it."""
    await stack.read(await stack.create(PROMPT, key="once"))
    before = await stack.generation_keys()
    changed: list[dict[str, Any]] = [{"prompt": "another"}, {"prompt": PROMPT, "temperature": 1.0}]
    for body in changed:
        reply = await stack.post(body, key="once")
        assert (reply.status, reply.json["code"]) == (422, "idempotency_conflict")

    assert await stack.generation_keys() == before
    assert len(stack.ledger.entries) == 1


async def test_the_order_of_parameters_makes_no_other_request(stack: Stack) -> None:
    """JSON objects have no order."""
    one = await stack.post({"prompt": PROMPT, "seed": 1, "temperature": 0.5}, key="once")
    two = await stack.post({"temperature": 0.5, "seed": 1, "prompt": PROMPT}, key="once")
    assert one.json["id"] == two.json["id"]
    await stack.read(one.json["id"])


async def test_parameters_reach_the_provider_untouched(stack: Stack) -> None:
    """Known or not: what we do not own, the model server is sent as it came."""
    given: dict[str, Any] = {
        "model": "another-model",
        "temperature": 0.5,
        "top_p": 0.25,
        "seed": 7,
        "stop": ["\u2028"],
        "max_completion_tokens": 12,
        "logit_bias": {"50256": -100},
        "metadata": {"user": "é"},
        "response_format": {"type": "text"},
        "reasoning_effort": "low",
        "n": 1,
        "vendor_extension": {"deep": [1, None, {"ok": True}], "big": 2**60},
    }
    await stack.read(await stack.create("[standin tokens=5] hello", **given))
    (entry,) = stack.ledger.entries

    sent = dict(entry.parameters)
    assert entry.model == "another-model"
    assert sent.pop("stream") is True
    assert sent.pop("stream_options")["include_usage"] is True
    assert sent == given


async def test_messages_reach_the_provider_untouched(stack: Stack) -> None:
    """Roles, parts and members we do not know are the model's business."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": PROMPT}], "name": "é"},
        {"role": "assistant", "content": None, "tool_calls": [], "vendor": 1},
        {"role": "user", "content": PROMPT},
    ]
    reply = await stack.post({"messages": messages})
    folded = await stack.read(reply.json["id"])
    assert folded.text == compose(MODEL, messages).text("content")


# --- show ---------------------------------------------------------------------------------------


async def test_a_snapshot_tells_everything_of_a_finished_generation(stack: Stack) -> None:
    """Status, text, the id it reaches, usage and times."""
    prompt = "[standin tokens=20 reasoning=5] hello"
    generation = await stack.create(prompt)
    folded = await stack.read(generation)
    shown = await stack.snapshot(generation)
    script = compose(MODEL, user(prompt))

    times = [datetime.fromisoformat(shown.pop(name)) for name in TIMES]
    assert times == sorted(times)
    assert shown == {
        "id": generation,
        "status": "done",
        "text": script.text("content"),
        "reasoning": script.text("reasoning"),
        "refusal": None,
        "tool_calls": None,
        "last_event_id": folded.last_event_id,
        "model": "standin",
        "usage": script.usage,
        "finish_reason": "stop",
        "error": None,
    }


async def test_a_snapshot_has_tool_calls_and_refusals(stack: Stack) -> None:
    """What is not text is put together from its pieces."""
    tools = await stack.create("[standin tool=2] hello")
    refusal = await stack.create("[standin refusal=1] hello")
    told, refused = await stack.read(tools), await stack.read(refusal)
    calls = (await stack.snapshot(tools))["tool_calls"]

    assert [(c["id"], c["name"], c["arguments"]) for c in calls] == [
        (c.id, c.name, c.arguments) for c in told.tool_calls.values()
    ]
    assert (await stack.snapshot(refusal))["refusal"] == refused.refusal
    assert refused.refusal != ""


async def test_a_snapshot_of_a_failed_generation_says_why(stack: Stack) -> None:
    """A stable code and a sentence of ours; the partial text stands."""
    generation = await stack.create("[standin tokens=20 kind=plain error_after=5] hello")
    folded = await stack.read(generation)
    shown = await stack.snapshot(generation)

    assert shown["status"] == "failed"
    assert shown["error"] == folded.closing_data
    assert shown["text"] == folded.text
    assert folded.text != ""


async def test_following_from_a_snapshot_brings_exactly_the_rest(stack: Stack) -> None:
    """Its text and its last_event_id are of one moment, whatever the moment."""
    generation = await stack.create(PACED)

    async def put_together(shown: dict[str, Any]) -> str:
        return str(shown["text"] + (await stack.read(generation, shown["last_event_id"])).text)

    async with stack.follow(generation) as pace, asyncio.TaskGroup() as tasks:
        texts = []
        async for _ in pace:
            shown = await stack.snapshot(generation)
            if shown["status"] == "running":
                texts.append(tasks.create_task(put_together(shown)))

    assert len(texts) > 10
    assert {text.result() for text in texts} == {expected_text(PACED)}


async def test_a_snapshot_of_a_long_log_is_whole(api: ApiProcess, client: Client) -> None:
    """It takes several reads of Redis, and reaches the last of them."""
    author = await Author.create(client)
    await author.claim()
    words = [f"{i} " for i in range(2 * PAGE)]
    await author.say(*map(token, words))
    shown = await api.snapshot(author.generation)

    assert shown["text"] == "".join(words)
    assert shown["last_event_id"] == author.last_id


# --- cancel and delete --------------------------------------------------------------------------


async def test_a_cancel_reaches_followers_and_the_provider(stack: Stack) -> None:
    """The closing event comes, the partial text stands, and the provider's connection is closed."""
    generation = await stack.create(ENDLESS)
    async with stack.follow(generation) as follower:
        events = await follower.read_until("token")
        reply = await stack.cancel(generation)
        events += await follower.read_to_end()
        assert follower.end is End.CLEAN
    await stack.wait_model_silent()

    folded = fold(events)
    assert reply.status == 200
    assert reply.json["status"] == "cancelled"
    assert reply.json["text"] == folded.text
    assert expected_text(ENDLESS).startswith(folded.text)
    assert folded.closing_type == "cancelled"
    assert [entry.outcome for entry in stack.ledger.entries] == [Outcome.CLIENT_CLOSED]


async def test_a_cancel_ends_a_provider_call_that_is_silent(stack: Stack) -> None:
    """The worker is told: it does not wait for the model's next word to learn of it."""
    generation = await stack.create("[standin tokens=20 stall_after=5] hello")
    await wait_said(stack, generation)
    await stack.cancel(generation)
    async with within(2, lambda: "the provider call is still open"):
        await stack.ledger.wait_until(lambda ledger: ledger.open == 0)


async def test_a_repeated_cancel_changes_nothing(stack: Stack) -> None:
    """Idempotent: the same snapshot again but for its cost, and still one closing entry."""
    generation = await stack.create(ENDLESS)
    await wait_said(stack, generation)
    replies = [await stack.cancel(generation) for _ in range(3)]

    first, *others = [{**reply.json, "usage": None} for reply in replies]
    assert others == [first, first]
    assert fold_log(await stack.entries(generation)).closing_type == "cancelled"


async def test_a_cancel_of_a_finished_generation_returns_it_as_it_is(stack: Stack) -> None:
    """What is done stays done."""
    generation = await stack.create(PROMPT)
    await stack.read(generation)
    shown = await stack.snapshot(generation)
    reply = await stack.cancel(generation)
    assert (reply.status, reply.json) == (200, shown)


async def test_a_deleted_generation_is_gone_and_its_followers_saw_the_end(stack: Stack) -> None:
    """404 at once for everybody else; who was reading it sees that it was cancelled."""
    generation = await stack.create(ENDLESS)
    async with stack.follow(generation) as follower:
        await follower.read_until("token")
        reply = await stack.delete(generation)
        last = (await follower.read_to_end())[-1]
    await stack.wait_model_silent()

    assert (reply.status, reply.body) == (204, b"")
    assert last.type == "cancelled"
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        gone = await stack.call(method, f"/v1/generations/{generation}{path}")
        assert (gone.status, gone.json["code"]) == (404, "generation_unknown"), (method, path)


async def test_a_key_of_a_deleted_generation_is_gone(stack: Stack) -> None:
    """410: a repeat of its request must neither find it nor quietly pay for another."""
    generation = await stack.create(PROMPT, key="once")
    await stack.read(generation)
    await stack.delete(generation)
    reply = await stack.post({"prompt": PROMPT}, key="once")
    assert (reply.status, reply.json["code"]) == (410, "generation_gone")
    assert len(stack.ledger.entries) == 1
