"""What the page tells people when there is no answer to show, and how it looks."""

from typing import Any

import pytest
from playwright.async_api import Page

from shared.ids import draw_generation_id
from tests.support.stack import Stack, expected_text
from tests.support.visitor import REFUSED, Visitor

PHONE: dict[str, Any] = {
    "viewport": {"width": 375, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
LONG_WORD = "w" * 300


async def sideways(page: Page) -> int:
    """By how many pixels the page can be scrolled sideways."""
    overhang: int = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return overhang


async def colours(page: Page) -> dict[str, str]:
    """The colours that the page is really painted in."""
    found: dict[str, str] = await page.evaluate(
        """() => {
            const of = (selector) => getComputedStyle(document.querySelector(selector));
            return { ground: of("body").backgroundColor, ink: of("#prompt").color,
                sheet: of(".sheet").backgroundColor, button: of("#send").backgroundColor };
        }"""
    )
    return found


async def brightness(page: Page, colour: str) -> int:
    """The sum of a colour's three parts, as a canvas paints it."""
    parts: list[int] = await page.evaluate(
        """(colour) => {
            const ink = document.createElement("canvas").getContext("2d");
            ink.fillStyle = colour;
            ink.fillRect(0, 0, 1, 1);
            return [...ink.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
        colour,
    )
    return sum(parts)


async def test_an_unknown_address_is_said_to_be_unknown(stack: Stack, visitor: Visitor) -> None:
    """An address that names nothing, or nothing any more, says so and asks nobody."""
    visitor.forgive(f"{REFUSED} 404")
    tab = await visitor.open_tab(f"{visitor.home}#{draw_generation_id()}")
    gone = await tab.wait_connection("gone")
    assert (gone.line, gone.text) == ("Gone", "")
    assert gone.outcome != ""
    assert not await tab.page.get_by_test_id("stop").is_visible()
    assert stack.ledger.entries == ()


async def test_a_model_that_refuses_is_said_to_have_failed(stack: Stack, visitor: Visitor) -> None:
    """A failure is shown as one, without the provider's words, and can be asked again."""
    tab = await visitor.open_tab()
    first = await tab.ask("[standin status=500] Tell me about fog")
    failed = await tab.wait_ended("failed")
    assert (failed.line, failed.text) == ("Failed", "")
    assert failed.outcome.startswith("Failed. ")
    assert "standin" not in failed.outcome
    await tab.click("again")
    await tab.wait(lambda look: look.generation not in ("", first), "a new generation")
    await tab.wait_ended("failed")
    assert len({entry.number for entry in stack.ledger.entries}) >= 2


async def test_a_failure_in_the_middle_leaves_what_was_said(stack: Stack, visitor: Visitor) -> None:
    """The partial answer of a model that broke off stands, and does not look finished."""
    prompt = "[standin tokens=40 pace=80 error_after=20 code=overloaded] Tell me about mist"
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    failed = await tab.wait_ended("failed")
    assert failed.outcome.startswith("Failed. ")
    assert expected_text(prompt).startswith(failed.text)


async def test_what_is_typed_and_answered_is_text_and_never_markup(
    stack: Stack, visitor: Visitor
) -> None:
    """Question and answer may look like HTML; the page shows their characters."""
    prompt = "[standin tokens=60 kind=unicode] <img src=/x onerror=alert(1)><b>bold</b>"
    tab = await visitor.open_tab()
    await tab.ask(prompt)
    ended = await tab.wait_ended()
    assert (ended.question, ended.text) == (prompt, expected_text(prompt))
    assert await tab.page.locator(".exchange :is(img, b, script)").count() == 0


async def test_enter_sends_and_shift_enter_begins_a_line(stack: Stack, visitor: Visitor) -> None:
    """The keyboard is enough to ask a question of several lines."""
    tab = await visitor.open_tab()
    prompt = tab.page.get_by_test_id("prompt")
    await prompt.press_sequentially("one")
    await prompt.press("Shift+Enter")
    await prompt.press_sequentially("[standin tokens=5]")
    await prompt.press("Enter")
    ended = await tab.wait_ended()
    assert ended.question == "one\n[standin tokens=5]"
    assert ended.text == expected_text("one\n[standin tokens=5]")


async def test_reasoning_and_tool_calls_are_shown_beside_the_answer(
    stack: Stack, visitor: Visitor
) -> None:
    """What the model thought and which tools it calls are shown, and are no part of the text."""
    tab = await visitor.open_tab()
    await tab.ask("[standin tokens=20 reasoning=15] Think")
    ended = await tab.wait_ended()
    assert ended.text == expected_text("[standin tokens=20 reasoning=15] Think")
    assert await tab.page.get_by_test_id("reasoning").is_visible()
    await tab.ask("[standin tool=2] Look it up")
    await tab.wait(lambda look: look.line == "Complete", "the second answer")
    assert "look_up" in await tab.page.get_by_test_id("tool-calls").inner_text()
    assert not await tab.page.get_by_test_id("reasoning").is_visible()


async def test_a_phone_never_scrolls_sideways(stack: Stack, visitor: Visitor) -> None:
    """375 pixels hold all of it, idle, growing, cut and done, whatever the words."""
    prompt = f"[standin tokens=60 pace=60 kind=unicode] {LONG_WORD}"
    tab = await visitor.open_tab(**PHONE)
    assert await sideways(tab.page) == 0
    await tab.ask(prompt)
    await tab.wait_text(60)
    assert await sideways(tab.page) == 0
    for test_id in ("connection", "last-event-id", "cut", "reload", "second-tab"):
        assert await tab.page.get_by_test_id(test_id).is_visible(), test_id
    await tab.click("cut")
    await tab.wait_connection("cut")
    assert await sideways(tab.page) == 0
    await tab.click("cut")
    ended = await tab.wait_ended()
    assert ended.text == expected_text(prompt)
    assert await sideways(tab.page) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_follows_the_systems_scheme(
    stack: Stack, visitor: Visitor, scheme: str
) -> None:
    """Dark is dark and light is light, and the words stand out from the ground in both."""
    tab = await visitor.open_tab(color_scheme=scheme)
    found = {
        name: await brightness(tab.page, colour)
        for name, colour in (await colours(tab.page)).items()
    }
    assert (found["ground"] < found["ink"]) == (scheme == "dark")
    assert (found["sheet"] < found["ink"]) == (scheme == "dark")
    assert abs(found["sheet"] - found["ink"]) > 400


async def test_the_chosen_theme_outlives_a_reload(stack: Stack, visitor: Visitor) -> None:
    """Who switches to the other theme has it from then on."""
    tab = await visitor.open_tab(color_scheme="light")
    light = await colours(tab.page)
    await tab.click("theme")
    dark = await colours(tab.page)
    assert light["ground"] != dark["ground"]
    await tab.page.reload()
    assert await colours(tab.page) == dark


async def test_code_inside_the_page_is_refused_and_the_console_says_so(
    stack: Stack, visitor: Visitor
) -> None:
    """The policy holds; and a violation is among the complaints that no other test may have."""
    tab = await visitor.open_tab()
    await tab.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.slipped = true";
            document.body.append(script);
        }"""
    )
    assert await tab.page.evaluate("window.slipped") is None
    (complaint,) = visitor.complaints
    assert "Content Security Policy" in complaint
    visitor.forgive(complaint)
