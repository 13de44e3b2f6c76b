"""The anonymous traders of a market: they change levels, cross the spread, and follow a wandering
fair price.

All randomness comes from a seeded generator. Knows nothing of accounts, clocks or streams.
"""

from __future__ import annotations

import random

from simulator.book import Change, Side
from simulator.listing import Listing, MarketType
from simulator.market import Execution, Market
from simulator.tape import Tape

TRADE_SHARE = 0.2
SEVERAL_LEVELS_SHARE = 0.06
NOTHING_SHARE = 0.004
FAR_SHARE = 0.05
USUAL_LEVELS = 80
THIN_LEVELS = 3


class Crowd:
    """All anonymous traders of one market."""

    def __init__(self, market: Market, draw: random.Random) -> None:
        self.market = market
        self._draw = draw
        self._listing: Listing = market.listing
        self._fair = float(market.listing.opening_price)
        # A prediction's book is thin enough that a side may be empty for a while.
        thin = market.listing.market_type is MarketType.PREDICTION
        self._usual_levels = THIN_LEVELS if thin else USUAL_LEVELS
        self._least_levels = 0 if thin else 8
        market.open_with(self._opening())

    @property
    def fair_price(self) -> float:
        """The crowd's valuation of the market, in ticks."""
        return self._fair

    def stir(self, tape: Tape) -> list[Execution]:
        """Perform one action. Returns the matches, so that account orders hit by them can be
        settled.
        """
        self._wander()
        chance = self._draw.random()
        if chance < TRADE_SHARE:
            return self.trade(tape, self._taking_side())
        chance -= TRADE_SHARE
        if chance < NOTHING_SHARE:
            self.market.change(tape, [])
        elif chance < NOTHING_SHARE + SEVERAL_LEVELS_SHARE:
            self._move_several(tape)
        elif chance < NOTHING_SHARE + SEVERAL_LEVELS_SHARE + FAR_SHARE:
            self.fidget(tape)
        else:
            self.market.change(tape, self._near_changes(self.any_side()))
        return []

    def trade(self, tape: Tape, side: Side) -> list[Execution]:
        """Take from the book: usually less than the best level, at times a few levels."""
        facing = self.market.book.ladder(side.other)
        if len(facing.prices) <= self._least_levels:
            self.market.change(tape, self._new_level(side.other))
            return []
        deepest = facing.at_depth(2)
        return self.market.take(tape, side, self._size(4), deepest, self.market.new_order_id())

    def fidget(self, tape: Tape) -> None:
        """Change a level far from the touch: always exactly one depth update."""
        side = self.any_side()
        ladder = self.market.book.ladder(side)
        if len(ladder.prices) < 2:
            self.market.change(tape, [])
            return
        price = ladder.at_depth(self._draw.randrange(1, len(ladder.prices)))
        self.market.change(tape, [Change(side, price, self._size(1))])

    def _opening(self) -> list[Change]:
        """The initial levels of the book."""
        middle, gap = self._listing.opening_price, self._listing.gap
        changes: list[Change] = []
        for side, sign in ((Side.BID, -1), (Side.ASK, 1)):
            price = middle
            for _ in range(self._usual_levels):
                price += sign * (1 + int(self._draw.expovariate(1 / gap)))
                if 1 <= price <= self._listing.highest_price:
                    changes.append(Change(side, price, self._size(1)))
        return changes

    def _wander(self) -> None:
        """Move the fair price at random; it is drawn back to its start."""
        opening = self._listing.opening_price
        step = self._draw.gauss(0, 0.2 * self._listing.gap) - 0.0005 * (self._fair - opening)
        self._fair = max(2.0, min(self._fair + step, self._listing.highest_price - 1))

    def _taking_side(self) -> Side:
        """Mostly buy when the book is below the fair price, sell when above."""
        top = self.market.book.top()
        bid, ask = top.bid or self._fair, top.ask or self._fair
        lean = (self._fair - (bid + ask) / 2) / (10 * self._listing.gap)
        wish = 0.5 + max(-0.45, min(0.45, lean))
        return Side.BID if self._draw.random() < wish else Side.ASK

    def any_side(self) -> Side:
        """A random side."""
        return Side.BID if self._draw.random() < 0.5 else Side.ASK

    def _size(self, divisor: int) -> int:
        mean = self._listing.typical_quantity / divisor
        return 1 + int(self._draw.expovariate(1 / mean))

    def _move_several(self, tape: Tape) -> None:
        """Change two or three different levels in one update."""
        side = self.any_side()
        found = [self._near_changes(side) for _ in range(self._draw.randrange(2, 4))]
        changes = {change.price: change for changes in found for change in changes}
        self.market.change(tape, list(changes.values()))

    def _near_changes(self, side: Side) -> list[Change]:
        """Add, change or remove a level; the number of levels stays near the usual."""
        ladder = self.market.book.ladder(side)
        count = len(ladder.prices)
        if count <= self._least_levels or self._draw.random() < 0.35:
            return self._new_level(side)
        price = ladder.at_depth(int(self._draw.expovariate(1 / 4)))
        crowding = 0.5 * count / (self._usual_levels + 1)
        is_removed = self._off_fair(side, price) or self._draw.random() < crowding
        return [Change(side, price, 0 if is_removed else self._size(1))]

    def _off_fair(self, side: Side, price: int) -> bool:
        """Whether a resting price is worse for its owner than the fair one, so it is withdrawn."""
        return price > self._fair if side is Side.BID else price < self._fair

    def _new_level(self, side: Side) -> list[Change]:
        """A level at a valid price; where the drawn price is invalid, the best level is renewed."""
        price = self._candidate(side)
        best = self.market.book.ladder(side).best
        if self.market.fits(side, price):
            return [Change(side, price, self._size(1))]
        return [] if best is None else [Change(side, best, self._size(1))]

    def _candidate(self, side: Side) -> int:
        """A price: mostly behind the touch, but mostly inside a wide spread."""
        book = self.market.book
        best, facing = book.ladder(side).best, book.ladder(side.other).best
        sign = -1 if side is Side.BID else 1
        gap = self._listing.gap
        if best is None:
            return int(self._fair) + sign * (1 + int(self._draw.expovariate(1 / gap)))
        is_wide = facing is None or abs(facing - best) > 2 * gap
        if self._draw.random() < (0.8 if is_wide else 0.1):
            return best - sign * (1 + int(self._draw.expovariate(1 / gap)))
        return best + sign * int(self._draw.expovariate(1 / (12 * gap)))
