"""The buckets of latencies in statuses (pure): the same for a bridge and a worker, so that both can
be shown on one scale.
"""

# Upper bounds, µs; one more bucket counts longer times.
BOUNDS_US = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
)  # fmt: skip
