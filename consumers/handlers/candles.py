"""Sample: candles (OHLCV) made of trades, equal to the exchange's own klines.

A candle holds the trades with `start <= engine time < end`, in the order of their IDs. It closes
with the first trade of a later candle, and is then appended to a derived stream, under the ID of
the entry that closed it, so that a second append is ignored. A late trade for a closed candle
amends it: the stream gets it again with the next `revision`; a late trade without a candle makes
one. The last five closed candles can be amended; trades for older ones are counted in `too_late`,
and in no candle. If trades may be missing (a gap, the very first candle) `complete` is false.

Ordered: open and close depend on the order. Sums are exact: decimals, never floats.
"""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from consumers import KLINE_INTERVALS, Consumer, Delivery, Gap, Results, Trade

_EXACT = Context(prec=400)  # the default context would round sums beyond 28 digits
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FIRST_MONDAY_S = 4 * 86_400  # weeks begin on Monday; 1970 began on a Thursday
_CANDLES_KEPT = 1 + 5  # the newest, and the closed ones that late trades amend
CLOSED_KEPT = 10_000  # entries of the derived stream


def bounds(interval: str, moment_us: int) -> tuple[int, int]:
    """Start and end, µs since 1970, of the candle that contains a moment."""
    if interval.endswith("month"):
        moment = _EPOCH + timedelta(microseconds=moment_us)
        start = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        end = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
        return _us(start), _us(end)
    length = int(interval[:-1]) * _SECONDS[interval[-1]] * 1_000_000
    offset = _FIRST_MONDAY_S * 1_000_000 if interval.endswith("w") else 0
    start_us = moment_us - (moment_us - offset) % length
    return start_us, start_us + length


