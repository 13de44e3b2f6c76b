"""An order book built from a depth stream (pure): for samples and for consumers of your own.

The rule: a delta applies if `first_update_id <= position + 1 <= last_update_id`. After a gap, and
at the start, the book is unknown until the next `depth_snapshot`, which replaces it.
Prices are compared as numbers, since the exchange pads them differently on WebSocket and REST.
"""

from collections.abc import Iterable
from decimal import Decimal
from heapq import nlargest, nsmallest

from bridge.contract.events import Depth, DepthSnapshot, Level

Best = tuple[Level | None, Level | None]  # bid and ask; None where a side is empty


class Side:
    """Levels by price. The best price is cached; it is searched for only after its removal."""

    def __init__(self, *, highest_first: bool) -> None:
        self._sign = 1 if highest_first else -1
        self.levels: dict[Decimal, Level] = {}
        self._best: Decimal | None = None  # None: not known, to be searched for

    def put(self, price: Decimal, level: Level) -> None:
        self.levels[price] = level
        if self._best is not None and (price - self._best) * self._sign > 0:
            self._best = price

    def apply(self, changes: Iterable[Level]) -> None:
        """Set new quantities by price; zero, however padded, removes the level."""
        for level in changes:
            price = Decimal(level[0])
            if Decimal(level[1]):
                self.put(price, level)
            else:
                self.levels.pop(price, None)
                self._best = None if price == self._best else self._best

    def replace(self, levels: Iterable[Level]) -> None:
        self.levels = {Decimal(level[0]): level for level in levels}
        self._best = None

    def best(self) -> Level | None:
        if not self.levels:
            return None
        if self._best is None:
            self._best = max(self.levels) if self._sign > 0 else min(self.levels)
        return self.levels[self._best]

    def top(self, count: int) -> list[Level]:
        """The best levels, best first."""
        pick = nlargest if self._sign > 0 else nsmallest
        return [self.levels[price] for price in pick(count, self.levels)]


class OrderBook:
    """Both sides. `position` is the update ID at which the book is exact; None: unknown."""

    def __init__(self) -> None:
        self.position: int | None = None
        self.bids = Side(highest_first=True)
        self.asks = Side(highest_first=False)

    def replace(self, snapshot: DepthSnapshot) -> None:
        """Replace the whole book."""
        self.position = snapshot.update_id
        self.bids.replace(snapshot.bids)
        self.asks.replace(snapshot.asks)

    def apply(self, depth: Depth) -> bool:
        """Apply a delta. False if it changed nothing: the book is unknown, or the delta is old."""
        if self.position is None or depth.last_update_id <= self.position:
            return False
        if depth.first_update_id > self.position + 1:
            self.forget()  # a hole without a gap entry: entries were trimmed before they were read
            return False
        self.bids.apply(depth.bids)
        self.asks.apply(depth.asks)
        self.position = depth.last_update_id
        return True

    def forget(self) -> None:
        """Empty the book and mark it as unknown: updates are missing."""
        self.position = None
        self.bids.replace(())
        self.asks.replace(())

    def best(self) -> Best:
        """The best bid and the best ask."""
        return self.bids.best(), self.asks.best()
