"""Round-trip times of requests to Redis, in fixed buckets (pure). Times are µs."""

from collections.abc import Iterable

from bridge.core.buckets import MOST_UNCOUNTED, Buckets

# Upper bounds; one more bucket counts longer times.
ROUND_TRIP_BOUNDS_US = (
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000,
)  # fmt: skip


class RoundTrips(Buckets):
    """The round-trip times of one bridge since its start: one for each request."""

    def __init__(self) -> None:
        super().__init__(ROUND_TRIP_BOUNDS_US)

    def add(self, us: int) -> None:
        """Add the time of one request."""
        self.times_us.append(us)
        if len(self.times_us) >= MOST_UNCOUNTED:
            self.count()

    @classmethod
    def total(cls, several: Iterable["RoundTrips"]) -> "RoundTrips":
        """The sum of several outboxes."""
        whole = cls()
        for each in several:
            whole.include(each)
        return whole
