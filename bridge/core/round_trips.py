"""How long Redis takes to answer a request, in fixed buckets (pure). Times are µs."""

from collections.abc import Iterable

from bridge.core.buckets import MOST_UNCOUNTED, Buckets

# Upper bounds; one more bucket takes what is longer.
ROUND_TRIP_BOUNDS_US = (
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000,
)  # fmt: skip


class RoundTrips(Buckets):
    """Of one bridge, since its start: once a request, however many entries it has."""

    def __init__(self) -> None:
        super().__init__(ROUND_TRIP_BOUNDS_US)

    def add(self, us: int) -> None:
        """A request was answered after so long."""
        self.times_us.append(us)
        if len(self.times_us) >= MOST_UNCOUNTED:
            self.count()

    @classmethod
    def total(cls, several: Iterable["RoundTrips"]) -> "RoundTrips":
        """Of several outboxes together."""
        whole = cls()
        for each in several:
            whole.include(each)
        return whole
