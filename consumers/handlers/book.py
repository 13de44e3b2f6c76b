"""Sample: the order book of each market, rebuilt from its depth stream, and checked.

Three results: the best prices and the top levels in a Redis hash; changes of the top levels in a
derived stream (`…:book:top`, at most one entry per batch, under the ID of the entry that changed
them); and a check. For the check it reads the market's `bookTicker` stream, if there is one, at
intervals: at the same update ID both must have the same best prices. Two streams have no common
order, so each side waits for the other. Differences are counted in the hash and logged.

Ordered, because a book is made of every change in order (the rule: `OrderBook`): one worker has the
stream, and its `state`, all levels, is saved with the position.
"""

import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import aclosing
from decimal import Decimal
from typing import NamedTuple

import structlog

from consumers import (
    Best,
    BookTicker,
    BridgeError,
    Consumer,
    Delivery,
    Depth,
    DepthSnapshot,
    EntryId,
    Gap,
    Level,
    OrderBook,
    Results,
    StreamType,
    read,
)

_log = structlog.get_logger()

TOPS_KEPT = 10_000  # entries of the derived stream
_REMEMBERED = 200  # last update IDs that can be compared: a sample, to keep the cost low
_NO_LEVELS = ("about", "check", "top")  # fields of the state that are no levels


class Difference(NamedTuple):
    """The best prices of the book and of the ticker at one update ID, which differ."""

    update_id: int
    book: Best
    ticker: Best


class Check:
    """The book's best prices by update ID, to be compared with `bookTicker` at the same ID."""

    def __init__(self, checked: int = 0, differing: int = 0) -> None:
        self.checked = checked
        self.differing = differing
        self._noted: OrderedDict[int, tuple[int, Best]] = OrderedDict()  # update ID → ms, prices
        self._newest = -1
        self._next = EntryId(0, 0)  # the ticker's entry to continue with

    def summary(self) -> str:
        """For people: the number of comparisons, and of differences if there are any."""
        if self.differing:
            return f", {self.differing} of {self.checked} checks DIFFER"
        return f", checked {self.checked} times" if self.checked else ""

    def note(self, update_id: int, entry_id: str, best: Best) -> None:
        """Remember the book's best prices after an update."""
        self._noted[update_id] = EntryId.parse(entry_id).ms, best
        self._newest = update_id
        if len(self._noted) > _REMEMBERED:
            self._noted.popitem(last=False)

    def seen(self, entry_id: str) -> None:
        """Record the ticker's entry as read: `start` continues after it."""
        ms, seq = EntryId.parse(entry_id)
        self._next = EntryId(ms, seq + 1)

    def start(self) -> str:
        """The ID from which to read the ticker; empty if there is nothing to compare."""
        if not self._noted:
            return ""
        oldest_ms, _ = next(iter(self._noted.values()))
        return str(max(self._next, EntryId(oldest_ms, 0)))

    def is_ahead(self, ticker: BookTicker) -> bool:
        """Whether the ticker is ahead of the book: to be read again later."""
        return ticker.update_id > self._newest

    def compare(self, ticker: BookTicker) -> Difference | None:
        """Compare best prices at the ticker's update ID. Returns the difference; None if they are
        equal, or the book has not noted this ID."""
        noted = self._noted.get(ticker.update_id)
        if noted is None:
            return None
        theirs = (
            _level(ticker.bid_price, ticker.bid_quantity),
            _level(ticker.ask_price, ticker.ask_quantity),
        )
        self.checked += 1
        _, best = noted
        if all(
            _same(our_side, their_side) for our_side, their_side in zip(best, theirs, strict=True)
        ):
            return None
        self.differing += 1
        return Difference(ticker.update_id, best, theirs)


