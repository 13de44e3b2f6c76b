"""Sample: the order book of each market, rebuilt from what the stream says, and checked.

Three results: the best prices and the top levels in a Redis hash, the top levels each time they
changed in a derived stream (`…:book:top`, at most one entry a batch, under the ID of the entry that
changed them), and whether all this is right. For that it reads the market's `bookTicker` stream,
where there is one, now and then: at the same update id both must say the same best prices. Between
two streams there is no order, so each side waits for the other. What differs is counted in the
hash and logged.

Ordered, because a book is made of every change in its order (the rule: ``OrderBook``):
one worker has the stream, and its `state`, all levels, moves with the position.
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
_REMEMBERED = 200  # update ids that can still be compared: a sample, so that it costs little
_NO_LEVELS = ("about", "check", "top")  # in the state, beside all levels


class Difference(NamedTuple):
    """What the book and the ticker say of one update id."""

    update_id: int
    book: Best
    ticker: Best


class Check:
    """Best prices by update id, to be compared with what `bookTicker` says of the same one."""

    def __init__(self, checked: int = 0, differing: int = 0) -> None:
        self.checked = checked
        self.differing = differing
        self._noted: OrderedDict[int, tuple[int, Best]] = OrderedDict()  # update id → ms, prices
        self._newest = -1
        self._next = EntryId(0, 0)  # the ticker's entry to go on with

    def words(self) -> str:
        """For people: how often the two were compared, and if that was not well."""
        if self.differing:
            return f", {self.differing} of {self.checked} checks DIFFER"
        return f", checked {self.checked} times" if self.checked else ""

    def note(self, update_id: int, entry_id: str, best: Best) -> None:
        """The book's best prices after this update."""
        self._noted[update_id] = EntryId.parse(entry_id).ms, best
        self._newest = update_id
        if len(self._noted) > _REMEMBERED:
            self._noted.popitem(last=False)

    def seen(self, entry_id: str) -> None:
        """The ticker's next entry is the one to go on with."""
        ms, seq = EntryId.parse(entry_id)
        self._next = EntryId(ms, seq + 1)

    def start(self) -> str:
        """The ticker's first entry that may be of use; empty where nothing is noted."""
        if not self._noted:
            return ""
        oldest_ms, _ = next(iter(self._noted.values()))
        return str(max(self._next, EntryId(oldest_ms, 0)))

    def is_ahead(self, ticker: BookTicker) -> bool:
        """Whether the ticker has come to where the book has not: to be asked again later."""
        return ticker.update_id > self._newest

    def compare(self, ticker: BookTicker) -> Difference | None:
        """What differs, where both know this update id."""
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
        self._top = ""  # the top levels as the derived stream has them
        self._check = Check()
        self._check_at = 0.0

    def load(self) -> None:
        """The levels as another worker has left them."""
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
        """Once a batch: what people read, and the levels that changed."""
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
        return f"{self._symbol} {bid}/{ask}{self._check.words()}"

    def _note(self, delivery: Delivery[Depth] | Delivery[DepthSnapshot]) -> None:
        self._symbol = delivery.event.symbol
        self._engine_us = delivery.event.engine_us
        self._entry_id = delivery.entry_id
        if self._check_s and self._book.position is not None:
            self._check.note(self._book.position, delivery.entry_id, self._book.best())

    async def _compare(self) -> None:
        """With the tickers that came since the last time; no ticker, no check."""
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
            return  # the bridge does not write that stream, or Redis does not answer now
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
    """One spelling for one number: `98.960` and `98.96` are the same level."""
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _level(price: str | None, quantity: str | None) -> Level | None:
    return None if price is None or quantity is None else (price, quantity)


def _same(one: Level | None, other: Level | None) -> bool:
    """As numbers: the two are padded differently."""
    if one is None or other is None:
        return one is other
    return all(Decimal(a) == Decimal(b) for a, b in zip(one, other, strict=True))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
