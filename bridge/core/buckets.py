"""Times counted in fixed buckets (pure). Times are µs."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

MOST_UNCOUNTED = 1_000  # times, after which who adds them has them counted


class Buckets:
    """How many times lie between two bounds, and their sum.

    Times wait until there are many, or somebody asks: sorted, they are counted by where the bounds
    stand among them, which is a tenth of looking for each time's bucket.
    """

    def __init__(self, bounds_us: Sequence[int]) -> None:
        """`bounds_us`: upper ones; one more bucket takes what is longer."""
        self.times_us: list[int] = []  # not counted yet; negative ones, where clocks disagree, as 0
        self._bounds_us = bounds_us
        self._counts = [0] * (len(bounds_us) + 1)
        self._sum_us = 0

    def include(self, part: "Buckets") -> None:
        """What another with the same bounds has seen, too."""
        part.count()
        self._counts = [a + b for a, b in zip(self._counts, part._counts, strict=True)]
        self._sum_us += part._sum_us

    def as_dict(self) -> Mapping[str, Any]:
        """Counts by bucket, and the sum of all, for the status."""
        self.count()
        return {"counts": list(self._counts), "sum_us": self._sum_us}

    def count(self) -> None:
        """Put what waits into its buckets."""
        times_us = sorted(self.times_us)
        self.times_us.clear()
        self._sum_us += sum(times_us[bisect_left(times_us, 0) :])
        before = 0
        for place, bound_us in enumerate(self._bounds_us):
            until = bisect_right(times_us, bound_us, before)
            self._counts[place] += until - before
            before = until
        self._counts[-1] += len(times_us) - before

    def __bool__(self) -> bool:
        return bool(self.times_us) or any(self._counts)
