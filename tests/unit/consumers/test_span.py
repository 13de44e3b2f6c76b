"""How a bound of a range is named, and which entry ID it stands for."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bridge.errors import ConfigError
from consumers.span import bound_id

NOW = datetime(2026, 9, 2, 16, 44, tzinfo=UTC)


@pytest.mark.parametrize(
    ("bound", "entry_id"),
    [
        ("1788368290062-67120540310", "1788368290062-67120540310"),
        ("1788368290062", "1788368290062-0"),
        ("2026-09-02T16:44:00", "1788367440000-0"),
        ("2026-09-02T18:44:00.250+02:00", "1788367440250-0"),
        ("2026-09-02", "1788307200000-0"),
        (NOW, "1788367440000-0"),
        (NOW.astimezone(timezone(timedelta(hours=9))), "1788367440000-0"),
        (timedelta(minutes=1), "1788367380000-0"),
        ("1960-01-01", "0-0"),
    ],
)
def test_a_bound_is_an_id_a_time_or_how_long_ago(
    bound: str | datetime | timedelta, entry_id: str
) -> None:
    assert bound_id(bound, NOW) == entry_id


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ("yesterday", "'yesterday' is neither an entry ID"),
        ("1788368290062-", "is neither an entry ID"),
        (datetime(2026, 9, 2), "has no zone"),  # noqa: DTZ001 - that is the point
        (timedelta(hours=-1), "lies ahead"),
    ],
)
def test_what_is_no_bound_is_refused_with_what_to_write(
    bound: str | datetime | timedelta, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        bound_id(bound, NOW)
