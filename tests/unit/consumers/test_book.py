"""The book sample: applying deltas and snapshots, saved state, and the check against tickers."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.entry import decode
from bridge.contract.events import BookTicker, Depth, DepthSnapshot
from consumers.handlers.book import Book, Check, Difference
from consumers.kit.api.results import Results, State
from consumers.kit.order_book import OrderBook
from consumers.testing import EventFactory, Trial
from tests.support.consumer_entries import Fields, delivery, depth, depth_snapshot, gap


def known_book() -> OrderBook:
    book = OrderBook()
    book.replace(
        event(depth_snapshot(10, [("98.90", "1"), ("98.80", "2")], [("99.00", "3")]), DepthSnapshot)
    )
    return book


def event(fields: Fields, _kind: type[Any]) -> Any:
    return decode(fields)


def apply(book: OrderBook, fields: Fields) -> bool:
    return book.apply(event(fields, Depth))


def test_order_book_ignores_a_delta_before_any_snapshot() -> None:
    book = OrderBook()
    assert not apply(book, depth(10, 10, [("98.9", "1")], []))
    assert book.position is None
    assert book.bids.levels == {}


def test_order_book_applies_the_next_delta() -> None:
    book = known_book()
    assert apply(book, depth(11, 12, [("98.95", "7")], []))
    assert book.position == 12
    assert book.bids.top(2) == [("98.95", "7"), ("98.90", "1")]


def test_order_book_applies_an_overlapping_delta() -> None:
    book = known_book()
    assert apply(book, depth(8, 11, [], [("98.99", "4")]))
    assert book.position == 11
    assert book.asks.top(1) == [("98.99", "4")]


def test_order_book_ignores_a_delta_from_before_the_snapshot() -> None:
    book = known_book()
    assert not apply(book, depth(9, 10, [("98.90", "0")], []))
    assert book.position == 10
    assert book.bids.top(1) == [("98.90", "1")]


def test_order_book_is_unknown_after_missing_updates_until_a_snapshot() -> None:
    book = known_book()
    assert not apply(book, depth(12, 12, [("98.95", "7")], []))
    assert book.position is None
    assert not apply(book, depth(13, 13, [("98.95", "7")], []))
    book.replace(event(depth_snapshot(13, [("98.95", "7")], []), DepthSnapshot))
    assert apply(book, depth(14, 14, [], [("99.1", "1")]))
    assert (book.bids.top(1), book.asks.top(1)) == ([("98.95", "7")], [("99.1", "1")])


def test_order_book_deletes_a_level_with_any_padding_of_price_and_zero() -> None:
    book = known_book()
    assert apply(book, depth(11, 11, [("98.9", "0.00")], [("99", "0")]))
    assert book.bids.top(5) == [("98.80", "2")]
    assert book.asks.top(5) == []


prices = st.integers(1, 30).map(lambda n: f"{n / 10:.1f}") | st.integers(1, 30).map(
    lambda n: f"{n / 10:.3f}"
)
levels = st.lists(st.tuples(prices, st.sampled_from(["0", "0.0", "1", "2.50"])), max_size=6)


@given(st.lists(st.tuples(levels, levels), max_size=30))
def test_order_book_equals_a_plain_dict_of_numbers(deltas: list[Any]) -> None:
    book, reference = (
        known_book(),
        ({Decimal("98.9"): "1", Decimal("98.8"): "2"}, {Decimal(99): "3"}),
    )
    for number, sides in enumerate(deltas, 11):
        apply(book, depth(number, number, *sides))
        for side, changes in zip(reference, sides, strict=True):
            for price, quantity in changes:
                side[Decimal(price)] = quantity
        assert book.best() == (
            book.bids.levels.get(max(book.bids.levels, default=Decimal(0))),
            book.asks.levels.get(min(book.asks.levels, default=Decimal(0))),
        )
    expected = [{p: q for p, q in side.items() if Decimal(q)} for side in reference]
    assert [
        {p: level[1] for p, level in side.items()} for side in (book.bids.levels, book.asks.levels)
    ] == expected


def consumer(saved: dict[str, str] | None = None) -> Book:
    book = Book(levels="2", check_s="0")
    book.stream, book.state = "depth.SOL_USDC", State(saved)
    book.load()
    return book


def hash_of(book: Book) -> dict[str, str]:
    results = Results()
    book.write(results)
    [write] = [w for w in results.writes if w.part == ""]
    return dict(zip(write.arguments[::2], write.arguments[1::2], strict=True))


def feed(book: Book, *entries: Fields) -> None:
    for fields in entries:
        one = delivery(fields, stream="depth.SOL_USDC")
        waiting = getattr(book, f"on_{fields['type']}")(one)
        if waiting is not None:
            with pytest.raises(StopIteration):  # the coroutine awaits nothing
                waiting.send(None)


def test_book_hash_has_best_prices_quantities_update_id_and_top_levels() -> None:
    book = consumer()
    feed(
        book,
        depth_snapshot(10, [("98.90", "1"), ("98.80", "2"), ("98.70", "9")], [("99.00", "3")]),
        depth(11, 11, [("98.95", "7")], []),
    )
    assert hash_of(book) == {
        "symbol": "SOL_USDC",
        "known": "true",
        "update_id": "11",
        "bid_price": "98.95",
        "bid_quantity": "7",
        "ask_price": "99.00",
        "ask_quantity": "3",
        "bids": '[["98.95","7"],["98.90","1"]]',
        "asks": '[["99.00","3"]]',
        "engine_us": "1788367440000000",
        "checked": "0",
        "differing": "0",
    }
    assert book.made() == "SOL_USDC 98.95/99.00"


def test_book_hash_is_not_known_after_a_gap() -> None:
    book = consumer()
    feed(book, depth_snapshot(10, [("98.90", "1")], []), gap(12, first=11))
    shown = hash_of(book)
    assert (shown["known"], shown["bid_price"], shown["update_id"], shown["bids"]) == (
        "false",
        "",
        "",
        "[]",
    )
    assert book.made() == "SOL_USDC not known, waiting for a snapshot"


def saved_of(writes: list[Any], before: dict[str, str]) -> dict[str, str]:
    """The state's hash in Redis after these writes to `before`."""
    after = dict(before)
    for write in writes:
        if write.command == "HSET":
            after |= dict(zip(write.arguments[::2], write.arguments[1::2], strict=True))
        else:
            for field in write.arguments:
                after.pop(field, None)
    return after


