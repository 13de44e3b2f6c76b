"""What the core wants of the exchange's REST side for one stream (pure values)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BookWanted:
    """The book of a depth stream is not known."""


@dataclass(frozen=True, slots=True)
class TradesWanted:
    """Trades are missing: history must show so many of the newest to reach the oldest of them."""

    back: int


@dataclass(frozen=True, slots=True)
class FillsWanted:
    """Fills of the account may be missing from then until then (µs, the exchange's clock)."""

    from_us: int
    to_us: int


Wants = BookWanted | TradesWanted | FillsWanted
