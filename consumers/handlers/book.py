"""Sample: the order book of each market, rebuilt from what the stream says, best prices in Redis.

The rule of a depth stream, and all there is to it: a delta applies where
`first_update_id <= position + 1 <= last_update_id`. After a gap, or at the start, the book is not
known until the next `depth_snapshot`, which replaces it. Prices are compared as numbers, since the
exchange pads them differently on WebSocket and REST.

Ordered, because a book is made of every change in its order: one worker has the stream, and its
`state` (all levels) moves with the position.
"""

import json
from collections.abc import Iterable
from decimal import Decimal
from heapq import nlargest, nsmallest

from bridge.contract.events import Depth, DepthSnapshot, Gap, Level
from consumers import Consumer, Delivery, Results


class OrderBook:
    """Bids and asks by price. `position` is the update id it is exact at; None: not known."""

    def __init__(self) -> None:
        self.position: int | None = None
        self.bids: dict[Decimal, Level] = {}
        self.asks: dict[Decimal, Level] = {}

    def replace(self, snapshot: DepthSnapshot) -> None:
        """The book is this one."""
        self.position = snapshot.update_id
        self.bids = {Decimal(level[0]): level for level in snapshot.bids}
        self.asks = {Decimal(level[0]): level for level in snapshot.asks}

    def apply(self, depth: Depth) -> bool:
        """Take a delta in. False where it changed nothing: not known, or from before."""
        if self.position is None or depth.last_update_id <= self.position:
            return False
        if depth.first_update_id > self.position + 1:
            self.forget()  # a hole without a gap entry: our place in the stream was trimmed away
            return False
        _apply(self.bids, depth.bids)
        _apply(self.asks, depth.asks)
        self.position = depth.last_update_id
        return True

    def forget(self) -> None:
        """Something is missing: no price here can be trusted."""
        self.position = None
        self.bids = {}
        self.asks = {}

    def best_bids(self, levels: int) -> list[Level]:
        return [self.bids[price] for price in nlargest(levels, self.bids)]

    def best_asks(self, levels: int) -> list[Level]:
        return [self.asks[price] for price in nsmallest(levels, self.asks)]


def _apply(side: dict[Decimal, Level], changes: Iterable[Level]) -> None:
    for level in changes:
        price = Decimal(level[0])
        if Decimal(level[1]):
            side[price] = level
        else:
            side.pop(price, None)


class Book(Consumer):
    """Keeps each market's order book; best prices and top levels in a Redis hash."""

    name = "book"
    mode = "ordered"
    streams = ("depth.*",)

    def __init__(self, levels: str = "10") -> None:
        if not levels.isdigit() or not 1 <= int(levels) <= 1000:
            raise ValueError(f"levels={levels}: write a number from 1 to 1000")
        self._levels = int(levels)
        self._book = OrderBook()
        self._symbol = ""
        self._engine_us: int | None = None
        self._changed: dict[str, None] = {}  # prices whose state is to be saved, as `b98.96`
        self._replaced = False

    def load(self) -> None:
        """The levels as another worker has left them."""
        saved = dict(self.state)
        about = saved.pop("about", None)
        if about is not None:
            self._symbol, self._book.position, self._engine_us = about
        for field, level in saved.items():
            side = self._book.bids if field[0] == "b" else self._book.asks
            side[Decimal(field[1:])] = (level[0], level[1])

    def on_depth_snapshot(self, delivery: Delivery[DepthSnapshot]) -> None:
        self._book.replace(delivery.event)
        self._replaced = True
        self._note(delivery.event)

    def on_depth(self, delivery: Delivery[Depth]) -> None:
        known_before = self._book.position is not None
        if self._book.apply(delivery.event):
            self._changed |= dict.fromkeys(_fields("b", delivery.event.bids))
            self._changed |= dict.fromkeys(_fields("a", delivery.event.asks))
        elif known_before and self._book.position is None:
            self._replaced = True
        self._note(delivery.event)

    def on_gap(self, delivery: Delivery[Gap]) -> None:
        self._book.forget()
        self._replaced = True

    def write(self, results: Results) -> None:
        """Once a batch: the hash people read, and the levels that changed."""
        self._save_levels()
        self.state["about"] = [self._symbol, self._book.position, self._engine_us]
        results.hset("", self._hash())

    def made(self) -> str:
        bids, asks = self._book.best_bids(1), self._book.best_asks(1)
        if self._book.position is None:
            return f"{self._symbol or self.stream} not known, waiting for a snapshot"
        return f"{self._symbol} {_price(bids) or '-'}/{_price(asks) or '-'}"

    def _note(self, event: Depth | DepthSnapshot) -> None:
        self._symbol = event.symbol
        self._engine_us = event.engine_us

    def _hash(self) -> dict[str, str]:
        book = self._book
        bids, asks = book.best_bids(self._levels), book.best_asks(self._levels)
        return {
            "symbol": self._symbol,
            "known": "false" if book.position is None else "true",
            "update_id": "" if book.position is None else str(book.position),
            "bid_price": _price(bids),
            "bid_quantity": bids[0][1] if bids else "",
            "ask_price": _price(asks),
            "ask_quantity": asks[0][1] if asks else "",
            "bids": json.dumps(bids, separators=(",", ":")),
            "asks": json.dumps(asks, separators=(",", ":")),
            "engine_us": "" if self._engine_us is None else str(self._engine_us),
        }

    def _save_levels(self) -> None:
        sides = {"b": self._book.bids, "a": self._book.asks}
        if self._replaced:
            whole = {
                f"{s}{_plain(p)}": level for s, side in sides.items() for p, level in side.items()
            }
            for field in [f for f in self.state if f not in whole]:
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


def _price(levels: list[Level]) -> str:
    return levels[0][0] if levels else ""
