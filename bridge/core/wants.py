"""What the core needs to be fetched over REST for one stream (pure values)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BookWanted:
    """The book of a depth stream is needed."""


@dataclass(frozen=True, slots=True)
class TradesWanted:
    """Trades are missing: the `back` newest trades of history reach the oldest of them."""

    back: int


@dataclass(frozen=True, slots=True)
class FillsWanted:
    """Fills of the account may be missing in this interval (µs, the exchange's clock)."""

    from_us: int
    to_us: int


Wants = BookWanted | TradesWanted | FillsWanted