@dataclass(slots=True)
class Candle:
    """The trades in `start_us <= time < end_us`; prices as the exchange wrote them."""

    start_us: int
    end_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    first_trade_id: int
    last_trade_id: int
    complete: bool
    revision: int = 0

    @classmethod
    def first(cls, trade: Trade, span: tuple[int, int], *, complete: bool) -> "Candle":
        price = trade.price
        number = trade.trade_id
        return cls(*span, price, price, price, price, "0", "0", 0, number, number, complete)

    def add(self, trade: Trade) -> None:
        price, quantity = Decimal(trade.price), Decimal(trade.quantity)
        if price > Decimal(self.high):
            self.high = trade.price
        if price < Decimal(self.low):
            self.low = trade.price
        self.close = trade.price
        self.volume = str(_EXACT.add(Decimal(self.volume), quantity))
        quote = _EXACT.multiply(price, quantity)
        self.quote_volume = str(_EXACT.add(Decimal(self.quote_volume), quote))
        self.trades += 1
        self.last_trade_id = trade.trade_id

    def values(self) -> dict[str, Any]:
        """All fields by name (as `asdict`, which copies deeply and is ten times slower)."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Closed:
    """A candle that was closed or amended, and the ID of the entry that did it."""

    entry_id: str
    interval: str
    candle: dict[str, Any]


class CandleFold:
    """The candles of one interval of one market."""

    def __init__(self, interval: str) -> None:
        self.interval = interval
        self.candles: dict[int, Candle] = {}  # by start, in that order; the newest is the last
        self.gap = True  # trades may be missing between the last one and the next
        self.too_late = 0  # trades whose candle is not kept any more

    def add(self, trade: Trade, moment_us: int, entry_id: str) -> Iterator[Closed]:
        """Add a trade. Yields the candles that it closes or amends."""
        newest = self.newest
        if newest is None or moment_us >= newest.end_us:
            if newest is not None:
                newest.complete &= not self.gap
                yield self._closed(newest, entry_id)
            newest = Candle.first(trade, bounds(self.interval, moment_us), complete=True)
            self._keep(newest)
        candle = newest if moment_us >= newest.start_us else self._late(trade, moment_us)
        newest.complete &= not self.gap
        if candle is None:
            self.too_late += 1
        elif candle is newest:
            candle.add(trade)
        else:
            candle.complete &= not self.gap
            candle.revision += candle.trades > 0
            candle.add(trade)
            yield self._closed(candle, entry_id)
        self.gap = False

    @property
    def newest(self) -> Candle | None:
        return next(reversed(self.candles.values())) if self.candles else None

    def _late(self, trade: Trade, moment_us: int) -> Candle | None:
        """The closed candle of a late trade, created if it is missing; None if it is too old."""
        start_us, _ = span = bounds(self.interval, moment_us)
        if start_us in self.candles or start_us < next(iter(self.candles)):
            return self.candles.get(start_us)
        starts = list(self.candles)
        at = bisect(starts, start_us)
        # a gap across this span makes the candles on both sides of it incomplete
        complete = any(self.candles[start].complete for start in starts[at - 1 : at + 1])
        candle = Candle.first(trade, span, complete=complete)
        self._keep(candle)
        return candle

    def _keep(self, candle: Candle) -> None:
        self.candles[candle.start_us] = candle
        self.candles = dict(sorted(self.candles.items())[-_CANDLES_KEPT:])

    def _closed(self, candle: Candle, entry_id: str) -> Closed:
        return Closed(entry_id, self.interval, candle.values())


class Candles(Consumer):
    """Makes candles of each market's trades: the current one as a hash, closed ones as a stream."""

    name = "candles"
    mode = "ordered"
    streams = ("trade.*",)

    def __init__(self, intervals: str = "1m") -> None:
        names = [name.strip() for name in intervals.split(",")]
        for name in names:
            if name not in KLINE_INTERVALS:
                raise ValueError(f"{name!r} is no interval: write {', '.join(KLINE_INTERVALS)}")
        self._folds = [CandleFold(name) for name in dict.fromkeys(names)]
        self._symbol = ""
        self._last_trade_id: int | None = None
        self._closed: list[Closed] = []

    def load(self) -> None:
        """Restore the candles from the state."""
        self._symbol, self._last_trade_id = self.state.get("about", ("", None))
        for fold in self._folds:
            saved = self.state.get(fold.interval)
            if saved is not None:
                fold.gap, fold.too_late = saved["gap"], saved["too_late"]
                fold.candles = {one["start_us"]: Candle(**one) for one in saved["candles"]}

    def on_trade(self, delivery: Delivery[Trade]) -> None:
        trade = delivery.event
        if self._last_trade_id is not None and trade.trade_id != self._last_trade_id + 1:
            self._mark_gap()  # a hole without a gap entry: entries were trimmed before being read
        self._symbol, self._last_trade_id = trade.symbol, trade.trade_id
        for fold in self._folds:
            self._closed += fold.add(trade, delivery.moment_us, delivery.entry_id)

    def on_gap(self, delivery: Delivery[Gap]) -> None:
        self._last_trade_id = delivery.event.to
        if not delivery.event.recovered:
            self._mark_gap()

    def write(self, results: Results) -> None:
        """Write closed candles to the derived streams, current ones to hashes, once per batch."""
        for closed in self._closed:
            fields = self._fields(closed.interval, closed.candle, closed=True)
            part = f"{closed.interval}:closed"
            results.xadd(part, closed.entry_id, fields, keep_entries=CLOSED_KEPT)
        self._closed = []
        self.state["about"] = [self._symbol, self._last_trade_id]
        for fold in self._folds:
            candles = [candle.values() for candle in fold.candles.values()]
            self.state[fold.interval] = {
                "gap": fold.gap,
                "too_late": fold.too_late,
                "candles": candles,
            }
            if candles:
                current = self._fields(fold.interval, candles[-1], closed=False)
                results.hset(fold.interval, current | {"too_late": str(fold.too_late)})

    def made(self) -> str:
        newest = self._folds[0].newest
        if newest is None:
            return f"{self._symbol or self.stream} no trade yet"
        prices = f"o {newest.open} h {newest.high} l {newest.low} c {newest.close}"
        return f"{self._symbol} {self._folds[0].interval} {prices} v {newest.volume}"

    def _mark_gap(self) -> None:
        for fold in self._folds:
            fold.gap = True

    def _fields(self, interval: str, candle: dict[str, Any], *, closed: bool) -> dict[str, str]:
        return {
            "symbol": self._symbol,
            "interval": interval,
            "start_utc": _utc(candle["start_us"]),
            "end_utc": _utc(candle["end_us"]),
            **{name: str(candle[name]) for name in _COPIED},
            "complete": "true" if candle["complete"] else "false",
            "closed": "true" if closed else "false",
            "revision": str(candle["revision"]),
        }


_COPIED = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trades",
    "first_trade_id",
    "last_trade_id",
)


def _utc(moment_us: int) -> str:
    """The time in the format of the exchange's klines: `2026-09-02T16:44:00`."""
    return (_EPOCH + timedelta(microseconds=moment_us)).strftime("%Y-%m-%dT%H:%M:%S")


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
