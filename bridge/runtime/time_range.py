"""Places in a stream as people write them: one grammar for all commands and for `read` (pure).

    beginning               the first entry of the stream or the journal
    new                     now: no existing entry
    2026-09-02T16:44        a time, UTC where it names no zone; also a date, or a number of seconds,
                            ms or µs since 1970 (10, 13 or 16 digits)
    2h                      how long ago: s, m, h, d
    1788368290062-671200    an entry ID; without the dash, the first ID of that ms

Entry IDs begin with the engine's time in ms, so a time is an ID too: the first one of that time. A
range includes its start and excludes its end.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from bridge.contract.identity import EntryId
from bridge.errors import ConfigError

Bound = str | datetime | timedelta | None
"""Text as above, a datetime with a zone, or a timedelta back from now; None for the stream's own
beginning or end."""

BEGINNING = "0-0"
NEW = "$"
HELP = "beginning, new, a time (UTC), how long ago (2h), or an entry ID"
_SEQ_MAX = 2**64 - 1
_ID_MAX = 2**64 - 1
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_US_BY_DIGITS = {10: 1_000_000, 16: 1}  # for seconds and µs; other numbers are ms, as in an ID
_DATE_DIGITS = 8  # 20260902 is a date, not an ID
_NUMBER = re.compile(r"[0-9]{1,20}")
_ENTRY_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Point(NamedTuple):
    """A place in a stream. `us`: its time, µs since 1970; `first`: its first entry ID."""

    us: int
    first: EntryId
    is_new: bool = False

    @property
    def id(self) -> str:
        """The ID of the range's start, as Redis writes it."""
        return str(self.first)

    @property
    def after(self) -> str:
        """The ID after which Redis reads to return this place's entry first; `$` for new."""
        if self.is_new:
            return NEW
        ms, seq = self.first
        if seq:
            return f"{ms}-{seq - 1}"
        return f"{ms - 1}-{_SEQ_MAX}" if ms else BEGINNING


def point(bound: str | datetime | timedelta, now: datetime, option: str = "") -> Point:
    """The place that a bound means. Raises ConfigError with the valid forms; `option` names the
    command's option.
    """
    if isinstance(bound, timedelta):
        if bound < timedelta(0):
            raise ConfigError(f"{bound!r} lies ahead: write how long ago as timedelta(hours=1)")
        return _before(now, bound)
    if isinstance(bound, datetime):
        if bound.tzinfo is None:
            raise ConfigError(
                f"{bound!r} has no zone: write datetime(…, tzinfo=UTC), or the time as ISO text"
            )
        return _at(bound)
    for read in _READERS:
        found = read(bound, now)
        if found is not None:
            return found
    raise ConfigError(
        f"{option} {bound!r}: write beginning, new, a time such as 2026-09-02T16:44 (UTC), how "
        "long ago (2h), or an entry ID such as 1788368290062-0".lstrip()
    )


def span(since: str | None, until: str | None, now: datetime) -> tuple[Point | None, Point | None]:
    """The places of `--from` and `--to`, each None where not given. Raises ConfigError."""
    first = None if since is None else point(since, now, "--from")
    last = None if until is None else point(until, now, "--to")
    if first is not None and last is not None and last.first <= first.first and last.us <= first.us:
        raise ConfigError(f"--from {since} is not before --to {until}")
    return first, last


def _word(text: str, now: datetime) -> Point | None:
    if text == "beginning":
        return Point(0, EntryId(0, 0))
    if text in ("new", "now"):
        return _at(now)._replace(is_new=True)
    return None


def _entry_id(text: str, _: datetime) -> Point | None:
    if (found := _ENTRY_ID.fullmatch(text)) is None:
        return None
    return _of_id(EntryId(int(found[1]), int(found[2])))


def _number(text: str, _: datetime) -> Point | None:
    if not _NUMBER.fullmatch(text) or len(text) == _DATE_DIGITS:
        return None
    if len(text) in _US_BY_DIGITS:
        return _at_us(int(text) * _US_BY_DIGITS[len(text)])
    return _of_id(EntryId(int(text), 0))


def _ago(text: str, now: datetime) -> Point | None:
    found = _AGO.fullmatch(text)
    return _before(now, timedelta(**{_UNITS[found[2]]: int(found[1])})) if found else None


def _iso(text: str, _: datetime) -> Point | None:
    if text.isdecimal() and len(text) != _DATE_DIGITS:
        return None  # no valid number has these digits; some would be read as a date
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return _at(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


_READERS: tuple[Callable[[str, datetime], Point | None], ...] = (
    _word, _entry_id, _number, _ago, _iso,
)  # fmt: skip


def _of_id(first: EntryId) -> Point | None:
    return Point(first.ms * 1000, first) if max(first) <= _ID_MAX else None


def _before(now: datetime, distance: timedelta) -> Point:
    try:
        return _at(now - distance)
    except OverflowError:
        return _at_us(0)


def _at(moment: datetime) -> Point:
    return _at_us((moment - _EPOCH) // timedelta(microseconds=1))


def _at_us(us: int) -> Point:
    us = max(0, us)
    return Point(us, EntryId(us // 1000, 0))
