"""Streams of states: which one is the newest, over one connection or several (pure)."""

from dataclasses import dataclass
from enum import Enum

from bridge.core.entries import Entry
from bridge.core.numbering import NONE_YET, Numbering, begins_anew

ABSURD_AFTER_US = 5_000_000  # late for so long, it must have been the newest that was absurd


class Rank(Enum):
    """Where a state stands among those before it."""

    NEW = "new"
    SAME = "same"  # it was there already
    LATE = "late"  # a newer one was there already


NEW = Rank.NEW  # as `APPEND` in `entries`


@dataclass(slots=True)
class NewestState:
    """The newest state: its order and time, and what there is of this order."""

    newest: Numbering = NONE_YET
    _first: Entry | None = None  # of this order; its key is wanted only where another has it too
    _keys: frozenset[tuple[object, ...]] = frozenset()  # of the others
    _late_since_us: int = 0
    _late_until_us: int = 0
    # From when to when (µs) states were dropped as late, and were not, as the last one has shown.
    passed_over: tuple[int, int] | None = None

    def take(self, state: Entry) -> Rank:
        """Another one came."""
        number, self.passed_over = self.newest.number, None
        if state.order < number and not self._begins_anew(state):
            return Rank.LATE
        if state.order == number:
            if (first := self._first) is not None:
                self._first, self._keys = None, self._keys | {first.key}
            if state.key in self._keys:
                return Rank.SAME
            self._keys |= {state.key}
        else:
            self._first, self._keys = state, frozenset()
        self.newest = Numbering(state.order, state.ms)
        self._late_since_us = 0
        return NEW

    def learn(self, stored: Numbering, keys: frozenset[tuple[object, ...]]) -> None:
        """Redis has these at its newest."""
        newest = self.newest
        if stored.number > newest.number and not begins_anew(newest.number, newest.ms, stored):
            self.newest, self._first, self._keys = stored, None, keys

    def _begins_anew(self, state: Entry) -> bool:
        """By its time where that tells. Otherwise the newest was absurd, or times began anew, where
        all are late for so long.
        """
        if begins_anew(state.order, state.ms, self.newest):
            return True
        self._late_since_us = self._late_since_us or state.received_us
        lasted_us = state.received_us - self._late_since_us
        if lasted_us < ABSURD_AFTER_US:
            self._late_until_us = state.received_us
            return False
        self.passed_over = self._late_since_us, self._late_until_us
        return True


@dataclass(slots=True)
class Samples:
    """Samples without an engine time: servers of the exchange take them at their own moments, so
    over two connections the same one has two times. Follows one connection, by the time of its last
    sample (µs).
    """

    connection: int = 0
    at_us: int = 0

    def has(self, sample: Entry, period_us: int) -> bool:
        """Did another connection bring the sample of this moment already?"""
        is_other = sample.connection != self.connection
        if is_other and 0 <= sample.order - self.at_us < period_us * 3 // 4:
            return True
        if sample.order > self.at_us:
            self.connection, self.at_us = sample.connection, sample.order
        return False
