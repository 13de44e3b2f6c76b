"""Suggestions for misspelt names."""

import pytest

from bridge.runtime.nearest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "hits"),
    [("SOLUSDC", ["SOL_USDC"]), ("sol_usdc", ["SOL_USDC", "BTC_USDC"]), ("zzz", [])],
)
def test_the_nearest_names_come_first_in_any_case(word: str, hits: list[str]) -> None:
    assert nearest(word, ["BTC_USDC", "SOL_USDC"]) == hits


def test_the_suggestion_is_appended_to_a_sentence() -> None:
    assert did_you_mean("tarde", ["trade", "depth"]) == "; did you mean trade?"
    assert did_you_mean("zzz", ["trade", "depth"]) == ""
