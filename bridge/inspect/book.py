"""The book of a depth stream, made of its entries as a reader makes it (pure).

A change applies where `first_update_id <= position + 1 <= last_update_id`. After a gap the book is
not known until the next snapshot, which replaces it. Here it is also compared with that snapshot:
what the changes have made of the book must be what the snapshot says of it.
"""

from collections.abc import Sequence
from typing import Any

from bridge.contract.events import Level
from bridge.core.book import Sides, price_key, price_order
from bridge.inspect.stored import Stored

Bound = tuple[int, str]  # a price, as `price_order` has it


class Book:
    """Follows the entries of one depth stream. `position`: the update id it is exact at; None: not
    known.
    """

    def __init__(self) -> None:
        self.position: int | None = None
        self.entry_id = ""  # of the last entry that has made it
        self.snapshot_id = ""  # of the snapshot that it began with
        self._sides = Sides()
        # Levels beyond these prices may be missing: the snapshot had no more (None: it had all).
        self._lowest_bid: Bound | None = None
        self._highest_ask: Bound | None = None

    def forget(self) -> None:
        """Something is missing."""
        self.position = None
        self._sides = Sides()

    def apply(self, change: Stored) -> bool:
        """Take a change in, where the book is known. False: it does not continue the book, which is
        not known from here on.
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
        """The book is this snapshot. False: the changes before it have made another book."""
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
        """How many of the bids and asks, from the best on, are certain: beyond the last level of
        the snapshot there may be others that have not changed since.
        """
        bids, asks = self._sides.best_first()
        return len(_down_to(bids, self._lowest_bid)), len(_up_to(asks, self._highest_ask))

    @classmethod
    def begun(cls, snapshot: Sides, now: Sides) -> "Book":
        """A book that began with one and has become the other."""
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
    """Each number in one spelling: REST and socket pad them differently."""
    return price_key(level[0]), price_key(level[1])
