"""The buckets in which statuses count how long messages took (pure): a bridge's and a worker's are
the same, so that what reads both can show them on one scale.
"""

# Upper bounds, µs; one more bucket takes what is longer.
BOUNDS_US = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
)  # fmt: skip
