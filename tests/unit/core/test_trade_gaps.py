"""Gaps in the numbers of a trade stream: trades recovered from history, numbers never used."""

from collections.abc import Iterable
from itertools import pairwise
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.causes import GapCause
from bridge.contract.events import Trade
from bridge.core import trade_gaps
from bridge.core.entries import Slot, Wait
from bridge.core.outcomes import Reach
from bridge.core.trade_gaps import SPARSE_EVERY_US, Recovered, Run, TradeGaps
from tests.support.slots import NOW_US, SECOND_US, trade, trade_event

RECOVER_US = 30 * SECOND_US


def received(*numbers: int) -> tuple[TradeGaps, dict[int, Slot]]:
    gaps, slots = TradeGaps(RECOVER_US), {}
    for number in numbers:
        slots[number] = trade(number)
        gaps.receive(slots[number])
    return gaps, slots


def rows(numbers: Iterable[int]) -> list[Trade]:
    return [trade_event(number) for number in numbers]


def put_in(ended: list[Recovered]) -> list[tuple[int, int]]:
    return [(row.entry.number, row.after) for each in ended for row in each.rows]


def test_trade_gaps_want_nothing_where_numbers_follow_on() -> None:
    gaps, _ = received(5, 6, 7, 6)

    assert gaps.wanted(NOW_US) is None


def test_trade_gaps_find_none_before_the_first_trade() -> None:
    gaps = TradeGaps(RECOVER_US)

    assert gaps.receive(trade(99)) is False


def test_trade_gap_is_requested_and_its_trade_waits() -> None:
    gaps, slots = received(5, 9)

    assert gaps.wanted(NOW_US) == 4
    assert slots[9].wait == NOW_US + RECOVER_US


def test_trade_gap_ends_with_the_trades_of_history_each_behind_the_one_before() -> None:
    gaps, slots = received(5, 9)

    reach, ended = gaps.page(rows([10, 9, 8, 7, 6, 5, 4]), NOW_US)

    assert reach is Reach.DONE
    assert put_in(ended) == [(6, 5), (7, 6), (8, 7)]
    assert slots[9].after == 8
    assert slots[9].wait is Wait.NO_LONGER
    assert gaps.wanted(NOW_US) is None


def test_trade_gap_numbers_that_history_does_not_have_were_never_used() -> None:
    gaps, slots = received(5, 9)

    _, ended = gaps.page(rows([9, 7, 5]), NOW_US)

    assert put_in(ended) == [(7, 5)]
    assert slots[9].after == 7


def test_trade_gap_is_requested_again_where_history_does_not_show_what_was_received() -> None:
    gaps, _ = received(5, 9)

    assert gaps.page(rows([8, 7, 6, 5]), NOW_US) == (Reach.STALE, [])
    assert gaps.wanted(NOW_US) is not None


def test_trade_gap_ends_by_pages_that_share_a_trade() -> None:
    gaps, slots = received(5, 99)

    assert gaps.page(rows(range(99, 60, -1)), NOW_US)[0] is Reach.DEEPER
    assert gaps.page(rows(range(62, 30, -1)), NOW_US)[0] is Reach.DEEPER
    reach, ended = gaps.page(rows(range(31, 0, -1)), NOW_US)

    assert reach is Reach.DONE
    assert put_in(ended) == [(number, number - 1) for number in range(6, 99)]
    assert slots[99].after == 98


def test_trade_gap_stays_open_where_pages_do_not_meet() -> None:
    gaps, _ = received(5, 99)
    gaps.page(rows(range(99, 60, -1)), NOW_US)

    reach, ended = gaps.page(rows(range(58, 0, -1)), NOW_US)

    assert (reach, ended) == (Reach.DEEPER, [])


def test_trade_gap_keeps_its_older_part_missing_where_history_ends() -> None:
    gaps, slots = received(5, 99)
    gaps.page(rows(range(99, 60, -1)), NOW_US)

    (ended,) = gaps.end_of_history(NOW_US)

    assert ended.run == Run(61, 98)
    assert put_in([ended])[0] == (61, 60)
    assert ended.rows[0].wait is Wait.NO_LONGER
    assert slots[99].after == 98


def test_trade_gap_waits_no_longer_where_history_is_refused() -> None:
    gaps, slots = received(5, 9)

    (ended,) = gaps.end_of_history(NOW_US)

    assert ended.run.first > ended.run.last
    assert (slots[9].after, slots[9].wait) == (8, Wait.NO_LONGER)


def test_trade_gap_uses_no_page_after_its_time() -> None:
    gaps, slots = received(5, 9)
    late_us = NOW_US + RECOVER_US + 1

    assert gaps.page(rows([9, 8, 7, 6, 5]), late_us) == (Reach.DONE, [])
    assert gaps.wanted(late_us) is None
    assert slots[9].after == 8


def test_trade_gap_waits_no_longer_with_too_much_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_gaps, "MAX_WAITING_BYTES", 2_000)
    gaps, slots = received(5, 9, *range(10, 20))

    assert gaps.wanted(NOW_US) is None
    assert slots[9].wait is Wait.NO_LONGER


def test_trade_gap_is_closed_by_trades_that_come_late() -> None:
    gaps, _ = received(5, 9, 7, 6, 8)

    assert gaps.wanted(NOW_US) is None


def sparse_at(number: int) -> TradeGaps:
    """The gaps of a sparse market up to trade `number`; history was just requested."""
    gaps, _ = received(number - 40)
    for there in (number - 30, number - 20, number - 10, number):
        gaps.receive(trade(there))
        gaps.page(rows([there, there - 10]), NOW_US)
    assert gaps.is_sparse
    return gaps


