"""Duplicates from another connection, and equal messages on one connection."""

import pytest

from bridge.core.dedup import DedupWindow, Occurrences

NOW_US = 1_790_915_531_000_000


def test_message_of_another_connection_is_a_duplicate_within_the_window_only() -> None:
    window = DedupWindow()
    assert not window.is_duplicate(("a",), 1, NOW_US)

    assert window.is_duplicate(("a",), 2, NOW_US + DedupWindow.WITHIN_US)
    assert not window.is_duplicate(("a",), 2, NOW_US + DedupWindow.WITHIN_US + 1)


@pytest.mark.parametrize("step_us", [90_000_000, 3_600_000_000, -3_600_000_000])
def test_messages_with_a_time_are_duplicates_though_the_clock_was_set_in_between(
    step_us: int,
) -> None:
    window = DedupWindow()
    for number in range(3):
        window.is_duplicate((number,), 1, NOW_US + number, is_timed=True)

    for number in range(3):
        now_us = NOW_US + step_us + number
        assert not window.is_duplicate(("new", number), 2, now_us, is_timed=True)
        assert window.is_duplicate((number,), 2, now_us, is_timed=True)


def test_equal_message_of_the_same_connection_is_no_duplicate() -> None:
    window = DedupWindow()
    window.is_duplicate(("a",), 1, NOW_US)

    assert not window.is_duplicate(("a",), 1, NOW_US + 1)


def test_window_forgets_the_oldest_above_its_limit() -> None:
    window = DedupWindow()
    for number in range(DedupWindow.LIMIT + 1):
        window.is_duplicate((number,), 1, NOW_US)

    assert window.is_duplicate((DedupWindow.LIMIT,), 2, NOW_US)
    assert not window.is_duplicate((0,), 2, NOW_US)


def test_message_received_again_is_kept_as_long_as_a_new_one() -> None:
    window = DedupWindow()
    window.is_duplicate(("a",), 1, NOW_US)
    for number in range(DedupWindow.LIMIT - 1):
        window.is_duplicate((number,), 1, NOW_US)
    window.is_duplicate(("a",), 1, NOW_US)
    window.is_duplicate(("b",), 1, NOW_US)

    assert window.is_duplicate(("a",), 2, NOW_US)


def test_cleared_window_detects_no_duplicate() -> None:
    window = DedupWindow()
    window.is_duplicate(("a",), 1, NOW_US)
    window.clear()

    assert not window.is_duplicate(("a",), 2, NOW_US)


def test_window_is_swept_by_the_times_of_receiving() -> None:
    window = DedupWindow()
    for number in range(100):
        window.is_duplicate((number,), 1, NOW_US)
    later_us = NOW_US + DedupWindow.WITHIN_US + 1
    window.is_duplicate(("a",), 1, later_us)
    window.is_duplicate(("b",), 1, later_us + DedupWindow.SWEEP_US)

    assert list(window._received) == [("a",), ("b",)]


def test_occurrences_count_equal_messages() -> None:
    occurrences = Occurrences()

    counts = [occurrences.count((key,)) for key in ("a", "b", "a", "a")]

    assert counts == [0, 0, 1, 2]


def test_occurrences_forget_the_oldest_above_their_limit() -> None:
    occurrences = Occurrences()
    for number in range(Occurrences.LIMIT + 1):
        occurrences.count((str(number),))

    assert occurrences.count((str(Occurrences.LIMIT),)) == 1
    assert occurrences.count(("0",)) == 0
