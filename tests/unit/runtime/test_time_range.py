"""The notations for a position in a stream, and their entry IDs."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bridge.errors import ConfigError
from bridge.runtime.time_range import point, span

NOW = datetime(2026, 9, 2, 16, 44, tzinfo=UTC)
NOW_US = 1_788_367_440_000_000


@pytest.mark.parametrize(
    ("bound", "entry_id"),
    [
        ("beginning", "0-0"),
        ("new", "1788367440000-0"),
        ("now", "1788367440000-0"),
        ("1788368290062-67120540310", "1788368290062-67120540310"),
        ("1788368290062", "1788368290062-0"),
        ("0", "0-0"),
        ("2026-09-02T16:44:00", "1788367440000-0"),
        ("2026-09-02T18:44:00.250+02:00", "1788367440250-0"),
        ("2026-09-02", "1788307200000-0"),
        ("20260902", "1788307200000-0"),
        ("1788367440", "1788367440000-0"),
        ("1788367440000123", "1788367440000-0"),
        ("2h", "1788360240000-0"),
        ("90s", "1788367350000-0"),
        ("999999d", "0-0"),
        (NOW, "1788367440000-0"),
        (NOW.astimezone(timezone(timedelta(hours=9))), "1788367440000-0"),
        (timedelta(minutes=1), "1788367380000-0"),
        ("1960-01-01", "0-0"),
    ],
)
def test_point_reads_a_keyword_an_id_a_time_or_an_age(
    bound: str | datetime | timedelta, entry_id: str
) -> None:
    assert point(bound, NOW).id == entry_id


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("beginning", 0),
        ("new", NOW_US),
        ("2026-09-02T16:44:00.000001Z", NOW_US + 1),
        ("1788367440000123", NOW_US + 123),
        ("1788367440000-671200", NOW_US),
        ("1m", NOW_US - 60_000_000),
    ],
)
def test_point_has_the_time_to_the_microsecond(text: str, us: int) -> None:
    assert point(text, NOW).us == us


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("new", "$"),
        ("now", "$"),
        ("beginning", "0-0"),
        ("0-0", "0-0"),
        ("5-3", "5-2"),
        ("5-0", "4-18446744073709551615"),
        ("5", "4-18446744073709551615"),
        ("2026-09-02T16:44", "1788367439999-18446744073709551615"),
        ("2h", "1788360239999-18446744073709551615"),
    ],
)
def test_after_a_point_redis_reads_the_entry_of_that_place_first(text: str, after: str) -> None:
    assert point(text, NOW).after == after


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "end", "5-x", "-1", "1-2-3", "12:30", "2y", "1e9", "²", "٣" * 10, "17954064"],
)
def test_point_refuses_other_texts_with_the_valid_forms(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--at '.*': write beginning, new, a time such as 2026"):
        point(text, NOW, "--at")


@pytest.mark.parametrize("text", ["1788368290062-", "5-18446744073709551616", "1" * 21])
def test_point_refuses_ids_that_no_entry_can_have(text: str) -> None:
    with pytest.raises(ConfigError, match="an entry ID such as"):
        point(text, NOW)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (datetime(2026, 9, 2), "has no zone"),  # noqa: DTZ001 - that is the point
        (timedelta(hours=-1), "lies ahead"),
    ],
)
def test_point_refuses_implausible_times(bound: datetime | timedelta, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        point(bound, NOW)


def test_span_that_ends_where_it_begins_or_before_is_refused() -> None:
    for since, until in (("2026-11-24", "2026-11-23"), ("1h", "2h"), ("5-3", "5-3")):
        with pytest.raises(ConfigError, match=f"--from {since} is not before --to {until}"):
            span(since, until, NOW)
    assert span(None, None, NOW) == (None, None)
    assert span("5-3", "5-4", NOW)[1] == point("5-4", NOW)
