"""The page Market: one market's book, its trades, best prices and candles (pure).

The book is built from the depth stream by the reader's rule, from the newest snapshot; after a gap
it is unknown until the next one. Candles are those of the consumer `candles`, where it runs, else
the exchange's own.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Any, NamedTuple

from bridge.console.kit import OrderBook
from bridge.contract.entry import BadEntry, decode
from bridge.contract.events import BookTicker, Depth, DepthSnapshot, Event, Gap, Trade
from bridge.contract.identity import EntryId
from bridge.contract.streams import KLINE_INTERVALS, StreamType, parse_stream

LEVELS = 100  # on each side
TRADES = 60
CANDLES = 240
_SNAPSHOT_SLOT = 2  # last digit of an entry ID's sequence, see `contract.identity`
_DEPTHS = ("", "200ms.", "600ms.", "1000ms.")


class Entry(NamedTuple):
    """An entry of a stream: its ID and its fields."""

    entry_id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Streams:
    """The existing streams of one market; empty where there is none."""

    depth: str = ""
    trade: str = ""
    ticker: str = ""
    klines: Mapping[str, str] = field(default_factory=dict)  # interval → stream


def markets(registry: Iterable[str]) -> dict[str, Streams]:
    """Symbol → its streams, for markets that have a book, trades or best prices."""
    names = frozenset(registry)
    symbols = {
        stream.symbol
        for stream in map(parse_stream, names)
        if stream.type in (StreamType.DEPTH, StreamType.TRADE, StreamType.BOOK_TICKER)
    }
    return {symbol: _streams(symbol, names) for symbol in sorted(symbols)}


def _streams(symbol: str, names: frozenset[str]) -> Streams:
    def first(*candidates: str) -> str:
        return next((name for name in candidates if name in names), "")

    return Streams(
        depth=first(*(f"{StreamType.DEPTH}.{window}{symbol}" for window in _DEPTHS)),
        trade=first(f"{StreamType.TRADE}.{symbol}"),
        ticker=first(f"{StreamType.BOOK_TICKER}.{symbol}"),
        klines={
            interval: name
            for interval in KLINE_INTERVALS
            if (name := f"{StreamType.KLINE}.{interval}.{symbol}") in names
        },
    )


def is_snapshot(entry_id: str) -> bool:
    """Whether an entry of a depth stream is a whole book, by its ID alone."""
    return EntryId.parse(entry_id).seq % 10 == _SNAPSHOT_SLOT


@dataclass(slots=True)
class MarketPage:
    """One market, built from its streams."""

    _book: OrderBook = field(default_factory=OrderBook)
    _book_us: int | None = None
    _trades: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=TRADES))
    _best: dict[str, Any] = field(default_factory=dict)

    def take_depth(self, entries: Iterable[Entry]) -> bool:
        """Apply entries of the depth stream, in order. Returns whether there were any."""
        seen = False
        for entry in entries:
            seen = True
            match _event(entry):
                case DepthSnapshot() as snapshot:
                    self._book.replace(snapshot)
                    self._book_us = snapshot.received_us
                case Depth() as delta:
                    self._book.apply(delta)
                    self._book_us = delta.received_us
                case Gap():
                    self._book.forget()
        return seen

    def take_trades(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        """Add entries of the trade stream, in order; returns the new lines of the tape."""
        new = [line for entry in entries if (line := _tape_line(entry)) is not None]
        self._trades.extend(new)
        return new

    def take_ticker(self, entry: Entry) -> None:
        """Set the newest entry of the best prices."""
        ticker = _event(entry)
        if isinstance(ticker, BookTicker):
            self._best = {
                "bid": [ticker.bid_price, ticker.bid_quantity],
                "ask": [ticker.ask_price, ticker.ask_quantity],
                "at_us": ticker.received_us,
            }

    def book(self) -> dict[str, Any]:
        """The current book: levels of both sides, best first."""
        position = self._book.position
        return {
            "known": position is not None,
            "update_id": position,
            "at_us": self._book_us,
            "bids": self._book.bids.top(LEVELS),
            "asks": self._book.asks.top(LEVELS),
        }

    def best(self) -> dict[str, Any]:
        """Best prices, from their own stream, else from the book."""
        if self._best or self._book.position is None:
            return self._best
        bid, ask = self._book.best()
        return {"bid": bid, "ask": ask, "at_us": self._book_us}

    def tape(self) -> Sequence[dict[str, Any]]:
        """The newest trades, and gaps between them, oldest first."""
        return list(self._trades)


def candles_of(closed: Iterable[Mapping[str, str]], current: Mapping[str, str]) -> list[list[Any]]:
    """Candles as `[start ms, open, high, low, close, volume, is complete]` in order of their start.
    From entries of the consumer `candles`, amended ones after the originals, or from klines.
    """
    found: dict[int, list[Any]] = {}
    for fields in (*closed, current):
        candle = _candle(fields)
        if candle is not None:
            found[candle[0]] = candle
    return [found[start] for start in sorted(found)][-CANDLES:]


def _candle(fields: Mapping[str, str]) -> list[Any] | None:
    try:
        start = datetime.fromisoformat(fields["start_utc"]).replace(tzinfo=UTC)
        prices = [float(_either(fields, name)) for name in ("open", "high", "low", "close")]
        volume = float(fields.get("volume") or fields.get("base_volume") or 0)
    except (KeyError, ValueError):
        return None
    if not all(map(isfinite, (*prices, volume))):
        return None  # not representable in JSON
    return [int(start.timestamp() * 1000), *prices, volume, fields.get("complete") != "false"]


def _either(fields: Mapping[str, str], name: str) -> str:
    return fields[name] if name in fields else fields[f"{name}_price"]


def _event(entry: Entry) -> Event | None:
    try:
        return decode(entry.fields)
    except BadEntry:
        return None


def _tape_line(entry: Entry) -> dict[str, Any] | None:
    event = _event(entry)
    at_us = EntryId.parse(entry.entry_id).ms * 1000
    match event:
        case Trade():
            return {
                "id": entry.entry_id,
                "at_us": event.engine_us or at_us,
                "side": "sell" if event.buyer_is_maker else "buy",
                "price": event.price,
                "quantity": event.quantity,
                "recovered": event.source == "rest",
            }
        case Gap():
            count = "" if event.from_ is None or event.to is None else event.to - event.from_ + 1
            return {"id": entry.entry_id, "at_us": at_us, "gap": str(event.cause), "count": count}
    return None
