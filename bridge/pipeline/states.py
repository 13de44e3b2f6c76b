"""Streams of states: which one is the newest, over one connection or several (pure)."""

from dataclasses import dataclass
from enum import Enum

from bridge.contract.streams import StreamType
from bridge.pipeline.items import Item
from bridge.pipeline.numbered import RENUMBER_AFTER_US

# Samples without an engine time, and how often they come: servers of the exchange take them at
# their own moments, so over two connections the same one has two times.
SAMPLED_EVERY_US = {
    StreamType.TICKER: 1_000_000,
    StreamType.EXTERNAL_TICKER: 1_000_000,
    StreamType.OPEN_INTEREST: 60_000_000,
}


class Place(Enum):
    """Where a state stands among those before it."""

    NEW = "new"
    SAME = "same"  # it was there already
    LATE = "late"  # a newer one was there already


@dataclass(slots=True)
class Newest:
    """The newest state: its order, and the keys of all that have it."""

    order: int = 0
    keys: frozenset[tuple[str, ...]] = frozenset()
    _late_since_us: int = 0

    def take(self, item: Item) -> Place:
        """Another one came."""
        if item.order < self.order and not self._begins_anew(item):
            return Place.LATE
        if item.order == self.order and item.key in self.keys:
            return Place.SAME
        same = self.keys if item.order == self.order else frozenset()
        self.order, self.keys = item.order, same | {item.key}
        self._late_since_us = 0
        return Place.NEW

    def learn(self, order: int, keys: frozenset[tuple[str, ...]]) -> None:
        """Redis has these at its newest."""
        if order > self.order:
            self.order, self.keys = order, keys

    def _begins_anew(self, item: Item) -> bool:
        """Late for so long that the newest must have been absurd, or the numbers have restarted."""
        self._late_since_us = self._late_since_us or item.heard_us
        return item.heard_us - self._late_since_us >= RENUMBER_AFTER_US


@dataclass(slots=True)
class Samples:
    """The connection that is followed, and the time of its last sample (µs)."""

    connection: int = 0
    at_us: int = 0

    def has(self, item: Item, every_us: int) -> bool:
        """Did another connection bring the sample of this moment already?"""
        if item.connection != self.connection and 0 <= item.order - self.at_us < every_us * 3 // 4:
            return True
        if item.order > self.at_us:
            self.connection, self.at_us = item.connection, item.order
        return False
