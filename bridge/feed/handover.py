"""Streams that another member of the fleet is to receive, and that are received here until it does
(pure).

So a change of the fleet leaves no gap: a stream is given up when its new owner says that it has it,
or when that takes too long. Times are µs by a steady clock.
"""

from collections.abc import Collection, Iterable, Mapping

from bridge.contract.streams import Stream


class Handover:
    """`streams` are those that are kept."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self._since_us: dict[str, int] = {}

    def keep(self, streams: Mapping[str, Stream], now_us: int) -> None:
        """Keep these and no others; those that were kept before are waited for since then."""
        self.streams = dict(streams)
        self._since_us = {name: self._since_us.get(name, now_us) for name in streams}

    def overdue(self, limit_us: int | None, now_us: int) -> Collection[str]:
        """Those whose new owner has not come in time; none where that is not limited."""
        if limit_us is None:
            return []
        return [name for name, us in self._since_us.items() if now_us - us >= limit_us]

    def end(self, names: Iterable[str]) -> None:
        """These are given up."""
        for name in names:
            self.streams.pop(name, None)
            self._since_us.pop(name, None)
