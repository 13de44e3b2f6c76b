"""The formats of rates, ages, latencies, counts and curves."""

import pytest

from bridge.view import figures


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(None, ""), (0.0, "·"), (0.25, "0.2"), (42.14, "42.1"), (1204.4, "1,204")],
)
def test_a_rate_is_short(per_second: float | None, text: str) -> None:
    assert figures.rate(per_second) == text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, "never"),
        (100_000, "0.1s"),
        (12_000_000, "12s"),
        (180_000_000, "3m"),
        (7_200_000_000, "2h"),
        (400_000_000_000, "5d"),
    ],
)
def test_an_age_has_one_unit(microseconds: int | None, text: str) -> None:
    assert figures.age(microseconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.62, "0.6ms"), (12.4, "12ms"), (1234.0, "1.2s")]
)
def test_a_latency_is_short(value: float | None, text: str) -> None:
    assert figures.milliseconds(value) == text


def test_large_counts_are_shown_in_millions() -> None:
    assert (figures.count(1204), figures.count(12_345_678)) == ("1,204", "12.3M")


def test_a_curve_shows_the_newest_values_with_the_highest_full() -> None:
    assert figures.curve([9.0, 0.0, 50.0, 100.0], 3) == "▁▅█"


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_a_curve_without_values_is_empty(values: list[float]) -> None:
    assert figures.curve(values, 10) == ""
