"""What a Retry-After header asks for (pure but for "now", which a date is compared with)."""

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(value: str) -> float | None:
    """Seconds, or a date; None where it says nothing that can be used."""
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    with suppress(ValueError):
        until = parsedate_to_datetime(value)
        if until.tzinfo is not None:
            return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return None
