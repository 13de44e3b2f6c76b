"""Compares the simulated exchange's trades with those in Redis (pure).

The exchange numbers the trades of a market without holes. A number of the exchange that Redis lacks
although it has newer ones is lost, unless a `gap` entry names it as missing. A number that occurs
twice is doubled.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

Deal = tuple[Decimal, Decimal]  # price and quantity: the two sides pad them differently


@dataclass(frozen=True, slots=True)
class Tally:
    """Trades so far. `marked` are missing and in a gap; `recovered` came from history."""

    judged: int = 0
    lost: int = 0
    doubled: int = 0
    recovered: int = 0
    marked: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.judged + other.judged,
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.recovered + other.recovered,
            self.marked + other.marked,
        )

    def text(self) -> str:
        """The tally as one line."""
        marked = f", {self.marked} marked as missing" if self.marked else ""
        return (
            f"{self.judged:,} trades: {self.lost} lost, {self.doubled} doubled, "
            f"{self.recovered} recovered{marked}"
        )


NOTHING = Tally()


@dataclass(slots=True)
class MarketTruth:
    """One market. Trades older than Redis' newest are judged: nothing is added there any more."""

    tally: Tally = NOTHING
    known_to: int = 0  # the newest trade read from the exchange
    _traded: dict[int, Deal] = field(default_factory=dict)
    _stored: dict[int, Deal] = field(default_factory=dict)
    _times: Counter[int] = field(default_factory=Counter)
    _missing: set[int] = field(default_factory=set)
    _first: int | None = None
    _judged_to: int = 0

    def traded(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Add the exchange's trades, oldest first: number, price, quantity."""
        for number, price, quantity in rows:
            self.known_to = max(self.known_to, number)
            self._traded[number] = _deal(price, quantity)

    def stored(self, entries: Iterable[Mapping[str, str]]) -> None:
        """Add the next entries of the market's trade stream."""
        for fields in entries:
            if fields.get("type") == "gap" and fields.get("from"):
                self._missing.update(range(int(fields["from"]), int(fields["to"]) + 1))
            elif fields.get("type") == "trade":
                number = int(fields["trade_id"])
                self._first = number if self._first is None else self._first
                self._times[number] += 1
                self._stored[number] = _deal(fields["price"], fields["quantity"])
                if fields["source"] == "rest":
                    self.tally += Tally(recovered=1)

    def judge(self) -> None:
        """Add the trades to the tally that both sides have passed."""
        if self._first is None or not self._traded:
            return
        newest = min(max(self._stored, default=0), max(self._traded))
        for number in sorted(n for n in self._traded if self._first <= n <= newest):
            is_there = self._stored.get(number) == self._traded[number]
            is_marked = number in self._missing and number not in self._stored
            self.tally += Tally(
                judged=1,
                lost=int(not is_there and not is_marked),
                doubled=max(0, self._times[number] - 1),
                marked=int(is_marked),
            )
        self._judged_to = max(self._judged_to, newest)
        for known in (self._traded, self._stored, self._times):
            for number in [n for n in known if n <= self._judged_to]:
                del known[number]
        self._missing = {n for n in self._missing if n > self._judged_to}


def _deal(price: str, quantity: str) -> Deal:
    return Decimal(price), Decimal(quantity)