def test_trade_gap_of_a_sparse_market_does_not_make_its_trade_wait() -> None:
    gaps = sparse_at(100)

    following = trade(110)
    assert gaps.receive(following) is False
    assert (following.after, following.wait) == (100, Wait.AS_QUEUE)


def test_trade_gap_of_a_sparse_market_after_a_lost_connection_is_requested() -> None:
    gaps = sparse_at(100)
    gaps.set_gap_cause(GapCause.CONNECTION_LOST)

    assert gaps.receive(trade(110)) is True


def test_trade_gap_of_a_sparse_market_is_requested_each_ten_seconds() -> None:
    gaps = sparse_at(100)
    later_us = NOW_US + SPARSE_EVERY_US

    assert gaps.receive(trade(110, later_us)) is True
    _, ended = gaps.page(rows(range(110, 99, -1)), later_us)
    assert len(ended[0].rows) == 9
    assert not gaps.is_sparse


def test_trade_gap_that_was_not_requested_is_reported_if_a_page_has_trades_of_it() -> None:
    gaps = sparse_at(100)
    gaps.receive(trade(104))
    gaps.receive(trade(110))
    later_us = NOW_US + SPARSE_EVERY_US

    assert gaps.receive(trade(111, later_us)) is True
    assert gaps.wanted(later_us) == 11
    assert gaps.page(rows([111, 110, 108, 104]), later_us) == (Reach.DEEPER, [])
    assert gaps.page(rows([104, 100]), later_us) == (Reach.DONE, [])

    assert gaps.unseen() == [Run(105, 109)]
    assert not gaps.is_sparse
    assert gaps.wanted(later_us) is None


def test_trade_gap_that_history_fills_makes_the_market_dense() -> None:
    gaps, _ = received(5)
    for number in (10, 20):
        gaps.receive(trade(number))
        gaps.page(rows(range(number, 4, -5)), NOW_US)
    gaps.receive(trade(23))
    gaps.page(rows([23, 22, 21, 20]), NOW_US)
    gaps.receive(trade(30))
    gaps.page(rows([30, 23]), NOW_US)

    assert not gaps.is_sparse


def test_trade_gap_that_is_marked_ends_the_wait_of_a_replayed_trade() -> None:
    gaps, slots = received(5, 8)
    slots[8].wait_while_replaying()

    gaps.marked(1_000)  # of older, higher numbers

    assert slots[8].wait is Wait.NO_LONGER


def test_trade_gap_that_was_written_is_not_requested() -> None:
    gaps, _ = received(5, 9)

    gaps.marked(8)

    assert gaps.wanted(NOW_US) is None


def test_trade_gap_found_by_redis_is_requested() -> None:
    gaps, slots = received(9)

    assert gaps.open_before(slots[9], 6, NOW_US + SECOND_US)

    assert slots[9].wait == NOW_US + SECOND_US + RECOVER_US
    assert put_in(gaps.page(rows(range(9, 2, -1)), NOW_US)[1]) == [(6, 5), (7, 6), (8, 7)]


@given(
    there=st.sets(st.integers(1, 60), min_size=2),
    missed=st.sets(st.integers(1, 60)),
    pages=st.integers(1, 70),
)
def test_trade_gaps_recover_every_missed_trade_once_and_in_order(
    there: set[int], missed: set[int], pages: int
) -> None:
    numbers = sorted(there)
    kept = [number for number in numbers if number not in missed or number == numbers[0]]
    gaps, slots = received(*kept)
    newest_first = [number for number in reversed(numbers) if number <= kept[-1]]

    ended: list[Recovered] = []
    for start in range(0, len(newest_first), pages):
        page = newest_first[max(0, start - 1) : start + pages]
        ended += gaps.page(rows(page), NOW_US)[1]

    back = [row.entry.number for each in ended for row in each.rows]
    every = sorted([*kept, *back])
    assert every == newest_first[::-1]
    chained = {row.entry.number: row.after for each in ended for row in each.rows}
    chained |= {number: slots[number].after for number in kept}
    assert all(chained[number] <= before for before, number in pairwise(every))


@pytest.mark.parametrize("between", [[], [9]])
def test_any_count_of_numbers_not_requested_is_judged_by_the_rows_of_history(
    between: list[int],
) -> None:
    """The numbers leap so far that one step for each would take years."""
    gaps = TradeGaps(RECOVER_US)
    gaps.mark_sparse()
    gaps.receive(trade(5))
    gaps.receive(trade(7))  # requests history
    gaps.page(rows([7, 5]), NOW_US)
    gaps.receive(trade(8 * 10**14))  # not requested at once

    gaps.page(rows([8 * 10**14, *between, 5]), NOW_US)

    assert gaps.unseen() == [Run(8, 8 * 10**14 - 1)] * len(between)


def test_rows_of_pages_are_kept_only_from_the_oldest_number_that_they_may_show() -> None:
    """Each page is a little behind: the newest numbers let pass are never in it."""
    gaps = sparse_at(1_000)
    alive: list[ref[Trade]] = []
    for newest in range(1_010, 3_000, 10):
        for number in range(newest - 8, newest + 1, 2):  # each second number never was
            gaps.receive(trade(number))
        page = rows(range(newest - 2, newest - 14, -2))
        alive += map(ref, page)
        gaps.page(page, NOW_US)
        del page

    assert sum(each() is not None for each in alive) < 20
