"""Moments as calendar dates (pure), from µs since 1970.

An entry may have a time beyond the calendar: the exchange's values are kept unchanged, and other
programs write to Redis, too.
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = 253_370_764_799_999_999  # the end of 9998, so that a month later is still a valid date


def moment(us: int) -> datetime | None:
    """The moment in UTC, exact; None: it is outside the calendar."""
    return EPOCH + timedelta(microseconds=us) if 0 <= us <= LAST_US else None
