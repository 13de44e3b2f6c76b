"""The bridge's own order book of one depth stream, only to place snapshots exactly (pure).

A REST snapshot trails or leads the socket by some updates, so it is never published as it arrives:
it is joined with the deltas heard and carried forward to the newest of them, P; the entry is the
book at P. The recipe: drop deltas with `u <= lastUpdateId`, the first kept one must satisfy
`U <= lastUpdateId + 1 <= u`, then each continues the last. Levels are compared as numbers: the
socket pads prices ("86700.0"), REST trims them ("86700").
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bridge.contract.events import Depth, Level

MAX_WAITING_DELTAS = 20_000
QUIET_US = 3_000_000  # no change for so long, and REST says the same: the book rests there
PATIENCE_DELTAS = 500  # a body is ahead of the socket by a few updates, never by so many


class Join(StrEnum):
    """What became of a REST body."""

    PLACED = "placed"  # the book is exact at `position`
    TOO_OLD = "too old"  # the deltas heard begin after it: ask again
    AHEAD = "ahead"  # it is ahead of the newest delta: placed when that one arrives
    STANDS = "stands"  # the book rests at `position`, though no delta has told so


def price_key(price: str) -> str:
    """One spelling for each number: `86700.0` and `86700` are one level."""
    return price.rstrip("0").rstrip(".") if "." in price else price


def is_zero(quantity: str) -> bool:
    """Zero deletes a level; it is written padded (`0.00`)."""
    return not quantity.strip("0.")


@dataclass(slots=True)
class _Sides:
    bids: dict[str, Level] = field(default_factory=dict)
    asks: dict[str, Level] = field(default_factory=dict)

    def apply(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for level in levels:
                key = price_key(level[0])
                if is_zero(level[1]):
                    side.pop(key, None)
                else:
                    side[key] = level


@dataclass(slots=True)
class DepthBook:
    """Deltas in, and the book when a snapshot has been joined. `position` 0: nothing heard yet."""

    every_updates: int  # a periodic snapshot each time the update id crosses a multiple; 0: off
    every_ms: int = 0  # and each time the engine's time does; 0: off
    levels_kept: int = 1000  # of each side, in a snapshot
    ms: int = 0  # the engine's time of the newest delta
    offset: int = 0  # where the journal has it
    is_asked_for: bool = False  # since it was last known
    snapshot_tries: int = 0  # at the next delta, as often as this: its last place was taken
    position: int = 0
    joined: bool = False
    rest_update_id: int = 0
    _sides: _Sides = field(default_factory=_Sides)
    _waiting: deque[Depth] = field(default_factory=lambda: deque(maxlen=MAX_WAITING_DELTAS))
    _early: list[tuple[int, Depth]] = field(default_factory=list)  # heard when; out of order
    _heard_ahead: int = 0
    _ahead: tuple[int, Sequence[Level], Sequence[Level]] | None = None
    _ahead_since_us: int = 0

    def reset(self) -> None:
        """A new subscription: nothing heard before it can be relied on."""
        self.position = 0
        self._early.clear()
        self._forget()

    @property
    def has_early(self) -> bool:
        """Does a delta wait for another connection to bring what is before it?"""
        return bool(self._early)

    def in_order(self, delta: Depth, heard_us: int, patience_us: int) -> list[Depth]:
        """The deltas to follow now: where a stream is heard over several connections, what one has
        missed comes from another, at most `patience_us` later.
        """
        is_early = self.position and delta.first_update_id > self.position + 1
        if not is_early and not self._early:
            return [delta]
        self._early.append((heard_us, delta))
        self._early.sort(key=lambda early: early[1].last_update_id)
        is_over = heard_us - min(heard for heard, _ in self._early) >= patience_us
        position, ready = self.position, 0
        for _, early in self._early:
            if early.first_update_id > position + 1 and not is_over:
                break
            position = max(position, early.last_update_id)
            ready += 1
        following = [early for _, early in self._early[:ready]]
        del self._early[:ready]
        return following

    def hear(self, delta: Depth) -> Join | None:
        """Follow one delta. PLACED: a snapshot that was ahead of the deltas has been reached."""
        if self.position and not delta.first_update_id <= self.position + 1 <= delta.last_update_id:
            if delta.last_update_id <= self.position:
                return None
            self._forget()  # a hole: the book is void until the next snapshot
        self.position = delta.last_update_id
        if self.joined:
            self._sides.apply(delta.bids, delta.asks)
            return None
        self._waiting.append(delta)
        if self._ahead is None:
            return None
        if delta.last_update_id >= self._ahead[0]:
            return self.join(*self._ahead)
        self._heard_ahead += 1
        if self._heard_ahead < PATIENCE_DELTAS:
            return None
        self._ahead = None
        return Join.TOO_OLD  # it was never true of this book: ask again

    def join(
        self, update_id: int, bids: Sequence[Level], asks: Sequence[Level], heard_us: int = 0
    ) -> Join:
        """Join a REST body (`update_id`: its lastUpdateId) with the deltas since subscribing."""
        if self.joined:
            return Join.PLACED
        before, self._ahead = self._ahead, None
        if not self._waiting or update_id > self._waiting[-1].last_update_id:
            if before is None or before[0] != update_id:
                self._ahead_since_us = heard_us
            elif heard_us - self._ahead_since_us >= QUIET_US:
                return self._stand(update_id, bids, asks)
            self._ahead, self._heard_ahead = (update_id, bids, asks), 0
            return Join.AHEAD
        if self._waiting[0].first_update_id > update_id + 1:
            return Join.TOO_OLD
        self._sides = _Sides()
        self._sides.apply(bids, asks)
        for delta in self._waiting:
            if delta.last_update_id > update_id:
                self._sides.apply(delta.bids, delta.asks)
        self._waiting.clear()
        self.joined = True
        self.rest_update_id = update_id
        return Join.PLACED

    def crosses(self, delta: Depth, ms: int) -> bool:
        """Is a periodic snapshot due at this delta? Every bridge finds the same ones."""
        before_ms, self.ms = self.ms, max(self.ms, ms)
        if not self.joined:
            return False
        every = self.every_updates
        if every and (delta.first_update_id - 1) // every != delta.last_update_id // every:
            return True
        return bool(self.every_ms and before_ms) and before_ms // self.every_ms < (
            self.ms // self.every_ms
        )

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best price first."""
        bids = sorted(self._sides.bids.values(), key=_price, reverse=True)
        asks = sorted(self._sides.asks.values(), key=_price)
        return bids[: self.levels_kept], asks[: self.levels_kept]

    def _stand(self, update_id: int, bids: Sequence[Level], asks: Sequence[Level]) -> Join:
        self._sides = _Sides()
        self._sides.apply(bids, asks)
        self._waiting.clear()
        self.position = self.rest_update_id = update_id
        self.joined = True
        return Join.STANDS

    def _forget(self) -> None:
        self.joined = self.is_asked_for = False
        self._ahead = None
        self._sides = _Sides()
        self._waiting.clear()


def _price(level: Level) -> tuple[int, str]:
    # Non-negative decimals in plain notation compare as (digits before the point, text).
    whole, _, fraction = level[0].partition(".")
    whole = whole.lstrip("0")
    return len(whole), f"{whole}.{fraction}"
