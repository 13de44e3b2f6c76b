"""Collects missing records until they are reported as one `Missing` (pure)."""

from bridge.contract.causes import GapCause
from bridge.core.records import Missing


class Missed:
    """Missing records by stream: from when to when they were received (µs, our clock)."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[int, int]] = {}
        self.every_us: tuple[int, int] | None = None  # of every stream

    def __bool__(self) -> bool:
        return bool(self.spans) or self.every_us is not None

    def add(self, stream: str | None, from_us: int, to_us: int) -> None:
        """Add a missing interval of this stream; None: of any stream."""
        if stream is None:
            self.every_us = _widened(self.every_us, from_us, to_us)
        else:
            self.spans[stream] = _widened(self.spans.get(stream), from_us, to_us)

    def record(self, received_us: int, cause: GapCause) -> Missing:
        """All intervals as one record."""
        if self.every_us is None:
            return Missing(received_us, cause, dict(self.spans))
        from_us, to_us = self.every_us
        for span in self.spans.values():
            from_us, to_us = _widened((from_us, to_us), *span)
        return Missing(max(received_us, to_us), cause, None, from_us)

    def since_us(self) -> int | None:
        """When the first missing record was received; None: nothing is missing."""
        spans = [*self.spans.values(), *([self.every_us] if self.every_us else [])]
        return min((from_us for from_us, _ in spans), default=None)

    def clear(self) -> None:
        """Forget the intervals: they were reported."""
        self.spans, self.every_us = {}, None


def _widened(span: tuple[int, int] | None, from_us: int, to_us: int) -> tuple[int, int]:
    since_us, until_us = span or (from_us, to_us)
    return min(since_us, from_us), max(until_us, to_us)
