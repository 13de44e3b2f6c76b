"""The newest state of a stream of states, over one connection or several (pure)."""

from dataclasses import dataclass
from enum import Enum

from bridge.core.entries import Entry
from bridge.core.numbering import NONE_YET, Numbering, begins_anew

ABSURD_AFTER_US = 5_000_000  # if all states are late for so long, the newest one was absurd


class Rank(Enum):
    """The rank of a state among those before it."""

    NEW = "new"
    SAME = "same"  # it was there already
    LATE = "late"  # a newer one was there already


NEW = Rank.NEW  # as `APPEND` in `entries`


@dataclass(slots=True)
class NewestState:
    """The newest state: its order and time, and the keys of all states of this order."""

    newest: Numbering = NONE_YET
    _first: Entry | None = None  # the first of this order; its key is worked out only if needed
    _keys: frozenset[tuple[object, ...]] = frozenset()  # of further ones of this order
    _late_since_us: int = 0
    _late_until_us: int = 0
    # Interval (µs) in which states were dropped as late by mistake, as the last one has shown.
    passed_over: tuple[int, int] | None = None

    def take(self, state: Entry) -> Rank:
        """Take a state. Returns its rank."""
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
        """Take the newest state in Redis, and the keys there."""
        newest = self.newest
        if stored.number > newest.number and not begins_anew(newest.number, newest.ms, stored):
            self.newest, self._first, self._keys = stored, None, keys

    def _begins_anew(self, state: Entry) -> bool:
        """Whether a state of lower order begins anew: by its time, or because all states have been
        late for so long that the newest was absurd, or times began anew.
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
    """Recognises samples without an engine time: each server of the exchange takes them at its own
    moments, so the same sample has different times over two connections. Follows one connection, by
    the time of its last sample (µs).
    """

    connection: int = 0
    at_us: int = 0

    def has(self, sample: Entry, period_us: int) -> bool:
        """Whether another connection already received the sample of this moment."""
        is_other = sample.connection != self.connection
        if is_other and 0 <= sample.order - self.at_us < period_us * 3 // 4:
            return True
        if sample.order > self.at_us:
            self.connection, self.at_us = sample.connection, sample.order
        return False
