"""The playground shows the answer exactly, whatever its reader does to the line."""

import pytest

from tests.support.cutting_proxy import CuttingProxy
from tests.support.fold import position
from tests.support.network import open_network
from tests.support.playground import Look, Tab
from tests.support.stack import Stack, expected_text
from tests.support.visitor import NETWORK_FAILED, Visitor
from tests.support.wait import wait_until
from worker.standin import Outcome

LONG_WORDS = "tell me of rhododendrons, thunderstorms, lighthousekeepers, bookkeepers"


async def seams(tab: Tab) -> list[int]:
    """Where the seams stand: how many characters of the answer come before each."""
    found: list[int] = await tab.page.evaluate(
        """[...document.querySelectorAll("#answer .seam")].map((seam) => {
            const before = document.createRange();
            before.setStart(document.getElementById("answer"), 0);
            before.setEndBefore(seam);
            return before.toString().length;
        })"""
    )
    return found


async def wait_settled(stack: Stack, tab: Tab) -> Look:
    """With the model silent: wait until the page shows all that there is."""

    async def settled() -> Look | None:
        look = await tab.look()
        said = (await stack.snapshot(look.generation))["text"]
        return look if look.text == said else None

    return await wait_until(settled, "the page to show all that was said")


async def pause_in_word(stack: Stack, tab: Tab, model_line: CuttingProxy, whole: str) -> Look:
    """Silence the model at a moment at which the last word on the page is unfinished."""

    def is_in_word(look: Look) -> bool:
        at = len(look.text)
        return 0 < at < len(whole) and whole[at - 1].isalpha() and whole[at].isalpha()

    async def paused() -> Look | None:
        if not is_in_word(await tab.look()):
            return None
        model_line.hold()
        look = await wait_settled(stack, tab)
        if is_in_word(look):
            return look
        model_line.release()
        return None

    return await wait_until(paused, "an unfinished word")


@pytest.mark.parametrize("kind", ["prose", "plain", "lines", "unicode"])
async def test_an_answer_grows_and_is_what_the_model_said(
    stack: Stack, visitor: Visitor, kind: str
) -> None:
    """What is typed is asked once, is seen growing, and ends as the model's very characters."""
    prompt = f"[standin tokens=60 pace=100 kind={kind}] Tell me about rivers"
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    growing = await tab.wait_text()
    assert growing.connection == "live"
    assert growing.text != expected_text(prompt)
    ended = await tab.wait_ended()
    assert ended.text == expected_text(prompt)
    assert (ended.question, ended.resumes) == (prompt, 0)
    assert [entry.outcome for entry in stack.ledger.entries] == [Outcome.COMPLETED]


async def test_a_reload_in_the_middle_of_a_word_goes_on_from_exactly_there(
    stack: Stack, visitor: Visitor, model_line: CuttingProxy
) -> None:
    """A reloaded page shows at once what it had, resumes behind it, and asks nobody again."""
    prompt = f"[standin tokens=40 pace=20 kind=plain] {LONG_WORDS}"
    whole = expected_text(prompt)
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    left = await pause_in_word(stack, tab, model_line, whole)
    async with tab.page.expect_request("**/events?*") as resumed:
        await tab.page.reload()
    assert (await tab.look()).text == left.text
    request = await resumed.value
    assert request.url.endswith(f"?last_event_id={left.last_event_id}")
    back = await tab.wait_connection("live")
    assert (back.text, back.resumes) == (left.text, 1)
    model_line.release()
    ended = await tab.wait_ended()
    assert ended.text == whole
    assert await seams(tab) == [len(left.text)]
    assert len(stack.ledger.entries) == 1


async def test_reloads_while_words_keep_coming_lose_none(stack: Stack, visitor: Visitor) -> None:
    """Whatever arrives between two pages of one tab is there in the end, once."""
    prompt = "[standin tokens=120 pace=70 kind=prose] Tell me about tides"
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    for characters in (30, 150, 300):
        before = await tab.wait_text(characters)
        await tab.page.reload()
        assert (await tab.look()).text.startswith(before.text)
    ended = await tab.wait_ended()
    assert ended.text == expected_text(prompt)
    assert ended.resumes == 3
    await tab.page.reload()
    assert (await tab.wait_ended()).text == expected_text(prompt)
    assert len(stack.ledger.entries) == 1


async def test_leaving_the_page_and_coming_back_goes_on(stack: Stack, visitor: Visitor) -> None:
    """The browser's back button finds the answer where it was left, and it goes on."""
    prompt = "[standin tokens=60 pace=50 kind=plain] Tell me about ferries"
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    await tab.wait_text(40)
    await tab.page.goto("about:blank")
    await tab.page.go_back()
    assert (await tab.wait_ended()).text == expected_text(prompt)
    assert len(stack.ledger.entries) == 1


