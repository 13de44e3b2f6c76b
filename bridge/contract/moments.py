"""Moments as the calendar has them (pure), from µs since 1970.

An entry may say one that no calendar has: what the exchange sends is kept as it comes, and others
write into Redis, too.
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = 253_370_764_799_999_999  # of the year 9998: what is a month ahead is on the calendar, too


def moment(us: int) -> datetime | None:
    """In UTC, exact; None: no calendar has it."""
    return EPOCH + timedelta(microseconds=us) if 0 <= us <= LAST_US else None
