"""Kept streams: they are another member's now, and received here until that member does (pure).

So a change of the fleet leaves no gap: a stream is dropped when its new owner reports that it
receives it, or when that takes too long. Times are µs by a steady clock.
"""

from collections.abc import Collection, Iterable, Mapping

from bridge.contract.streams import Stream


class Handover:
    """`streams`: the kept streams by name."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self._since_us: dict[str, int] = {}

    def keep(self, streams: Mapping[str, Stream], now_us: int) -> None:
        """Keep these streams and no others; a stream that was kept before has waited since then."""
        self.streams = dict(streams)
        self._since_us = {name: self._since_us.get(name, now_us) for name in streams}

    def overdue(self, limit_us: int | None, now_us: int) -> Collection[str]:
        """Streams whose new owner has not taken over in time; none without a limit."""
        if limit_us is None:
            return []
        return [name for name, us in self._since_us.items() if now_us - us >= limit_us]

    def end(self, names: Iterable[str]) -> None:
        """Stop keeping these streams."""
        for name in names:
            self.streams.pop(name, None)
            self._since_us.pop(name, None)