@given(
    st.lists(
        st.one_of(
            st.tuples(levels, levels), st.just("gap"), st.tuples(st.just("snapshot"), levels)
        ),
        max_size=25,
    ),
    st.sets(st.integers(0, 24)),
)
def test_book_is_the_same_after_a_takeover_anywhere(steps: list[Any], cuts: set[int]) -> None:
    first: list[Fields] = [depth_snapshot(10, [("1.5", "1")], [("1.6", "3")])]
    entries, number = first, 10
    for step in steps:
        if step == "gap":
            entries.append(gap(number + 1, first=number + 1))
            number += 1
        elif step[0] == "snapshot":
            kept = {Decimal(p): (p, q) for p, q in step[1] if Decimal(q)}
            entries.append(depth_snapshot(number, list(kept.values()), []))
        else:
            number += 1
            entries.append(depth(number, number, *step))
    direct, moved, saved = consumer(), consumer(), {}
    for i, fields in enumerate(entries):
        feed(direct, fields)
        feed(moved, fields)
        if i in cuts:  # commit, then another worker takes over
            hash_of(moved)
            saved = saved_of(moved.state.take_writes("state"), saved)
            moved = consumer(saved)
    assert hash_of(moved) == hash_of(direct)


def test_book_drops_levels_that_a_snapshot_does_not_have() -> None:
    book = consumer()
    feed(book, depth_snapshot(10, [("98.90", "1"), ("98.80", "2")], [("99", "1")]))
    hash_of(book)
    saved = saved_of(book.state.take_writes("state"), {})
    feed(book, depth_snapshot(10, [("98.80", "2")], []))
    hash_of(book)
    saved = saved_of(book.state.take_writes("state"), saved)
    assert set(saved) == {"about", "top", "b98.8"}