async def test_cutting_the_line_shows_and_loses_nothing(stack: Stack, visitor: Visitor) -> None:
    """While the line is cut the page stands still and says so; then it catches up, once."""
    prompt = "[standin tokens=180 pace=45 kind=plain] Tell me about bridges"
    tab = await visitor.open_tab()
    generation = await tab.ask(prompt)
    early = await tab.wait_text(10)
    later = await tab.wait_text(60)
    assert position(later.last_event_id) > position(early.last_event_id)
    await tab.click("cut")
    cut = await tab.wait_connection("cut")
    assert cut.line == "Cut"
    await tab.page.get_by_role("button", name="Back in 1 s").wait_for()
    still = await tab.look()
    assert (still.text, still.last_event_id) == (cut.text, cut.last_event_id)
    assert len((await stack.snapshot(generation))["text"]) > len(cut.text)
    back = await tab.wait_connection("live")
    assert (back.line, back.resumes) == ("Live", 1)
    ended = await tab.wait_ended()
    assert ended.text == expected_text(prompt)
    assert ended.line == "Complete"
    assert await seams(tab) == [len(cut.text)]
    assert ended.moments == ["cut", "resumed", "done"]
    assert len(stack.ledger.entries) == 1


async def test_a_cut_line_comes_back_at_a_click(stack: Stack, visitor: Visitor) -> None:
    """Who cut the line need not wait for it."""
    prompt = "[standin tokens=50 pace=50 kind=plain] Tell me about harbours"
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    await tab.wait_text(20)
    await tab.click("cut")
    await tab.wait_connection("cut")
    await tab.click("cut")
    assert (await tab.wait_connection("live")).resumes == 1
    assert (await tab.wait_ended()).text == expected_text(prompt)


async def test_sockets_that_break_are_replaced_and_nothing_is_lost(
    stack: Stack, visitor: Visitor
) -> None:
    """A network that resets every connection, again and again, costs time but no character."""
    visitor.forgive(NETWORK_FAILED)
    prompt = "[standin tokens=300 pace=50 kind=prose] Tell me about storms"
    async with open_network(stack.api_url) as network:
        tab = await visitor.open_tab(f"{network.url}/")
        await tab.ask(prompt)
        for resumes, characters in ((1, 20), (2, 150)):
            await tab.wait_text(characters)
            await network.cut_all()
            assert (await tab.wait_connection("reconnecting")).line == "Reconnecting"
            assert (await tab.wait_connection("live")).resumes == resumes
        ended = await tab.wait_ended()
        assert ended.text == expected_text(prompt)
        assert ended.moments == ["lost", "resumed", "lost", "resumed", "done"]
        await visitor.leave()
    assert len(stack.ledger.entries) == 1


async def test_a_second_tab_shows_the_same(
    stack: Stack, visitor: Visitor, model_line: CuttingProxy
) -> None:
    """Tabs do not divide the words between them: each shows them all, the late one too."""
    prompt = "[standin tokens=60 pace=40 kind=prose] Tell me about lanterns"
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    await tab.wait_text(40)
    async with tab.page.context.expect_page() as opened:
        await tab.click("second-tab")
    second = Tab(await opened.value)
    await second.wait_text(40)
    model_line.hold()
    assert (await wait_settled(stack, second)).text == (await wait_settled(stack, tab)).text
    model_line.release()
    for each in (tab, second):
        assert (await each.wait_ended()).text == expected_text(prompt)
    assert (await second.look()).question == prompt
    assert len(stack.ledger.entries) == 1


async def test_a_late_reader_elsewhere_shows_the_same(stack: Stack, visitor: Visitor) -> None:
    """On another device, after the end, the address alone brings the whole answer."""
    prompt = "[standin tokens=60 kind=prose] Tell me about maps"
    tab = await visitor.open_tab()
    generation = await tab.ask(prompt)
    await tab.wait_ended()
    other = await visitor.open_tab(f"{visitor.home}#{generation}")
    assert (await other.wait_ended()).text == expected_text(prompt)
    assert len(stack.ledger.entries) == 1


@pytest.mark.parametrize("from_tab", ["the first", "the second"])
async def test_stop_ends_it_everywhere_and_what_was_said_stands(
    stack: Stack, visitor: Visitor, from_tab: str
) -> None:
    """Stop, pressed in any tab, is seen in every tab, and reaches the model."""
    prompt = "[standin tokens=2000 pace=40 kind=plain] Tell me everything"
    tab = await visitor.open_tab()
    generation = await tab.ask(prompt)
    await tab.wait_text(30)
    second = await visitor.open_tab(f"{visitor.home}#{generation}")
    await second.wait_text(30)
    await (tab if from_tab == "the first" else second).click("stop")
    said = (await tab.wait_ended("cancelled")).text
    assert expected_text(prompt).startswith(said)
    assert len(said) >= 30
    assert (await stack.snapshot(generation))["text"] == said
    ended = await second.wait_ended("cancelled")
    assert (ended.text, ended.line) == (said, "Stopped")
    assert ended.outcome.startswith("Stopped.")
    await stack.wait_model_silent()
    assert [entry.outcome for entry in stack.ledger.entries] == [Outcome.CLIENT_CLOSED]


async def test_stop_works_while_the_line_is_cut(stack: Stack, visitor: Visitor) -> None:
    """Stopping needs no open stream, and shows what had been said unseen until then."""
    prompt = "[standin tokens=2000 pace=40 kind=plain] Tell me all"
    tab = await visitor.open_tab()
    generation = await tab.ask(prompt)
    await tab.wait_text(30)
    await tab.click("cut")
    cut = await tab.wait_connection("cut")
    await tab.click("stop")
    ended = await tab.wait_ended("cancelled")
    assert ended.text.startswith(cut.text)
    assert (await stack.snapshot(generation))["text"] == ended.text
