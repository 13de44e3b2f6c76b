"""Holes in the numbers of a trade stream: what history mends, what it shows never to have been."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.events import Trade
from bridge.pipeline import trade_holes
from bridge.pipeline.items import AS_THE_LINE, Item
from bridge.pipeline.trade_holes import SPARSE_EVERY_US, Mended, Reach, TradeHoles
from tests.support.items import NOW_US, trade, trade_event

SECOND_US = 1_000_000
PATIENCE_US = 30 * SECOND_US


def heard(*numbers: int) -> tuple[TradeHoles, dict[int, Item]]:
    holes, items = TradeHoles(PATIENCE_US), {}
    for number in numbers:
        items[number] = trade(number)
        holes.hear(items[number])
    return holes, items


def rows(numbers: Iterable[int]) -> list[Trade]:
    return [trade_event(number) for number in numbers]


def put_in(mended: list[Mended]) -> list[tuple[int, int]]:
    return [(row.position, row.after) for each in mended for row in each.rows]


def test_numbers_that_follow_on_are_no_hole() -> None:
    holes, _ = heard(5, 6, 7, 6)

    assert holes.wanted(NOW_US) is None


def test_the_first_trade_ever_shows_no_hole() -> None:
    holes = TradeHoles(PATIENCE_US)

    assert holes.hear(trade(99)) is False


def test_a_number_left_out_is_asked_for_and_its_trade_waits() -> None:
    holes, items = heard(5, 9)

    assert holes.wanted(NOW_US) == 4
    assert items[9].hold_until_us == NOW_US + PATIENCE_US


def test_what_history_has_is_put_in_each_behind_the_one_before() -> None:
    holes, items = heard(5, 9)

    reach, mended = holes.page(rows([10, 9, 8, 7, 6, 5, 4]), NOW_US)

    assert reach is Reach.DONE
    assert put_in(mended) == [(6, 5), (7, 6), (8, 7)]
    assert items[9].after == 8
    assert items[9].hold_until_us == 0
    assert holes.wanted(NOW_US) is None


def test_numbers_that_history_does_not_have_never_were() -> None:
    holes, items = heard(5, 9)

    _, mended = holes.page(rows([9, 7, 5]), NOW_US)

    assert put_in(mended) == [(7, 5)]
    assert items[9].after == 7


def test_a_history_that_is_behind_is_asked_again() -> None:
    holes, _ = heard(5, 9)

    assert holes.page(rows([8, 7, 6, 5]), NOW_US) == (Reach.STALE, [])
    assert holes.wanted(NOW_US) is not None


def test_pages_that_share_a_trade_are_one_run() -> None:
    holes, items = heard(5, 99)

    assert holes.page(rows(range(99, 60, -1)), NOW_US)[0] is Reach.DEEPER
    assert holes.page(rows(range(62, 30, -1)), NOW_US)[0] is Reach.DEEPER
    reach, mended = holes.page(rows(range(31, 0, -1)), NOW_US)

    assert reach is Reach.DONE
    assert put_in(mended) == [(number, number - 1) for number in range(6, 99)]
    assert items[99].after == 98


def test_between_pages_that_do_not_meet_nothing_is_known() -> None:
    holes, _ = heard(5, 99)
    holes.page(rows(range(99, 60, -1)), NOW_US)

    reach, mended = holes.page(rows(range(58, 0, -1)), NOW_US)

    assert (reach, mended) == (Reach.DEEPER, [])


def test_where_history_ends_the_older_part_stays_missing() -> None:
    holes, items = heard(5, 99)
    holes.page(rows(range(99, 60, -1)), NOW_US)

    (mended,) = holes.end_of_history(NOW_US)

    assert (mended.from_, mended.to) == (61, 98)
    assert put_in([mended])[0] == (61, 60)
    assert mended.rows[0].hold_until_us == 0
    assert items[99].after == 98


def test_where_history_is_refused_nothing_is_waited_for() -> None:
    holes, items = heard(5, 9)

    (mended,) = holes.end_of_history(NOW_US)

    assert mended.from_ > mended.to
    assert (items[9].after, items[9].hold_until_us) == (8, 0)


def test_a_reply_after_the_holes_time_is_not_used() -> None:
    holes, items = heard(5, 9)
    late_us = NOW_US + PATIENCE_US + 1

    assert holes.page(rows([9, 8, 7, 6, 5]), late_us) == (Reach.DONE, [])
    assert holes.wanted(late_us) is None
    assert items[9].after == 8


def test_too_much_behind_a_hole_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_holes, "MAX_WAITING_BYTES", 2_000)
    holes, items = heard(5, 9, *range(10, 20))

    assert holes.wanted(NOW_US) is None
    assert items[9].hold_until_us == 0


def test_what_comes_by_another_way_closes_the_hole() -> None:
    holes, _ = heard(5, 9, 7, 6, 8)

    assert holes.wanted(NOW_US) is None


def sparse_at(number: int) -> TradeHoles:
    """A market that leaves out numbers again and again, up to this one; it was just asked for."""
    holes, _ = heard(number - 40)
    for there in (number - 30, number - 20, number - 10, number):
        holes.hear(trade(there))
        holes.page(rows([there, there - 10]), NOW_US)
    assert holes.is_sparse
    return holes


def test_where_numbers_are_left_out_again_and_again_nothing_waits_for_them() -> None:
    holes = sparse_at(100)

    following = trade(110)
    assert holes.hear(following) is False
    assert (following.after, following.hold_until_us) == (100, AS_THE_LINE)


def test_after_a_lost_connection_a_market_that_is_not_dense_waits_like_any_other() -> None:
    holes = sparse_at(100)
    holes.disconnected("connection lost")

    assert holes.hear(trade(110)) is True


def test_a_market_that_is_not_dense_is_asked_for_again_after_a_while() -> None:
    holes = sparse_at(100)
    later_us = NOW_US + SPARSE_EVERY_US

    assert holes.hear(trade(110, later_us)) is True
    _, mended = holes.page(rows(range(110, 99, -1)), later_us)
    assert len(mended[0].rows) == 9
    assert not holes.is_sparse


def test_what_was_let_pass_is_judged_by_the_next_page_and_told_if_there_was_something() -> None:
    holes = sparse_at(100)
    holes.hear(trade(104))
    holes.hear(trade(110))
    later_us = NOW_US + SPARSE_EVERY_US

    assert holes.hear(trade(111, later_us)) is True
    assert holes.wanted(later_us) == 11
    assert holes.page(rows([111, 110, 108, 104]), later_us) == (Reach.DEEPER, [])
    assert holes.page(rows([104, 100]), later_us) == (Reach.DONE, [])

    assert holes.unseen == [(105, 109)]
    assert not holes.is_sparse
    assert holes.wanted(later_us) is None


def test_a_hole_that_history_fills_speaks_for_density() -> None:
    holes, _ = heard(5)
    for number in (10, 20):
        holes.hear(trade(number))
        holes.page(rows(range(number, 4, -5)), NOW_US)
    holes.hear(trade(23))
    holes.page(rows([23, 22, 21, 20]), NOW_US)
    holes.hear(trade(30))
    holes.page(rows([30, 23]), NOW_US)

    assert not holes.is_sparse


def test_a_gap_that_was_written_is_not_filled_any_more() -> None:
    holes, _ = heard(5, 9)

    holes.marked(8)

    assert holes.wanted(NOW_US) is None


def test_what_redis_misses_is_asked_for_though_no_number_told_of_it() -> None:
    holes, items = heard(9)

    assert holes.missing(6, items[9], NOW_US + SECOND_US)

    assert items[9].hold_until_us == NOW_US + SECOND_US + PATIENCE_US
    assert put_in(holes.page(rows(range(9, 2, -1)), NOW_US)[1]) == [(6, 5), (7, 6), (8, 7)]


@given(
    there=st.sets(st.integers(1, 60), min_size=2),
    missed=st.sets(st.integers(1, 60)),
    pages=st.integers(1, 70),
)
def test_whatever_is_missed_comes_back_once_and_in_order(
    there: set[int], missed: set[int], pages: int
) -> None:
    numbers = sorted(there)
    kept = [number for number in numbers if number not in missed or number == numbers[0]]
    holes, items = heard(*kept)
    newest_first = [number for number in reversed(numbers) if number <= kept[-1]]

    mended: list[Mended] = []
    for start in range(0, len(newest_first), pages):
        page = newest_first[max(0, start - 1) : start + pages]
        mended += holes.page(rows(page), NOW_US)[1]

    back = [row.position for each in mended for row in each.rows]
    every = sorted([*kept, *back])
    assert every == newest_first[::-1]
    chained = {row.position: row.after for each in mended for row in each.rows}
    chained |= {number: items[number].after for number in kept}
    assert all(chained[number] <= before for before, number in pairwise(every))
