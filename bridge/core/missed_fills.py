"""Order streams of the account in which fills may be missing, and in which interval (pure)."""

from collections.abc import Iterator

from bridge.core.plan import UNKNOWN_FILLS_US
from bridge.core.wants import FillsWanted


class MissedFills:
    """Intervals by stream, in µs by the exchange's clock."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[int, int]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def miss(self, name: str, from_us: int, to_us: int) -> None:
        """Note that fills of this interval may be missing. `from_us` 0 (unknown): one day, as older
        fills may have been published already, and removed by retention.
        """
        from_us = from_us or to_us - UNKNOWN_FILLS_US
        before = self._spans.get(name, (from_us, to_us))
        self._spans[name] = min(from_us, before[0]), max(to_us, before[1])

    def wanted(self, name: str) -> FillsWanted | None:
        """The fills to fetch over REST."""
        span = self._spans.get(name)
        return None if span is None else FillsWanted(*span)

    def fetched(self, name: str) -> None:
        """Note that all of the stream's fills were fetched."""
        self._spans.pop(name, None)
