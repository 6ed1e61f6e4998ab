"""The README says what the code does, and promises what the tests show."""

import ast
from pathlib import Path

import pytest

from tests.support import promises_table, settings_table
from tests.support.promises import PROMISES, Bound, Promise

ROOT = Path(__file__).parents[2]


def find_tests(source: str) -> dict[str, ast.AST]:
    """The tests of a module, by name."""
    return {
        node.name: node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    }


def uses_bound(test: ast.AST, key: str) -> bool:
    """Whether a test reads `PROMISES["key"].bound`."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "bound"
        and ast.unparse(node.value) == f"PROMISES[{key!r}]"
        for node in ast.walk(test)
    )


def complaints(key: str, promise: Promise, root: Path = ROOT) -> list[str]:
    """What is wrong with the tests that a row names: absent, or with a bound of their own."""
    wrong = [] if promise.shown_by else ["no test is named"]
    for name in promise.shown_by:
        path, _, wanted = name.partition("::")
        file = root / path
        found = find_tests(file.read_text(encoding="utf-8")) if file.is_file() else {}
        named = [test for each, test in found.items() if wanted in ("", each)]
        if not named:
            wrong.append(f"{name} does not exist")
        elif promise.bound.terms and not any(uses_bound(test, key) for test in named):
            wrong.append(f"{name} does not take its bound from PROMISES[{key!r}]")
    return wrong


def test_the_settings_in_the_readme_are_those_of_the_code() -> None:
    """Nobody configures by a table that is out of date."""
    text = settings_table.README.read_text(encoding="utf-8")
    assert settings_table.BEGIN in text
    assert settings_table.with_settings_table(text) == text


def test_the_promises_in_the_readme_are_those_of_the_tests() -> None:
    """Nobody relies on a bound that no test holds us to."""
    text = promises_table.README.read_text(encoding="utf-8")
    assert promises_table.BEGIN in text
    assert promises_table.with_promises_table(text) == text


@pytest.mark.parametrize("key", PROMISES)
def test_each_promise_is_shown_by_tests_that_use_its_bound(key: str) -> None:
    """A bound is written down once: the README and the tests cannot drift apart."""
    assert complaints(key, PROMISES[key]) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("", "does not exist"),
        ("def test_other(): PROMISES['it'].bound", "does not exist"),
        ("def test_it(): assert took <= 4", "does not take its bound"),
        ("def test_it(): PROMISES['other'].bound", "does not take its bound"),
        ("def helper(): PROMISES['it'].bound\ndef test_it(): helper()", "does not take its bound"),
        ("async def test_it(): assert took <= PROMISES['it'].bound.within()", None),
    ],
)
def test_the_check_of_promises_can_fail(source: str, complaint: str | None, tmp_path: Path) -> None:
    """It notices a test that is gone, and one that has a bound of its own or another row's."""
    (tmp_path / "test_it.py").write_text(source)
    promise = Promise("it", "that", Bound(("WORKER_LEASE",)), ("test_it.py::test_it",))
    found = complaints("it", promise, tmp_path)
    assert [complaint in each for each in found if complaint] == ([True] if complaint else [])
    assert bool(found) == bool(complaint)