class Book(Consumer):
    """Keeps each market's order book, checked; top levels as a hash and a derived stream."""

    name = "book"
    mode = "ordered"
    streams = ("depth.*",)

    def __init__(self, levels: str = "10", check_s: str = "5") -> None:
        if not re.fullmatch("[0-9]{1,4}", levels) or not 1 <= int(levels) <= 1000:
            raise ValueError(f"levels={levels}: write a number from 1 to 1000")
        if not re.fullmatch("[0-9]{1,9}", check_s):
            raise ValueError(f"check_s={check_s}: write whole seconds between checks, 0 for none")
        self._levels = int(levels)
        self._check_s = int(check_s)
        self._book = OrderBook()
        self._symbol = ""
        self._engine_us: int | None = None
        self._entry_id = ""
        self._changed: dict[str, None] = {}  # prices whose state is to be saved, as `b98.96`
        self._replaced = False
        self._top = ""  # the top levels last written to the derived stream, JSON
        self._check = Check()
        self._check_at = 0.0

    def load(self) -> None:
        """Restore book and checks from the state."""
        saved = dict(self.state)
        about = saved.pop("about", None)
        if about is not None:
            self._symbol, self._book.position, self._engine_us = about
        self._check = Check(*saved.pop("check", ()))
        self._top = saved.pop("top", "")
        for field, level in saved.items():
            side = self._book.bids if field[0] == "b" else self._book.asks
            side.put(Decimal(field[1:]), (level[0], level[1]))

    def on_depth_snapshot(self, delivery: Delivery[DepthSnapshot]) -> None:
        self._book.replace(delivery.event)
        self._replaced = True
        self._note(delivery)

    async def on_depth(self, delivery: Delivery[Depth]) -> None:
        known_before = self._book.position is not None
        if self._book.apply(delivery.event):
            self._changed |= dict.fromkeys(_fields("b", delivery.event.bids))
            self._changed |= dict.fromkeys(_fields("a", delivery.event.asks))
        elif known_before and self._book.position is None:
            self._replaced = True
        self._note(delivery)
        if self._check_s and time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + self._check_s
            await self._compare()

    def on_gap(self, delivery: Delivery[Gap]) -> None:
        self._book.forget()
        self._replaced = True
        self._entry_id = delivery.entry_id

    def write(self, results: Results) -> None:
        """Write the results, and the changed levels to the state, once per batch."""
        self._save_levels()
        self.state["about"] = [self._symbol, self._book.position, self._engine_us]
        bids, asks = self._book.bids.top(self._levels), self._book.asks.top(self._levels)
        known = "false" if self._book.position is None else "true"
        top = {"bids": _json(bids), "asks": _json(asks), "known": known}
        about = {
            "symbol": self._symbol,
            "update_id": "" if self._book.position is None else str(self._book.position),
            "engine_us": "" if self._engine_us is None else str(self._engine_us),
        }
        if self._entry_id and _json(top) != self._top:
            results.xadd("top", self._entry_id, about | top, keep_entries=TOPS_KEPT)
            self.state["top"] = self._top = _json(top)
        best = {
            "bid_price": bids[0][0] if bids else "",
            "bid_quantity": bids[0][1] if bids else "",
            "ask_price": asks[0][0] if asks else "",
            "ask_quantity": asks[0][1] if asks else "",
        }
        checks = {"checked": str(self._check.checked), "differing": str(self._check.differing)}
        results.hset("", about | best | top | checks)

    def made(self) -> str:
        if self._book.position is None:
            return f"{self._symbol or self.stream} not known, waiting for a snapshot"
        bid, ask = (level[0] if level else "-" for level in self._book.best())
        return f"{self._symbol} {bid}/{ask}{self._check.summary()}"

    def _note(self, delivery: Delivery[Depth] | Delivery[DepthSnapshot]) -> None:
        self._symbol = delivery.event.symbol
        self._engine_us = delivery.event.engine_us
        self._entry_id = delivery.entry_id
        if self._check_s and self._book.position is not None:
            self._check.note(self._book.position, delivery.entry_id, self._book.best())

    async def _compare(self) -> None:
        """Compare the book with the tickers since the last check; nothing if there are none."""
        start = self._check.start()
        if not start:
            return
        stream = f"{StreamType.BOOK_TICKER}.{self._symbol}"
        try:
            async with aclosing(aiter(read(stream, start, of=BookTicker))) as tickers:
                async for delivery in tickers:
                    if self._check.is_ahead(delivery.event):
                        break
                    self._check.seen(delivery.entry_id)
                    difference = self._check.compare(delivery.event)
                    if difference is not None:
                        _log.warning("book_differs", stream=self.stream, **difference._asdict())
        except BridgeError:
            return  # the stream does not exist, or Redis does not answer now
        self.state["check"] = [self._check.checked, self._check.differing]

    def _save_levels(self) -> None:
        sides = {"b": self._book.bids.levels, "a": self._book.asks.levels}
        if self._replaced:
            whole = {
                f"{s}{_plain(p)}": level for s, side in sides.items() for p, level in side.items()
            }
            for field in [f for f in self.state if f not in whole and f not in _NO_LEVELS]:
                del self.state[field]
            self.state.update(whole)
        else:
            for field in self._changed:
                level = sides[field[0]].get(Decimal(field[1:]))
                if level is not None:
                    self.state[field] = level
                else:
                    self.state.pop(field, None)
        self._changed, self._replaced = {}, False


def _fields(side: str, levels: Iterable[Level]) -> list[str]:
    return [f"{side}{_plain(Decimal(price))}" for price, _ in levels]


def _plain(price: Decimal) -> str:
    """The price without trailing zeros: `98.960` and `98.96` are the same level."""
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _level(price: str | None, quantity: str | None) -> Level | None:
    return None if price is None or quantity is None else (price, quantity)


def _same(one: Level | None, other: Level | None) -> bool:
    """Whether two levels are equal as numbers: they may be padded differently."""
    if one is None or other is None:
        return one is other
    return all(Decimal(a) == Decimal(b) for a, b in zip(one, other, strict=True))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
