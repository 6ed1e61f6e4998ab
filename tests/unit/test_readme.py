"""The README says what the code does."""

from tests.support.settings_table import BEGIN, README, with_settings_table


def test_the_settings_in_the_readme_are_those_of_the_code() -> None:
    """Nobody configures by a table that is out of date."""
    text = README.read_text(encoding="utf-8")
    assert BEGIN in text
    assert with_settings_table(text) == text
