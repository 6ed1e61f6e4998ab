"""`client.js` by itself, in a page that is not the playground."""

from typing import Any

from playwright.async_api import Page, Route

from tests.support.cutting_proxy import CuttingProxy
from tests.support.network import open_network
from tests.support.stack import Stack, expected_text
from tests.support.visitor import NETWORK_FAILED, Visitor, load_blank
from tests.support.wait import wait_until

CREATE = """async (prompt) => {
    const { Generation } = await import("/client.js");
    const retries = [];
    const onretry = ({ problem }) => retries.push(problem.code);
    window.generation = await Generation.create({ prompt }, { onretry });
    return { id: generation.id, retries };
}"""

RESUME = """async ([id, options]) => {
    const { Generation } = await import("/client.js");
    window.generation = Generation.resume(id, options);
    return generation.state;
}"""


async def create(page: Page, prompt: str) -> dict[str, Any]:
    """`Generation.create`: the id, and why it was asked again."""
    created: dict[str, Any] = await page.evaluate(CREATE, prompt)
    return created


async def resume(page: Page, generation: str, **options: Any) -> dict[str, Any]:
    """`Generation.resume`: the state in the moment in which it returns."""
    state: dict[str, Any] = await page.evaluate(RESUME, [generation, options])
    return state


async def wait_state(page: Page, condition: str) -> dict[str, Any]:
    """Wait until the client's `state` meets a condition in JavaScript."""

    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] | None = await page.evaluate(
            f"(({{ state }}) => ({condition}) ? state : null)(generation)"
        )
        return found

    return await wait_until(look, f"the client's state to have {condition}", 20)


async def wait_ended(page: Page) -> dict[str, Any]:
    return await wait_state(page, "state.connection === 'ended'")


async def bookmark(page: Page, generation: str) -> str:
    """What the client has stored in this tab."""

    async def stored() -> str | None:
        found: str | None = await page.evaluate(
            "(id) => sessionStorage.getItem(`rejoin:1:${id}`)", generation
        )
        return found

    return await wait_until(stored, "the client to store how far it has read")


async def test_a_post_whose_answers_are_lost_is_paid_once(stack: Stack, visitor: Visitor) -> None:
    """Twice the service accepts and the answer is lost; the client asks again with its key."""
    visitor.forgive(NETWORK_FAILED)
    prompt = "[standin tokens=40 kind=prose] Tell me about post"
    async with open_network(stack.api_url) as network:
        page = await visitor.open_blank_page(network.url)
        await page.evaluate("import('/client.js')")
        await network.plan(0, 0)
        created = await create(page, prompt)
        assert created["retries"] == ["unreachable", "unreachable"]
        assert [met.was_cut for met in network.planned_cuts] == [True, True]
        assert (await wait_ended(page))["text"] == expected_text(prompt)
        await visitor.leave()
    assert [key for key in await stack.keys() if key.endswith(":log")] == [
        f"gen:{{{created['id']}}}:log"
    ]
    assert len(stack.ledger.entries) == 1


async def test_a_page_that_reloads_before_its_post_is_answered_pays_once(
    stack: Stack, visitor: Visitor
) -> None:
    """The playground keeps question and key over a reload, until it knows the generation."""
    visitor.forgive(NETWORK_FAILED)
    prompt = "[standin tokens=40 kind=prose] Tell me about parcels"
    tab = await visitor.open_tab()

    async def lose_answer(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await tab.page.route("**/v1/generations", lose_answer)
    await tab.page.get_by_test_id("prompt").fill(prompt)
    await tab.click("send")
    await tab.wait(lambda look: "Asking again" in look.notice, "an answer to be lost")
    await tab.page.reload()
    lost = await tab.wait(lambda look: "Asking again" in look.notice, "another to be lost")
    assert (lost.phase, lost.question) == ("sending", prompt)
    await tab.page.unroute("**/v1/generations")
    assert (await tab.wait_ended()).text == expected_text(prompt)
    assert len(stack.ledger.entries) == 1


async def test_a_generation_is_resumed_from_storage(
    stack: Stack, visitor: Visitor, model_line: CuttingProxy
) -> None:
    """After a reload the text is there before anything was asked, and goes on behind it."""
    prompt = "[standin tokens=60 pace=60 kind=prose] Tell me about stores"
    page = await visitor.open_blank_page(stack.api_url)
    generation = (await create(page, prompt))["id"]
    read = await wait_state(page, "state.text.length > 40")
    await load_blank(page, stack.api_url)
    found = await resume(page, generation)
    assert found["text"].startswith(read["text"])
    ended = await wait_ended(page)
    assert (ended["text"], ended["resumes"]) == (expected_text(prompt), 1)
    assert len(stack.ledger.entries) == 1


async def test_an_old_bookmark_is_as_right_as_a_new_one(stack: Stack, visitor: Visitor) -> None:
    """Text and cursor are stored as one: whatever pair is found, what follows it is right."""
    prompt = "[standin tokens=80 pace=80 kind=unicode] Tell me about books"
    page = await visitor.open_blank_page(stack.api_url)
    generation = (await create(page, prompt))["id"]
    old = await bookmark(page, generation)
    ended = await wait_ended(page)
    assert ended["text"] == expected_text(prompt)
    await load_blank(page, stack.api_url)
    await page.evaluate(
        "([id, old]) => sessionStorage.setItem(`rejoin:1:${id}`, old)", [generation, old]
    )
    found = await resume(page, generation)
    assert found["text"] != ended["text"]
    assert (await wait_ended(page))["text"] == expected_text(prompt)


async def test_without_storage_a_reload_reads_from_the_beginning(
    stack: Stack, visitor: Visitor
) -> None:
    """A browser that forbids storage costs a longer read, and no word."""
    prompt = "[standin tokens=60 pace=60 kind=lines] Tell me about shelves"
    page = await visitor.open_blank_page(stack.api_url)
    generation = (await create(page, prompt))["id"]
    await wait_state(page, "state.text.length > 20")
    await load_blank(page, stack.api_url)
    assert (await resume(page, generation, storage=None))["text"] == ""
    assert (await wait_ended(page))["text"] == expected_text(prompt)


async def test_a_line_that_fell_silent_is_replaced(
    stack: Stack, visitor: Visitor, model_line: CuttingProxy
) -> None:
    """Without a sign of life for two heartbeats the client opens a new socket, doubling nothing."""
    prompt = "[standin tokens=60 pace=60 kind=prose] Tell me about silence"
    page = await visitor.open_blank_page(stack.api_url)
    generation = (await create(page, prompt))["id"]
    await page.evaluate("generation.disconnect()")
    await resume(page, generation, storage=None, heartbeatMs=200)
    await wait_state(page, "state.text.length > 20")
    model_line.hold()
    await wait_state(page, "state.resumes >= 2")
    model_line.release()
    assert (await wait_ended(page))["text"] == expected_text(prompt)
