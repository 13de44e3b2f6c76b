"""The book of a depth stream, built from its entries as a reader builds it (pure).

A change applies where `first_update_id <= position + 1 <= last_update_id`. After a gap the book is
unknown until the next snapshot, which replaces it. The book is also compared with that snapshot:
the changes must have produced the same book.
"""

from collections.abc import Sequence
from typing import Any

from bridge.contract.events import Level
from bridge.core.book import Sides, price_key, price_order
from bridge.inspect.stored import Stored

Bound = tuple[int, str]  # a price, as `price_order` returns it


class Book:
    """The book of one depth stream. `position`: its last update ID; None while the book is
    unknown.
    """

    def __init__(self) -> None:
        self.position: int | None = None
        self.entry_id = ""  # the last entry applied
        self.snapshot_id = ""  # the snapshot it starts from
        self._sides = Sides()
        # Levels beyond these prices may be missing: the snapshot ended there (None: it had all).
        self._lowest_bid: Bound | None = None
        self._highest_ask: Bound | None = None

    def forget(self) -> None:
        """Discard the book, since entries are missing."""
        self.position = None
        self._sides = Sides()

    def apply(self, change: Stored) -> bool:
        """Apply a change, where the book is known. Returns False, and discards the book, where the
        change does not continue it.
        """
        if self.position is None:
            return True
        first = change.number("first_update_id") or 0
        last = change.number("last_update_id") or 0
        if last <= self.position:
            return True
        if first > self.position + 1:
            self.forget()
            return False
        self._sides.apply(change.levels("bids"), change.levels("asks"))
        self.position, self.entry_id = last, change.id
        return True

    def replace(self, snapshot: Stored) -> bool:
        """Replace the book by a snapshot. Returns False if the changes have made another book."""
        bids, asks = snapshot.levels("bids"), snapshot.levels("asks")
        position = snapshot.number("update_id")
        agrees = self.position != position or self._agrees(bids, asks)
        self._sides = Sides()
        self._sides.apply(bids, asks)
        self._lowest_bid, self._highest_ask = _last(bids), _last(asks)
        self.position, self.entry_id, self.snapshot_id = position, snapshot.id, snapshot.id
        return agrees

    def levels(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best bids and asks, best first."""
        bids, asks = self._sides.best_first()
        return bids[:count], asks[:count]

    def certain(self) -> tuple[int, int]:
        """How many bids and asks, from the best on, are certain: beyond the snapshot's last level
        there may be levels that have not changed since.
        """
        bids, asks = self._sides.best_first()
        return len(_down_to(bids, self._lowest_bid)), len(_up_to(asks, self._highest_ask))

    @classmethod
    def begun(cls, snapshot: Sides, now: Sides) -> "Book":
        """A book that started with `snapshot` and is `now` after the changes."""
        book = cls()
        bids, asks = snapshot.best_first()
        book._sides = now
        book._lowest_bid, book._highest_ask = _last(bids), _last(asks)
        return book

    def _agrees(self, bids: Sequence[Any], asks: Sequence[Any]) -> bool:
        own_bids, own_asks = self._sides.best_first()
        lowest = [one for one in (self._lowest_bid, _last(bids)) if one is not None]
        highest = [one for one in (self._highest_ask, _last(asks)) if one is not None]
        floor, ceiling = max(lowest, default=None), min(highest, default=None)
        return _down_to(own_bids, floor) == _down_to(bids, floor) and _up_to(
            own_asks, ceiling
        ) == _up_to(asks, ceiling)


def _last(levels: Sequence[Any]) -> Bound | None:
    return price_order(_plain(levels[-1])) if levels else None


def _down_to(levels: Sequence[Any], floor: Bound | None) -> list[Level]:
    plain = map(_plain, levels)
    return [one for one in plain if floor is None or price_order(one) >= floor]


def _up_to(levels: Sequence[Any], ceiling: Bound | None) -> list[Level]:
    plain = map(_plain, levels)
    return [one for one in plain if ceiling is None or price_order(one) <= ceiling]


def _plain(level: Any) -> Level:
    """A level with normalised numbers: REST and WebSocket pad them differently."""
    return price_key(level[0]), price_key(level[1])
