"""Invariants of a simulated market for any seed: books, numbers, windows, candles."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from simulator import frames, rest_bodies
from simulator.candles import FIXED_MS, candle_start, moment_text
from simulator.engine import Engine
from simulator.events import BookTicker, Depth, Event, Kline, MarkPrice, Trade
from simulator.market import Market
from simulator.windows import WINDOWS_MS
from tests.support.examples import examples
from tests.support.simulator_runs import START_US, plan, run

SYMBOLS = ("SOL_USDC", "BTC_USDC_PERP", "FDVEXTD1B_USDC_PREDICTION")
Sides = dict[str, dict[Decimal, Decimal]]

seeds = st.integers(min_value=0, max_value=2**32)
# no shrinking: a smaller seed does not make a simpler market
law = examples(3, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def book_of(market: Market) -> Sides:
    """The book in the REST reply to a client."""
    body = rest_bodies.depth(market, 10_000, START_US)
    return {
        side: {Decimal(price): Decimal(quantity) for price, quantity in body[side]}
        for side in ("asks", "bids")
    }


def apply(book: Sides, event: Depth) -> None:
    for side, rows in (("asks", event.asks), ("bids", event.bids)):
        for price, quantity in rows:
            if Decimal(quantity):
                book[side][Decimal(price)] = Decimal(quantity)
            else:
                book[side].pop(Decimal(price), None)


def depths(events: list[Event], stream: str) -> list[Depth]:
    return [x for x in events if isinstance(x, Depth) and x.streams == (stream,)]


@law
@given(seeds)
def test_deltas_rebuild_the_snapshot_and_never_cross(seed: int) -> None:
    engine = Engine(plan(seed, symbols=SYMBOLS, rate=400))
    for symbol, market in engine.markets.items():
        assert market.update_id == market.listing.first_update_id, symbol
    books = {symbol: book_of(market) for symbol, market in engine.markets.items()}
    expected = {symbol: market.update_id + 1 for symbol, market in engine.markets.items()}
    events = run(engine, 12)
    for event in events:
        if not isinstance(event, Depth) or "ms." in event.streams[0]:
            continue
        assert event.first_id == event.last_id == expected[event.symbol]
        expected[event.symbol] += 1
        book = books[event.symbol]
        apply(book, event)
        if book["asks"] and book["bids"]:
            assert max(book["bids"]) < min(book["asks"])
    for symbol, market in engine.markets.items():
        assert books[symbol] == book_of(market)
        assert expected[symbol] == market.update_id + 1


@law
@given(seeds)
def test_the_book_ticker_agrees_with_the_depth_of_its_id(seed: int) -> None:
    engine = Engine(plan(seed, symbols=SYMBOLS, rate=400))
    books = {symbol: book_of(market) for symbol, market in engine.markets.items()}
    tops: dict[tuple[str, int], BookTicker] = {}
    events = run(engine, 8)
    for event in events:
        if isinstance(event, BookTicker):
            tops[event.symbol, event.update_id] = event
    result: dict[str, tuple[str | None, ...]] = {}
    for event in events:
        if not isinstance(event, Depth) or "ms." in event.streams[0]:
            continue
        book = books[event.symbol]
        apply(book, event)
        top = tops.pop((event.symbol, event.last_id), None)
        if top is not None:
            result[event.symbol] = (top.bid, top.bid_quantity, top.ask, top.ask_quantity)
        if event.symbol in result:
            assert _decimals(result[event.symbol]) == _touch(book)
    assert tops == {}


def _touch(book: Sides) -> tuple[Decimal | None, ...]:
    bid = max(book["bids"], default=None)
    ask = min(book["asks"], default=None)
    return (
        bid,
        None if bid is None else book["bids"][bid],
        ask,
        None if ask is None else book["asks"][ask],
    )


def _decimals(values: tuple[str | None, ...]) -> tuple[Decimal | None, ...]:
    return tuple(None if value is None else Decimal(value) for value in values)


@law
@given(seeds, st.sampled_from(WINDOWS_MS))
def test_windows_are_contiguous_and_rebuild_the_same_book(seed: int, window_ms: int) -> None:
    engine = Engine(plan(seed, symbols=("SOL_USDC",), rate=100, events=900))
    market = engine.markets["SOL_USDC"]
    realtime, windowed = book_of(market), book_of(market)
    next_id = market.update_id + 1
    events = run(engine, 60)
    for event in depths(events, f"depth.{window_ms}ms.SOL_USDC"):
        assert event.first_id == next_id
        assert event.last_id >= event.first_id
        next_id = event.last_id + 1
        apply(windowed, event)
    for event in depths(events, "depth.SOL_USDC"):
        apply(realtime, event)
    assert next_id == market.update_id + 1
    assert windowed == realtime == book_of(market)


@law
@given(seeds)
def test_a_trade_takes_from_the_best_level_and_ids_follow_on(seed: int) -> None:
    engine = Engine(plan(seed, symbols=SYMBOLS, rate=400))
    books = {symbol: book_of(market) for symbol, market in engine.markets.items()}
    next_ids = {symbol: market.trade_id + 1 for symbol, market in engine.markets.items()}
    pending: Trade | None = None
    for event in run(engine, 8):
        if isinstance(event, Trade):
            assert event.trade_id == next_ids[event.symbol]
            assert event.engine_us % 1000 == 0
            next_ids[event.symbol] += 1
            pending = event
        if isinstance(event, Depth) and "ms." not in event.streams[0]:
            book = books[event.symbol]
            before = {side: dict(levels) for side, levels in book.items()}
            apply(book, event)
            if pending is not None:
                side = "bids" if pending.buyer_is_maker else "asks"
                best = max(before[side]) if pending.buyer_is_maker else min(before[side])
                assert Decimal(pending.price) == best
                left = before[side][best] - book[side].get(best, Decimal(0))
                assert Decimal(pending.quantity) == left
                pending = None


@law
@given(seeds)
def test_candles_equal_their_trades(seed: int) -> None:
    engine = Engine(plan(seed, symbols=("SOL_USDC", "USDT_USDC"), rate=20))
    events = run(engine, 130)
    trades: dict[tuple[str, str, str], list[Trade]] = defaultdict(list)
    for event in events:
        if isinstance(event, Trade):
            for interval in FIXED_MS:
                start = moment_text(candle_start(interval, event.engine_us // 1000), "T")
                trades[event.symbol, interval, start].append(event)
    closed = [x for x in events if isinstance(x, Kline) and x.closed]
    assert len({(x.streams, x.start) for x in closed}) == len(closed)
    assert sum(x.streams == ("kline.1m.SOL_USDC",) for x in closed) == 2
    for candle in closed:
        interval = candle.streams[0].split(".")[1]
        inside = trades[candle.symbol, interval, candle.start]
        assert candle.trades == len(inside)
        prices = [Decimal(trade.price) for trade in inside]
        if not inside:
            values = (candle.open, candle.high, candle.low, candle.close, candle.volume)
            assert values == (None,) * 5
            continue
        assert (candle.open, candle.close) == (inside[0].price, inside[-1].price)
        assert Decimal(candle.high or 0) == max(prices)
        assert Decimal(candle.low or 0) == min(prices)
        assert Decimal(candle.volume or 0) == sum(Decimal(trade.quantity) for trade in inside)


def test_a_candle_s_frames_come_at_most_once_a_second_and_end_with_the_final_one() -> None:
    engine = Engine(plan(5, symbols=("SOL_USDC",), rate=200))
    frames_of: dict[str, list[Kline]] = defaultdict(list)
    for event in run(engine, 110):
        if isinstance(event, Kline) and event.streams == ("kline.1m.SOL_USDC",):
            frames_of[event.start].append(event)
    whole = list(frames_of.values())[1]
    assert [x.closed for x in whole] == [False] * (len(whole) - 1) + [True]
    assert all(b.event_us - a.event_us > 740_000 for a, b in pairwise(whole))
    late_us = whole[-1].event_us % 60_000_000
    assert 500_000 <= late_us < 510_000


def test_nothing_comes_after_the_final_frame_of_a_candle() -> None:
    closed: set[tuple[tuple[str, ...], str]] = set()
    for event in run(Engine(plan(5, rate=10)), 70):
        if isinstance(event, Kline):
            candle = (event.streams, event.start)
            assert candle not in closed
            if event.closed:
                closed.add(candle)


@law
@given(seeds)
def test_the_same_seed_makes_the_same_frames_however_it_is_requested(seed: int) -> None:
    one = Engine(plan(seed, rate=300))
    other = Engine(plan(seed, rate=300))
    frames_of_one = [frames.render(x, x.streams[0]) for x in run(one, 3)]
    frames_of_other: list[bytes] = []
    for until_us in range(START_US, START_US + 3_000_001, 5_000):
        for step in other.advance(until_us):
            frames_of_other += [frames.render(x, x.streams[0]) for x in step]
    assert frames_of_one == frames_of_other


def test_another_seed_makes_another_market() -> None:
    assert run(Engine(plan(1)), 1) != run(Engine(plan(2)), 1)


@law
@given(seeds)
def test_emission_time_never_goes_back_and_follows_engine_time(seed: int) -> None:
    events = run(Engine(plan(seed, rate=2000)), 3)
    assert all(a.event_us <= b.event_us for a, b in pairwise(events))
    for event in events:
        if isinstance(event, Trade | Depth | BookTicker) and "ms." not in event.streams[0]:
            assert event.event_us - event.engine_us >= 149


@pytest.mark.parametrize("limit", [0, 1, 30, 700])
def test_a_limited_run_makes_exactly_so_many_core_events(limit: int) -> None:
    for seed in range(5):
        engine = Engine(plan(seed, rate=500, events=limit))
        events = run(engine, 30)
        assert engine.next_us is None
        core = [
            event
            for event in events
            if isinstance(event, Trade | BookTicker)
            or (isinstance(event, Depth) and "ms." not in event.streams[0])
        ]
        assert len(core) == limit == engine.core_events


@pytest.mark.parametrize("rate", [50.0, 1000.0])
def test_the_rate_is_that_of_the_core_events(rate: float) -> None:
    engine = Engine(plan(3, rate=rate))
    run(engine, 60)
    assert engine.core_events / 60 == pytest.approx(rate, rel=0.15)


def test_mark_prices_of_all_markets_come_in_the_same_millisecond() -> None:
    marks = [x for x in run(Engine(plan(1)), 5) if isinstance(x, MarkPrice)]
    assert {x.engine_us % 1_000_000 for x in marks} == {846_000}
    assert {x.symbol for x in marks if x.next_funding_ms is None} == {"FDVEXTD1B_USDC_PREDICTION"}
    assert len(marks) == 5 * 5


def test_only_a_thin_market_loses_a_whole_side_and_several_levels_change_at_once() -> None:
    events = run(Engine(plan(2, rate=300)), 120)
    one_sided = {x.symbol for x in events if isinstance(x, BookTicker) and None in (x.ask, x.bid)}
    assert one_sided <= {"FDVEXTD1B_USDC_PREDICTION"}
    sizes = {
        len(x.asks) + len(x.bids)
        for x in events
        if isinstance(x, Depth) and "ms." not in x.streams[0]
    }
    assert sizes == {0, 1, 2, 3}
