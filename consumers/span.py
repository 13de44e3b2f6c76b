"""A stretch of a stream, as people name it: by entry IDs, by times, by how long ago (pure).

Entry IDs begin with the engine's time in ms, so a time is an ID too: the first one of that time.
"""

import re
from datetime import UTC, datetime, timedelta

from bridge.errors import ConfigError

Bound = str | datetime | timedelta | None
"""An entry ID or its ms part, an ISO time (UTC where it names no zone), a datetime with a zone, or
how long ago; None for the stream's own beginning or end."""

_ENTRY_ID = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bound_id(bound: str | datetime | timedelta, now: datetime) -> str:
    """The entry ID that a bound stands for. Raises ConfigError with what to write instead."""
    if isinstance(bound, timedelta):
        if bound < timedelta(0):
            raise ConfigError(f"{bound!r} lies ahead: write how long ago as timedelta(hours=1)")
        return _first_of(now - bound)
    if isinstance(bound, datetime):
        if bound.tzinfo is None:
            raise ConfigError(
                f"{bound!r} has no zone: write datetime(…, tzinfo=UTC), or the time as ISO text"
            )
        return _first_of(bound)
    if _ENTRY_ID.fullmatch(bound):
        return bound if "-" in bound else f"{bound}-0"
    try:
        moment = datetime.fromisoformat(bound)
    except ValueError:
        raise ConfigError(
            f"{bound!r} is neither an entry ID (1788368290062-0) nor a time (2026-09-02T16:44:00)"
        ) from None
    return _first_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _first_of(moment: datetime) -> str:
    return f"{max(0, (moment - _EPOCH) // timedelta(milliseconds=1))}-0"
