"""Periodic events about markets: tickers, mark prices, candles, open interest.
Pure: called at the right engine times by `engine`, it reads the markets and writes to the tape.
Changes no market.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from simulator.candles import (
    INTERVALS,
    Candle,
    Candles,
    PricedCandles,
    candle_end,
    candle_start,
    moment_text,
)
from simulator.crowd import Crowd
from simulator.decimals import padded, trimmed
from simulator.events import Kline, MarkPrice, OpenInterest, Ticker
from simulator.listing import MarketType
from simulator.market import Market
from simulator.tape import Tape

HOUR_MS = 3_600_000
# Decimal places: mark prices two more than the market's tick, index prices four, funding eight.
MARK_PLACES = 2
INDEX_PLACES = 4
FUNDING_PLACES = 8


RATES_KEPT = 10_000


class FundingRate(NamedTuple):
    """The funding paid at the end of an interval."""

    end_ms: int
    rate: str


class Statistics:
    """The periodic events of all markets, and the mark prices behind them."""

    def __init__(
        self, markets: Mapping[str, Market], crowds: Mapping[str, Crowd], draw: random.Random
    ) -> None:
        self._markets = markets
        self._crowds = crowds
        self._draw = draw
        self._marked: list[str] = []
        self.marks: dict[str, str] = {}
        self.indexes: dict[str, str] = {}
        self.funding: dict[str, str] = {}
        self.interest: dict[str, int] = {}
        self.funding_paid: dict[str, deque[FundingRate]] = {}
        self._next_funding_ms = 0
        self._mark_candles: dict[str, Candles] = {}
        self._index_candles: dict[str, Candles] = {}
        for name in markets:
            self.list_market(name)

    def list_market(self, name: str) -> None:
        """Start marking a new market, if its type has mark prices."""
        listing = self._markets[name].listing
        if listing.has_mark_price:
            self._marked.append(name)
            self.interest[name] = listing.typical_quantity * 1_700
            self.funding_paid[name] = deque(maxlen=RATES_KEPT)
            self._mark_candles[name], self._index_candles[name] = Candles(), Candles()
            self._mark(name)

    def delist_market(self, name: str) -> None:
        """Stop marking a delisted market."""
        if name in self._marked:
            self._marked.remove(name)
        for figures in (
            self.marks, self.indexes, self.funding, self.interest, self.funding_paid,
            self._mark_candles, self._index_candles,
        ):  # fmt: skip
            figures.pop(name, None)

    def emit_tickers(self, tape: Tape) -> None:
        """Emit the tickers; called each second. externalTicker carries the same figures, as if
        from a provider.
        """
        now_ms = tape.engine_us // 1000
        for name, market in self._markets.items():
            figures = day_figures(market, now_ms)
            for kind in ("ticker", "externalTicker"):
                tape.write(Ticker((f"{kind}.{name}",), tape.stamp(), kind, name, *figures))

    def emit_mark_prices(self, tape: Tape) -> None:
        """Emit the mark prices of all markets at the same millisecond; called each second."""
        now_ms = tape.engine_us // 1000
        next_funding_ms = self.next_funding_ms(now_ms)
        self._pay_funding(next_funding_ms)
        for name in self._marked:
            self._mark(name, now_ms)
            has_funding = name in self.funding
            tape.write(
                MarkPrice(
                    (f"markPrice.{name}",),
                    tape.stamp(),
                    tape.engine_us,
                    name,
                    self.marks[name],
                    self.funding.get(name),
                    self.indexes.get(name),
                    next_funding_ms if has_funding else None,
                )
            )

    def emit_open_interest(self, tape: Tape) -> None:
        for name in self._marked:
            typical = self._markets[name].listing.typical_quantity
            self.interest[name] += self._draw.randrange(-typical, typical + 1)
            tape.write(
                OpenInterest(
                    (f"openInterest.{name}",), tape.stamp(), name, self.open_interest(name)
                )
            )

    def emit_klines(self, tape: Tape) -> None:
        """Emit the running candles that changed since the last call."""
        now_ms = tape.engine_us // 1000
        for market in self._markets.values():
            for interval, start_ms in market.candles.changed():
                if start_ms <= now_ms < candle_end(interval, start_ms):
                    tape.write(self._kline(tape, market, interval, start_ms, closed=False))

    def close_klines(self, tape: Tape, closed_us: int) -> None:
        """Emit the final frames of the candles that ended at a full second, even without trades."""
        closed_ms = closed_us // 1000
        ended = [
            (interval, candle_start(interval, closed_ms - 1))
            for interval in INTERVALS
            if candle_start(interval, closed_ms) == closed_ms
        ]
        for market in self._markets.values():
            for interval, start_ms in ended:
                tape.write(self._kline(tape, market, interval, start_ms, closed=True))

    def marked_candles(self, name: str, *, index: bool) -> PricedCandles:
        """Candles of a market's mark or index prices; empty where it has none."""
        places = self._markets[name].listing.price_places
        candles = self._index_candles if index else self._mark_candles
        more = INDEX_PLACES if index else MARK_PLACES
        return PricedCandles(candles.get(name, Candles()), places + more, 0)

    def _pay_funding(self, next_funding_ms: int) -> None:
        """Record the funding of the last interval at the first mark of the next one."""
        if next_funding_ms == self._next_funding_ms:
            return
        for name, rate in self.funding.items():
            if self._next_funding_ms:
                self.funding_paid[name].append(FundingRate(self._next_funding_ms, rate))
        self._next_funding_ms = next_funding_ms

    def next_funding_ms(self, now_ms: int) -> int:
        return now_ms - now_ms % HOUR_MS + HOUR_MS

    def open_interest(self, name: str) -> str:
        return trimmed(self.interest[name], self._markets[name].listing.quantity_places)

    def _mark(self, name: str, at_ms: int | None = None) -> None:
        """Move mark and index price at random, close to the crowd's fair price."""
        listing = self._markets[name].listing
        fair = self._crowds[name].fair_price
        places = listing.price_places + MARK_PLACES
        noise = self._draw.gauss(0, 0.3)
        mark = max(1, int((fair + noise) * 10**MARK_PLACES))
        self.marks[name] = trimmed(mark, places)
        if at_ms is not None:
            self._mark_candles[name].add(at_ms, mark, 0)
        if listing.market_type is MarketType.PREDICTION:
            return
        noise = self._draw.gauss(0, 0.6)
        index = max(1, int((fair + noise) * 10**INDEX_PLACES))
        self.indexes[name] = trimmed(index, listing.price_places + INDEX_PLACES)
        self.funding[name] = trimmed(self._draw.randrange(-900, 2_600), FUNDING_PLACES)
        if at_ms is not None:
            self._index_candles[name].add(at_ms, index, 0)

    def _kline(
        self, tape: Tape, market: Market, interval: str, start_ms: int, *, closed: bool
    ) -> Kline:
        listing = market.listing
        candle = market.candles.get(interval, start_ms)
        empty = Kline(
            streams=(f"kline.{interval}.{listing.symbol}",),
            event_us=tape.stamp(),
            symbol=listing.symbol,
            start=moment_text(start_ms, "T"),
            close_time=moment_text(candle_end(interval, start_ms), "T"),
            open=None,
            high=None,
            low=None,
            close=None,
            volume=None,
            trades=0,
            closed=closed,
        )
        if candle is None:
            return empty
        places = listing.price_places
        return empty._replace(
            open=padded(candle.open, places),
            high=padded(candle.high, places),
            low=padded(candle.low, places),
            close=padded(candle.close, places),
            volume=padded(candle.volume, listing.quantity_places),
            trades=candle.trades,
        )


def day_figures(market: Market, now_ms: int) -> tuple[str, str, str, str, str, str, int]:
    """First, last, high, low, volume, quote volume and count of the last day, zeros trimmed."""
    listing = market.listing
    day = market.candles.rolling(now_ms)
    if day is None:
        day = Candle(*[market.last_price] * 4)
    places = listing.price_places
    return (
        trimmed(day.open, places),
        trimmed(day.close, places),
        trimmed(day.high, places),
        trimmed(day.low, places),
        trimmed(day.volume, listing.quantity_places),
        trimmed(day.quote_volume, places + listing.quantity_places),
        day.trades,
    )
