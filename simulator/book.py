"""The order book of one market: the quantity at each price. Pure; prices in ticks, quantities in
steps.

Knows neither the owners of resting orders nor trades.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from enum import StrEnum
from typing import NamedTuple


class Side(StrEnum):
    """The exchange's names of the two sides of a book."""

    BID = "Bid"
    ASK = "Ask"

    @property
    def other(self) -> Side:
        return Side.ASK if self is Side.BID else Side.BID


class Change(NamedTuple):
    """The new absolute quantity at one level; zero removes the level."""

    side: Side
    price: int
    quantity: int


class Ladder:
    """One side: the prices in ascending order and the quantity at each."""

    __slots__ = ("_best_index", "prices", "quantities")

    def __init__(self, side: Side) -> None:
        self._best_index = -1 if side is Side.BID else 0
        self.prices: list[int] = []
        self.quantities: dict[int, int] = {}

    @property
    def best(self) -> int | None:
        return self.prices[self._best_index] if self.prices else None

    def at_depth(self, depth: int) -> int:
        """The price `depth` levels behind the best one (0 is the best), or the last one."""
        depth = min(depth, len(self.prices) - 1)
        return self.prices[-1 - depth] if self._best_index else self.prices[depth]

    def put(self, price: int, quantity: int) -> None:
        known = price in self.quantities
        if quantity:
            if not known:
                insort(self.prices, price)
            self.quantities[price] = quantity
        elif known:
            del self.quantities[price]
            del self.prices[bisect_left(self.prices, price)]

    def rows(self) -> list[tuple[int, int]]:
        """All levels, prices ascending."""
        return [(price, self.quantities[price]) for price in self.prices]


class Top(NamedTuple):
    """Best price and size of both sides; None twice for an empty side."""

    bid: int | None
    bid_quantity: int | None
    ask: int | None
    ask_quantity: int | None


class Book:
    """Both sides of one market."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = Ladder(Side.BID)
        self.asks = Ladder(Side.ASK)

    def ladder(self, side: Side) -> Ladder:
        return self.bids if side is Side.BID else self.asks

    def put(self, change: Change) -> None:
        self.ladder(change.side).put(change.price, change.quantity)

    def top(self) -> Top:
        bid, ask = self.bids.best, self.asks.best
        return Top(
            bid,
            None if bid is None else self.bids.quantities[bid],
            ask,
            None if ask is None else self.asks.quantities[ask],
        )
