"""Streams of the account's orders of which fills may be missing, and since when (pure)."""

from collections.abc import Iterator

from bridge.core.plan import UNKNOWN_FILLS_US
from bridge.core.wants import FillsWanted


class MissedFills:
    """By stream; times are µs by the exchange's clock."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[int, int]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def miss(self, name: str, from_us: int, to_us: int) -> None:
        """The fills of that time may be missing. Since when is not always known (0): then a day's,
        for older ones may have been published, and taken by retention.
        """
        from_us = from_us or to_us - UNKNOWN_FILLS_US
        before = self._spans.get(name, (from_us, to_us))
        self._spans[name] = min(from_us, before[0]), max(to_us, before[1])

    def wanted(self, name: str) -> FillsWanted | None:
        """What REST is to be asked for."""
        span = self._spans.get(name)
        return None if span is None else FillsWanted(*span)

    def fetched(self, name: str) -> None:
        """REST has told all."""
        self._spans.pop(name, None)
