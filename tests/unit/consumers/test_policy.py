"""Decisions of the kit, where a law can be stated."""

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError
from consumers.policy import (
    BATCHES_AT_ONCE,
    batch_size,
    block_ms,
    chunks,
    fair_share,
    is_due,
    moves,
    next_limit,
    retry_delay_s,
    start_of,
    start_position,
)

names = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8)


@given(st.integers(0, 200), names)
def test_shares_add_up_to_all_streams_and_differ_by_one_at_most(
    streams: int, alive: set[str]
) -> None:
    shares = [fair_share(streams, alive, worker) for worker in alive]
    assert sum(shares) == streams
    assert max(shares) - min(shares) <= 1


def test_a_worker_that_nobody_has_seen_yet_counts_itself() -> None:
    assert fair_share(10, ["a"], "b") == 5


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.integers(0, 31))
def test_moves_end_at_the_share(owned: set[int], chosen: set[int], share: int) -> None:
    mine, wanted = [f"s{n}" for n in owned], [f"s{n}" for n in chosen]
    plan = moves(mine, wanted, share, Random(1))
    kept = set(mine) - set(plan.release)
    assert kept <= set(wanted)
    assert len(kept) <= share
    assert len(kept) + plan.room == share
    assert set(plan.take) == (set(wanted) - set(mine) if plan.room else set())


def test_nothing_is_released_that_may_be_kept() -> None:
    assert moves(["a", "b"], ["a", "b", "c"], 2, Random(1)).release == ()


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_one_read_is_bounded_and_every_stream_gets_something(streams: int, largest: int) -> None:
    count = batch_size(streams, largest)
    assert min(10, largest) <= count <= largest
    assert count * streams <= max(BATCHES_AT_ONCE * largest, 10 * streams)


def test_a_slow_handler_takes_a_seconds_worth() -> None:
    assert next_limit(500, most=500, took_s=5.0) == 100
    assert next_limit(500, most=3, took_s=60.0) == 1
    assert next_limit(500, most=100, took_s=0.5) == 200
    assert next_limit(500, most=400, took_s=0.0) == 500


def test_a_short_portion_tells_as_much_of_a_slow_handler_as_a_full_one() -> None:
    assert next_limit(500, most=1, took_s=0.02) == 50


def test_an_entry_is_due_when_its_pause_is_over() -> None:
    assert [is_due(1, idle_ms) for idle_ms in (0, 249, 250)] == [False, False, True]
    assert [is_due(5, idle_ms) for idle_ms in (3999, 4000)] == [False, True]


def test_no_call_carries_more_than_a_hundred_streams() -> None:
    assert [len(part) for part in chunks(range(250))] == [100, 100, 50]


@given(st.integers(0, 10_000))
def test_a_read_blocks_shortly_and_never_for_ever(portions: int) -> None:
    assert 1 <= block_ms(portions) <= 200


def test_delays_grow_to_half_a_minute() -> None:
    assert [retry_delay_s(n) for n in (1, 2, 3, 8, 9, 100)] == [0.25, 0.5, 1, 30, 30, 30]


@pytest.mark.parametrize(
    ("text", "position"),
    [("beginning", "0-0"), ("new", "$"), ("1788-5", "1788-5"), ("1788", "1788-0")],
)
def test_where_to_begin(text: str, position: str) -> None:
    assert start_position(text, NOW) == position


NOW = datetime(2026, 9, 2, 16, 44, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("2026-09-02T16:44", "1788367439999-18446744073709551615"),
        ("2026-09-02T18:44+02:00", "1788367439999-18446744073709551615"),
        ("2h", "1788360239999-18446744073709551615"),
        ("90s", "1788367349999-18446744073709551615"),
    ],
)
def test_a_time_begins_with_what_is_of_that_time(text: str, position: str) -> None:
    assert start_position(text, NOW) == position


@pytest.mark.parametrize("text", ["end", "", "1-2-3", "-1", "12:30", "2y", "yesterday"])
def test_where_not_to_begin(text: str) -> None:
    with pytest.raises(ConfigError, match="write beginning, new, a time"):
        start_position(text, NOW)


def test_all_of_a_stream_that_appears_later_is_new() -> None:
    assert start_of("$", found_later=False) == "$"
    assert start_of("$", found_later=True) == "0-0"
    assert start_of("5-0", found_later=True) == "5-0"
