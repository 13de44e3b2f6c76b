"""Candles of all sixteen intervals, and the rolling day, made of a market's trades alone.

Pure: each trade has its own time in ms; no clock is read. Prices in ticks, quantities in steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
CANDLES_KEPT = 3_000

# Intervals of fixed length. Weeks start on Monday: the epoch was a Thursday, four days before the
# first one.
FIXED_MS = {
    "1s": SECOND_MS,
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
}
INTERVALS = (*FIXED_MS, "1month")
FIRST_MONDAY_MS = 4 * DAY_MS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def candle_start(interval: str, at_ms: int) -> int:
    """The start of the candle that contains a moment."""
    length = FIXED_MS.get(interval)
    if length is None:
        moment = EPOCH + timedelta(milliseconds=at_ms)
        first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        return (first - EPOCH) // timedelta(milliseconds=1)
    offset = FIRST_MONDAY_MS if interval == "1w" else 0
    return at_ms - (at_ms - offset) % length


def candle_end(interval: str, start_ms: int) -> int:
    """The end of the candle that starts at `start_ms`: the start of the next one."""
    length = FIXED_MS.get(interval)
    if length is None:
        return candle_start(interval, start_ms + 32 * DAY_MS)
    return start_ms + length


def moment_text(at_ms: int, separator: str) -> str:
    """A whole second in the exchange's format: UTC, no zone, no fraction."""
    return (EPOCH + timedelta(milliseconds=at_ms)).strftime(f"%Y-%m-%d{separator}%H:%M:%S")


@dataclass(slots=True)
class Candle:
    """The trades between two moments. A candle exists only with at least one trade."""

    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote_volume: int = 0
    trades: int = 0

    def add(self, price: int, quantity: int) -> None:
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.volume += quantity
        self.quote_volume += price * quantity
        self.trades += 1


class Candles:
    """The candles of one market; the newest few thousand of each interval."""

    def __init__(self) -> None:
        self._by_interval: dict[str, dict[int, Candle]] = {name: {} for name in INTERVALS}
        self._current: dict[str, tuple[int, int]] = dict.fromkeys(INTERVALS, (0, 0))
        self._changed: dict[str, int] = {}

    def add(self, at_ms: int, price: int, quantity: int) -> None:
        """Count one trade into the candle of each interval."""
        for interval in INTERVALS:
            start = self._start(interval, at_ms)
            candles = self._by_interval[interval]
            candle = candles.get(start)
            if candle is None:
                candle = candles[start] = Candle(price, price, price, price)
                if len(candles) > CANDLES_KEPT:
                    del candles[next(iter(candles))]
            candle.add(price, quantity)
            self._changed[interval] = start

    def get(self, interval: str, start_ms: int) -> Candle | None:
        return self._by_interval[interval].get(start_ms)

    def changed(self) -> list[tuple[str, int]]:
        """Interval and start of the newest candles that changed since the last call."""
        changed = list(self._changed.items())
        self._changed.clear()
        return changed

    def rolling(self, now_ms: int, span_ms: int = DAY_MS) -> Candle | None:
        """The trades of the last span as one candle, by whole minutes."""
        total: Candle | None = None
        for start, candle in self._by_interval["1m"].items():
            if start < now_ms - span_ms:
                continue
            if total is None:
                total = Candle(candle.open, candle.high, candle.low, candle.close)
            total.high = max(total.high, candle.high)
            total.low = min(total.low, candle.low)
            total.close = candle.close
            total.volume += candle.volume
            total.quote_volume += candle.quote_volume
            total.trades += candle.trades
        return total

    def _start(self, interval: str, at_ms: int) -> int:
        """The candle's start, cached: most trades fall into the same candle as the one before."""
        start, end = self._current[interval]
        if not start <= at_ms < end:
            start = candle_start(interval, at_ms)
            self._current[interval] = (start, candle_end(interval, start))
        return start


class PricedCandles(NamedTuple):
    """Candles, with the decimal places of their prices and quantities."""

    candles: Candles
    price_places: int
    quantity_places: int
