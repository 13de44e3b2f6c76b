"""The bridge's own order book of one depth stream, used only to place snapshots exactly (pure).

A REST snapshot is some updates behind or ahead of the socket, so it is never published unchanged:
it is joined with the received deltas and carried forward to the newest of them, P; the entry is the
book at P. The rule: drop deltas with `u <= lastUpdateId`; the first kept one must satisfy
`U <= lastUpdateId + 1 <= u`; then each continues the last. Levels are compared as numbers: the
socket pads prices ("86700.0"), REST trims them ("86700").
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from bridge.contract.events import Depth, Level
from bridge.core.numbering import Numbering, begins_anew
from bridge.core.outcomes import Join

MAX_WAITING_DELTAS = 20_000
QUIET_US = 3_000_000  # no delta for so long, and the same REST body: the book is at rest
MOST_AHEAD = 500  # updates: a body is ahead of the socket by a few, never by this many


def price_key(price: str) -> str:
    """The price in one spelling: `86700.0` and `86700` are the same level."""
    return price.rstrip("0").rstrip(".") if "." in price else price


def is_zero(quantity: str) -> bool:
    """Whether the quantity is zero, which deletes a level; it is written padded (`0.00`)."""
    return not quantity.strip("0.")


class Delta(NamedTuple):
    """A change of the book, as `Depth` has it."""

    first_update_id: int
    last_update_id: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    event_us: int
    engine_us: int

    @classmethod
    def of(cls, event: Depth) -> Self:
        return cls(*(getattr(event, name) for name in cls._fields))


@dataclass(slots=True)
class Sides:
    """A book's levels, by price as a number."""

    bids: dict[str, Level] = field(default_factory=dict)
    asks: dict[str, Level] = field(default_factory=dict)

    def apply(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        # `price_key` and `is_zero` inlined: the calls would be half of the cost of a delta
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for level in levels:
                price, quantity = level
                key = price.rstrip("0").rstrip(".") if "." in price else price
                if quantity.strip("0."):
                    side[key] = level
                else:
                    side.pop(key, None)

    def best_first(self) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best price first."""
        bids = sorted(self.bids.values(), key=price_order, reverse=True)
        return bids, sorted(self.asks.values(), key=price_order)


@dataclass(slots=True)
class DepthBook:
    """Follows deltas, and has the book once a snapshot is joined. `number`: the update id of the
    newest delta; 0: none yet.
    """

    every_updates: int  # a periodic snapshot at each multiple of the update id; 0: off
    every_ms: int = 0  # a periodic snapshot at each multiple of the engine's time; 0: off
    levels_kept: int = 1000  # of each side, in a snapshot
    ms: int = 0  # the engine's time of the newest delta
    number: int = 0
    joined: bool = False
    rest_update_id: int = 0
    _sides: Sides = field(default_factory=Sides)
    _waiting: deque[Delta] = field(default_factory=lambda: deque(maxlen=MAX_WAITING_DELTAS))
    _early: list[tuple[int, Delta]] = field(default_factory=list)  # time received, delta
    _passed_ahead: int = 0
    _ahead: tuple[int, Sequence[Level], Sequence[Level]] | None = None
    _ahead_since_us: int = 0

    def reset(self) -> None:
        """Forget all deltas: after a new subscription the earlier ones cannot be used."""
        self.number = self.ms = 0
        self._early.clear()
        self._forget()

    @property
    def has_early(self) -> bool:
        """Whether a delta waits for its predecessor from another connection."""
        return bool(self._early)

    def in_order(self, delta: Delta, at_us: int, hold_us: int) -> list[Delta]:
        """The deltas to follow now, in order: where several connections receive a stream, a delta
        that one missed comes from another, at most `hold_us` later.
        """
        is_early = self.number and delta.first_update_id > self.number + 1
        if not is_early and not self._early:
            return [delta]
        self._early.append((at_us, delta))
        self._early.sort(key=lambda early: early[1].last_update_id)
        is_over = at_us - min(early_us for early_us, _ in self._early) >= hold_us
        number, ready = self.number, 0
        for _, early in self._early:
            if early.first_update_id > number + 1 and not is_over:
                break
            number = max(number, early.last_update_id)
            ready += 1
        following = [early for _, early in self._early[:ready]]
        del self._early[:ready]
        return following

    def try_follow(self, delta: Delta, ms: int) -> bool:
        """Follow a delta that continues the known book and at which no snapshot is due. False: it
        is not such a delta, and nothing was done.
        """
        first, last, bids, asks, _, _ = delta
        every = self.every_updates
        if not (self.joined and first <= self.number + 1 <= last) or self._early:
            return False
        if every and (first - 1) // every != last // every:
            return False
        if self.every_ms and self._is_due_by_time(ms):
            return False
        self.number = last
        if ms > self.ms:
            self.ms = ms
        self._sides.apply(bids, asks)
        return True

    def follow(self, delta: Delta, ms: int) -> Join | None:
        """Follow one delta with the engine time `ms`. PLACED: it reached a snapshot that was ahead
        of the deltas; TOO_OLD: that snapshot was never reached.
        """
        last = delta.last_update_id
        if last < self.number and begins_anew(last, ms, Numbering(self.number, self.ms)):
            self.reset()  # a renumbering: with the old number the book would never continue
        if self.number and not delta.first_update_id <= self.number + 1 <= delta.last_update_id:
            if delta.last_update_id <= self.number:
                return None
            self._forget()  # a gap: the book is void until the next snapshot
        self.number = delta.last_update_id
        if self.joined:
            self._sides.apply(delta.bids, delta.asks)
            return None
        self._waiting.append(delta)
        if self._ahead is None:
            return None
        if delta.last_update_id >= self._ahead[0]:
            return self.join(*self._ahead)
        self._passed_ahead += 1
        if self._passed_ahead < MOST_AHEAD:
            return None
        self._ahead = None
        return Join.TOO_OLD  # it is not of this book: fetch again

    def join(
        self, update_id: int, bids: Sequence[Level], asks: Sequence[Level], at_us: int = 0
    ) -> Join:
        """Join a REST body (`update_id`: its lastUpdateId) with the deltas since subscribing."""
        if self.joined:
            return Join.PLACED
        before, self._ahead = self._ahead, None
        if not self._waiting or update_id > self._waiting[-1].last_update_id:
            # Ahead of the deltas: wait for them, unless the book is at rest and none will come.
            if before is None or before[0] != update_id:
                self._ahead_since_us = at_us
            elif at_us - self._ahead_since_us >= QUIET_US:
                return self._rest(update_id, bids, asks)
            self._ahead, self._passed_ahead = (update_id, bids, asks), 0
            return Join.AHEAD
        if self._waiting[0].first_update_id > update_id + 1:  # deltas in between are missing
            return Join.TOO_OLD
        self._sides = Sides()
        self._sides.apply(bids, asks)
        for delta in self._waiting:
            if delta.last_update_id > update_id:
                self._sides.apply(delta.bids, delta.asks)
        self._waiting.clear()
        self.joined = True
        self.rest_update_id = update_id
        return Join.PLACED

    def crosses(self, delta: Delta, ms: int) -> bool:
        """Whether a periodic snapshot is due at this delta; the same for every bridge."""
        is_due_by_time = self._is_due_by_time(ms)
        self.ms = max(self.ms, ms)
        if not self.joined:
            return False
        every = self.every_updates
        if every and (delta.first_update_id - 1) // every != delta.last_update_id // every:
            return True
        return is_due_by_time

    def _is_due_by_time(self, ms: int) -> bool:
        every = self.every_ms
        return bool(every and self.ms) and self.ms // every < max(self.ms, ms) // every

    def forget_rest_update_id(self) -> None:
        """Clear it after the snapshot that names it: the next ones are of the bridge's own book."""
        self.rest_update_id = 0

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best price first."""
        bids, asks = self._sides.best_first()
        return bids[: self.levels_kept], asks[: self.levels_kept]

    def _rest(self, update_id: int, bids: Sequence[Level], asks: Sequence[Level]) -> Join:
        self._sides = Sides()
        self._sides.apply(bids, asks)
        self._waiting.clear()
        self.number = self.rest_update_id = update_id
        self.joined = True
        return Join.RESTS

    def _forget(self) -> None:
        self.joined = False
        self._ahead = None
        self._sides = Sides()
        self._waiting.clear()


def price_order(level: Level) -> tuple[int, str]:
    """The sort key of a level: its price, compared as a number."""
    # Non-negative decimals in plain notation compare as (digits before the point, text).
    whole, _, fraction = level[0].partition(".")
    whole = whole.lstrip("0")
    return len(whole), f"{whole}.{fraction}"
