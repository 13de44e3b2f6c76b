"""Times counted in fixed buckets (pure). Times are µs."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

MOST_UNCOUNTED = 1_000  # times; the code that adds more has to call `count`


class Buckets:
    """How many times are between each two bounds, and the sum of all times.

    Times are collected and counted many at once, or when read: sorting them and searching for the
    bounds costs a tenth of searching the bucket of each time.
    """

    def __init__(self, bounds_us: Sequence[int]) -> None:
        """`bounds_us`: upper bounds; one more bucket counts longer times."""
        self.times_us: list[int] = []  # not counted yet; negative (clocks disagree) count as 0
        self._bounds_us = bounds_us
        self._counts = [0] * (len(bounds_us) + 1)
        self._sum_us = 0

    def include(self, part: "Buckets") -> None:
        """Add the counts of another one with the same bounds."""
        part.count()
        self._counts = [a + b for a, b in zip(self._counts, part._counts, strict=True)]
        self._sum_us += part._sum_us

    def as_dict(self) -> Mapping[str, Any]:
        """Counts by bucket, and the sum of all times, for the status."""
        self.count()
        return {"counts": list(self._counts), "sum_us": self._sum_us}

    def count(self) -> None:
        """Count the collected times."""
        times_us = sorted(self.times_us)
        self.times_us.clear()
        self._sum_us += sum(times_us[bisect_left(times_us, 0) :])
        before = 0
        for index, bound_us in enumerate(self._bounds_us):
            until = bisect_right(times_us, bound_us, before)
            self._counts[index] += until - before
            before = until
        self._counts[-1] += len(times_us) - before

    def __bool__(self) -> bool:
        return bool(self.times_us) or any(self._counts)