@pytest.mark.parametrize("levels", ["²", "0", "x", "1001", "-1"])
def test_book_refuses_levels_out_of_range(levels: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 1000"):
        Book(levels=levels)


def ticker(update_id: int, bid: tuple[str, str] | None, ask: tuple[str, str] | None) -> BookTicker:
    factory = EventFactory()
    factory.update_id = update_id
    made = factory.book_ticker(bid or ("1", "1"), ask or ("1", "1")).event
    removed = {} if bid else {"bid_price": None, "bid_quantity": None}
    removed |= {} if ask else {"ask_price": None, "ask_quantity": None}
    assert isinstance(made, BookTicker)
    return made.model_copy(update=removed)


def test_book_check_compares_numbers_at_the_same_update_id_only() -> None:
    check = Check()
    check.note(10, "5-100", (("98.90", "1"), ("99.0", "3")))
    check.note(12, "6-120", (None, ("99.0", "3")))
    assert check.compare(ticker(10, ("98.9", "1.00"), ("99", "3"))) is None
    assert check.compare(ticker(11, ("1", "1"), ("2", "2"))) is None  # unknown update
    assert check.compare(ticker(12, None, ("99", "3"))) is None
    assert (check.checked, check.differing) == (2, 0)
    assert check.summary() == ", checked 2 times"
    assert check.compare(ticker(12, ("98.9", "1"), ("99", "3"))) == Difference(
        12, (None, ("99.0", "3")), (("98.9", "1"), ("99", "3"))
    )
    assert (check.checked, check.differing) == (3, 1)
    assert check.summary() == ", 1 of 3 checks DIFFER"


def test_book_check_waits_for_the_book_and_continues_where_it_was() -> None:
    check = Check()
    assert check.start() == ""
    check.note(10, "5-100", (None, None))
    assert check.start() == "5-0"
    assert check.is_ahead(ticker(11, None, None))
    assert not check.is_ahead(ticker(10, None, None))
    check.seen("5-7000")
    check.note(11, "9-110", (None, None))
    assert check.start() == "5-7001"


def test_book_check_keeps_a_bounded_number_of_updates() -> None:
    check = Check()
    for update_id in range(5000):
        check.note(update_id, f"{update_id}-{update_id}0", (None, None))
    assert check.start() == "4800-0"  # only the newest 200 updates are compared
    assert check.compare(ticker(0, None, None)) is None
    assert check.checked == 0
    check.compare(ticker(4999, None, None))
    assert check.checked == 1


def test_book_top_stream_has_each_change_of_the_top_levels() -> None:
    factory, trial = EventFactory(first=10), Trial(Book, "depth.SOL_USDC", levels="1", check_s="0")
    trial.deliver(factory.depth(), factory.snapshot([("98.9", "1"), ("98.8", "2")], [("99", "3")]))
    trial.deliver(factory.depth([("98.7", "5")]))  # below the top level: no entry
    trial.deliver(given := factory.depth([("98.95", "7")]))
    trial.take_over()
    trial.deliver(factory.depth([("98.6", "5")]))
    trial.deliver(factory.updates_missing(2))
    tops = trial.entries("top")
    assert [(f["known"], f["bids"], f["update_id"]) for _, f in tops] == [
        ("true", '[["98.9","1"]]', "10"),
        ("true", '[["98.95","7"]]', "12"),
        ("false", "[]", ""),
    ]
    assert tops[1][0] == given.entry_id
    assert trial.hash()["known"] == "false"
