"""Joining a REST snapshot with deltas: placed at the newest delta, or requested again."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.book import MOST_AHEAD, QUIET_US, DepthBook, is_zero, price_key
from bridge.core.outcomes import Join
from tests.support.slots import NOW_US
from tests.support.slots import delta_event as delta

MS = NOW_US // 1000


def test_book_body_joined_is_carried_forward_to_the_newest_delta() -> None:
    book = DepthBook(0)
    book.follow(delta(10, 10, bids=[("98", "1")]), MS)
    book.follow(delta(11, 11, bids=[("98", "0.00")], asks=[("99.0", "5")]), MS)
    book.follow(delta(12, 13, bids=[("97", "2")]), MS)

    joined = book.join(10, [("96", "3"), ("98", "1")], [("99", "4"), ("100", "6")])

    assert joined is Join.PLACED
    assert (book.number, book.rest_update_id) == (13, 10)
    assert book.levels() == ([("97", "2"), ("96", "3")], [("99.0", "5"), ("100", "6")])


def test_book_body_older_than_the_first_delta_is_too_old() -> None:
    book = DepthBook(0)
    book.follow(delta(10, 10), MS)

    assert book.join(8, [], []) is Join.TOO_OLD
    assert not book.joined


def test_book_body_directly_before_the_first_delta_is_placed() -> None:
    book = DepthBook(0)
    book.follow(delta(10, 10, bids=[("98", "1")]), MS)

    assert book.join(9, [], []) is Join.PLACED
    assert book.levels() == ([("98", "1")], [])


def test_book_body_ahead_of_the_deltas_is_placed_when_they_reach_it() -> None:
    book = DepthBook(0)
    book.follow(delta(10, 10), MS)

    assert book.join(12, [("98", "1")], []) is Join.AHEAD
    assert book.follow(delta(11, 11, bids=[("98", "9")]), MS) is None
    assert book.follow(delta(12, 12, bids=[("97", "9")]), MS) is Join.PLACED
    assert book.levels() == ([("98", "1")], [])
    assert book.number == 12


def test_book_body_before_the_first_delta_is_placed_with_it() -> None:
    book = DepthBook(0)

    assert book.join(9, [("98", "1")], []) is Join.AHEAD
    assert book.follow(delta(10, 10, asks=[("99", "1")]), MS) is Join.PLACED
    assert book.levels() == ([("98", "1")], [("99", "1")])


def test_book_with_a_gap_in_its_deltas_is_void_until_the_next_body() -> None:
    book = DepthBook(0)
    book.follow(delta(10, 10), MS)
    book.join(10, [("98", "1")], [])

    book.follow(delta(12, 12), MS)

    assert not book.joined
    assert book.join(11, [("97", "1")], []) is Join.PLACED
    assert book.levels() == ([("97", "1")], [])


def test_book_applies_an_overlapping_delta_and_passes_over_an_old_one() -> None:
    book = DepthBook(0)
    book.follow(delta(10, 12), MS)
    book.join(12, [("98", "1")], [])

    book.follow(delta(11, 14, bids=[("98", "2")]), MS)
    book.follow(delta(13, 14, bids=[("98", "7")]), MS)

    assert (book.number, book.levels()) == (14, ([("98", "2")], []))


def test_book_reset_is_unknown() -> None:
    book = DepthBook(0)
    book.follow(delta(10, 10), MS)
    book.join(10, [("98", "1")], [])

    book.reset()

    assert (book.number, book.joined) == (0, False)


def test_book_periodic_snapshot_is_due_where_the_update_id_crosses_a_multiple() -> None:
    book = DepthBook(every_updates=100)
    book.follow(delta(98, 98), MS)
    book.join(98, [], [])

    due = [
        book.crosses(delta(first, last), 0)
        for first, last in ((99, 99), (100, 100), (101, 101), (195, 203))
    ]

    assert due == [False, True, False, True]
    assert not DepthBook(every_updates=0).crosses(delta(100, 100), 0)


def test_book_periodic_snapshot_is_due_where_the_engines_time_crosses_a_multiple() -> None:
    book = DepthBook(every_updates=0, every_ms=1000)
    book.follow(delta(98, 98), MS)
    book.join(98, [], [])

    due = [book.crosses(delta(99, 99), ms) for ms in (5_990, 5_999, 6_000, 5_999, 6_001, 9_000)]

    assert due == [False, False, True, False, False, True]


def test_book_snapshot_has_so_many_of_the_best_levels() -> None:
    book = DepthBook(0, levels_kept=2)
    book.follow(delta(10, 10), MS)
    book.join(10, [("7", "1"), ("8", "1"), ("9", "1")], [("10", "1"), ("11", "1"), ("12", "1")])

    assert book.levels() == ([("9", "1"), ("8", "1")], [("10", "1"), ("11", "1")])


def test_book_without_deltas_rests_where_a_second_body_is_equal() -> None:
    book = DepthBook(0)

    assert book.join(9, [("98", "1")], [], NOW_US) is Join.AHEAD
    assert book.join(9, [("98", "1")], [], NOW_US + QUIET_US - 1) is Join.AHEAD
    assert book.join(9, [("98", "1")], [], NOW_US + QUIET_US) is Join.RESTS

    assert (book.number, book.joined, book.levels()) == (9, True, ([("98", "1")], []))
    assert book.follow(delta(10, 10, asks=[("99", "1")]), MS) is None
    assert book.levels() == ([("98", "1")], [("99", "1")])


def test_book_whose_second_body_differs_does_not_rest() -> None:
    book = DepthBook(0)
    book.join(9, [], [], NOW_US)

    assert book.join(10, [], [], NOW_US + QUIET_US) is Join.AHEAD


def test_book_rests_ahead_of_the_deltas_received_before() -> None:
    book = DepthBook(0)
    book.follow(delta(5, 5, bids=[("97", "1")]), MS)
    book.join(8, [("98", "1")], [], NOW_US)

    assert book.join(8, [("98", "1")], [], NOW_US + QUIET_US) is Join.RESTS
    assert (book.number, book.levels()[0]) == (8, [("98", "1")])


def test_price_key_and_zero_compare_as_numbers() -> None:
    assert price_key("86700.0") == price_key("86700") == "86700"
    assert price_key("0.10") == "0.1"
    assert price_key("100") == "100"
    assert is_zero("0.00")
    assert is_zero("0")
    assert not is_zero("0.001")


prices = st.decimals("0.001", "99999", places=3).map(str)


@given(st.lists(st.tuples(prices, st.just("1")), unique_by=lambda level: price_key(level[0])))
def test_book_levels_are_sorted_best_first_by_number(levels: list[tuple[str, str]]) -> None:
    book = DepthBook(0)
    book.follow(delta(1, 1), MS)
    book.join(1, levels, levels)

    bids, asks = book.levels()

    assert [price for price, _ in asks] == sorted((price for price, _ in levels), key=float)
    assert bids == asks[::-1]


changes = st.lists(
    st.tuples(st.sampled_from(["98", "98.0", "99", "99.50"]), st.sampled_from(["0.0", "1", "2"])),
    max_size=3,
)


@given(st.lists(changes, min_size=1, max_size=30), st.data())
def test_book_equals_the_exchanges_for_a_body_of_any_time(
    history: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    taken_at = data.draw(st.integers(0, len(history)))
    asked_after = data.draw(st.integers(0, len(history)))
    truth: dict[str, str] = {}
    body: dict[str, str] = {}
    for number, levels in enumerate(history, 1):
        for price, quantity in levels:
            truth[price_key(price)] = quantity
        if number == taken_at:
            body = dict(truth)
    live = {(price, quantity) for price, quantity in truth.items() if not is_zero(quantity)}
    snapshot = [(price, quantity) for price, quantity in body.items() if not is_zero(quantity)]

    book = DepthBook(0)
    for number, levels in enumerate(history, 1):
        if number == asked_after + 1:
            book.join(taken_at, snapshot, [])
        book.follow(delta(number, number, bids=levels), MS)
    if asked_after == len(history):
        book.join(taken_at, snapshot, [])

    assert book.joined
    assert {(price_key(price), quantity) for price, quantity in book.levels()[0]} == live


def test_book_body_that_deltas_never_reach_is_requested_again() -> None:
    book = DepthBook(0)
    book.follow(delta(1, 1), MS)
    book.join(1_000_000, [], [])

    answers = [book.follow(delta(number, number), MS) for number in range(2, MOST_AHEAD + 3)]

    assert answers.count(Join.TOO_OLD) == 1
