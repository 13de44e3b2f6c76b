"""The console's market page: book, trades and candles, from literal entries."""

import pytest

from bridge.console.market import Entry, MarketPage, Streams, candles_of, is_snapshot, markets

TIMES = {"event_us": "1700000000000300", "engine_us": "1700000000000100", "extra": ""}
READ = {"received_us": "1700000000000900"} | TIMES


def delta(first: int, last: int, bids: str = "[]", asks: str = "[]") -> Entry:
    fields = {"type": "depth", "symbol": "A_B", "first_update_id": str(first)}
    return Entry(
        f"1700000000000-{last}0",
        fields | {"last_update_id": str(last), "bids": bids, "asks": asks} | READ,
    )


def snapshot(number: int, bids: str, asks: str) -> Entry:
    fields = {"type": "depth_snapshot", "symbol": "A_B", "update_id": str(number)}
    none = {"rest_update_id": "", "event_us": "", "engine_us": ""}
    return Entry(f"1700000000000-{number}2", fields | {"bids": bids, "asks": asks} | READ | none)


def gap(entry_id: str, first: str, last: str) -> Entry:
    fields = {"type": "gap", "symbol": "A_B", "from": first, "to": last, "from_us": "", "to_us": ""}
    return Entry(
        entry_id, fields | {"cause": "skipped", "recovered": "false", "occurrence": ""} | READ
    )


def trade(number: int, price: str = "99.5", **given: str) -> Entry:
    fields = {
        "type": "trade", "symbol": "A_B", "price": price, "quantity": "1.5",
        "trade_id": str(number), "buyer_order_id": "", "seller_order_id": "",
        "buyer_is_maker": "true", "source": "",
    }  # fmt: skip
    return Entry(f"1700000000000-{number}0", fields | READ | given)


def page() -> MarketPage:
    return MarketPage()


def test_the_book_is_the_snapshot_with_later_changes() -> None:
    market = page()
    market.take_depth([snapshot(5, '[["98","1"],["97","2"]]', '[["99","3"]]')])
    market.take_depth([delta(6, 7, bids='[["98","0.0"],["96","4"]]', asks='[["98.5","1"]]')])
    book = market.book()
    assert (book["known"], book["update_id"]) == (True, 7)
    assert book["bids"] == [("97", "2"), ("96", "4")]
    assert book["asks"] == [("98.5", "1"), ("99", "3")]


def test_after_a_gap_the_book_is_not_known_until_the_next_snapshot() -> None:
    market = page()
    market.take_depth([snapshot(5, '[["98","1"]]', "[]"), gap("1700000000000-91", "6", "9")])
    assert (market.book()["known"], market.book()["bids"]) == (False, [])
    market.take_depth([delta(10, 10, bids='[["98","5"]]')])
    assert not market.book()["known"]
    market.take_depth([snapshot(12, '[["98","7"]]', "[]")])
    assert market.book()["bids"] == [("98", "7")]


def test_an_entry_that_is_not_of_the_contract_is_skipped() -> None:
    market = page()
    assert market.take_depth([Entry("1-1", {"type": "depth", "bids": "no"})])
    assert market.take_trades([Entry("1-1", {"hello": "world"})]) == []


def test_the_tape_shows_trades_recovered_trades_and_gaps_in_order() -> None:
    market = page()
    lines = market.take_trades(
        [
            trade(1),
            trade(2, buyer_is_maker="false"),
            gap("1700000000000-41", "3", "4"),
            trade(5, source="rest"),
        ]
    )
    assert [(one.get("side"), one.get("recovered"), one.get("count")) for one in lines] == [
        ("sell", False, None),
        ("buy", False, None),
        (None, None, 2),
        ("sell", True, None),
    ]
    assert market.tape() == lines


def test_best_prices_are_the_books_without_a_stream_of_best_prices() -> None:
    market = page()
    assert market.best() == {}
    market.take_depth([snapshot(5, '[["98","1"]]', '[["99","3"]]')])
    assert (market.best()["bid"], market.best()["ask"]) == (("98", "1"), ("99", "3"))


@pytest.mark.parametrize(("entry_id", "is_one"), [("1-52", True), ("1-50", False), ("1-51", False)])
def test_a_snapshot_is_recognised_by_its_entry_id(entry_id: str, *, is_one: bool) -> None:
    assert is_snapshot(entry_id) is is_one


def test_markets_are_those_that_have_a_book_trades_or_best_prices() -> None:
    there = markets(["depth.200ms.A_B", "trade.A_B", "kline.1m.A_B", "ticker.C_D", "trade.E_F"])
    assert there == {
        "A_B": Streams("depth.200ms.A_B", "trade.A_B", "", {"1m": "kline.1m.A_B"}),
        "E_F": Streams("", "trade.E_F", "", {}),
    }


def candle(minute: int, close: str, **given: str) -> dict[str, str]:
    start = f"2026-09-02T16:{minute:02}:00"
    prices = {"open": "1", "high": "3", "low": "1", "close": close, "volume": "10"}
    return {"start_utc": start, "complete": "true"} | prices | given


def test_an_amended_candle_replaces_the_first_one_and_the_current_one_is_last() -> None:
    made = candles_of(
        [candle(1, "2"), candle(2, "2"), candle(1, "2.5")], candle(3, "3", complete="false")
    )
    assert [one[4] for one in made] == [2.5, 2.0, 3.0]
    assert [one[6] for one in made] == [True, True, False]
    assert made[1][0] - made[0][0] == 60_000


def test_candles_of_the_exchange_are_shown_and_invalid_ones_skipped() -> None:
    kline = {
        "start_utc": "2026-09-02T16:44:00", "open_price": "1", "high_price": "2",
        "low_price": "1", "close_price": "2", "base_volume": "",
    }  # fmt: skip
    assert candles_of([kline, kline | {"open_price": ""}, {"a": "b"}], {}) == [
        [1_788_367_440_000, 1.0, 2.0, 1.0, 2.0, 0.0, True]
    ]
