"""The kit's pure decisions: fair shares, moves, read sizes, retry delays and portions."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from consumers.kit.policy import (
    BATCHES_AT_ONCE,
    batch_size,
    block_ms,
    chunks,
    fair_share,
    is_due,
    moves,
    next_limit,
    portions,
    retry_delay_s,
    shares,
)

names = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8)


@given(st.integers(0, 200), names, st.integers(0, 63))
def test_fair_shares_add_up_to_all_streams_and_differ_by_one_at_most(
    streams: int, alive: set[str], turn: int
) -> None:
    shares = [fair_share(streams, alive, worker, turn) for worker in alive]
    assert sum(shares) == streams
    assert max(shares) - min(shares) <= 1


@given(st.integers(0, 7), st.integers(1, 8))
def test_remainders_of_several_shards_are_spread_evenly_over_workers(
    left_over: int, workers: int
) -> None:
    alive = [f"w{number}" for number in range(workers)]
    owned = [
        sum(fair_share(left_over, alive, worker, turn) for turn in range(workers))
        for worker in alive
    ]
    assert owned == [left_over] * workers


def test_fair_share_counts_a_worker_that_is_not_in_the_list_yet() -> None:
    assert fair_share(10, ["a"], "b") == 5


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.sets(st.integers(0, 12))))
def test_shares_of_workers_that_want_different_streams_give_each_stream_one_owner(
    wanted: dict[str, set[int]],
) -> None:
    by_worker = {one: {f"s{n}" for n in some} for one, some in wanted.items()}
    owned: Counter[frozenset[str]] = Counter()
    parts: set[frozenset[str]] = set()
    for worker, streams in by_worker.items():
        for part, share in shares(sorted(streams), by_worker, worker):
            owned[frozenset(part)] += share
            parts.add(frozenset(part))
    assert set().union(*parts) == set().union(*by_worker.values())
    assert all(owned[part] == len(part) for part in parts)


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.integers(0, 31))
def test_moves_end_at_the_share(assigned: set[int], chosen: set[int], share: int) -> None:
    mine, expected = [f"s{n}" for n in assigned], [f"s{n}" for n in chosen]
    plan = moves(mine, expected, share, Random(1))
    kept = set(mine) - set(plan.release)
    assert kept <= set(expected)
    assert len(kept) <= share
    assert len(kept) + plan.room == share
    assert set(plan.take) == (set(expected) - set(mine) if plan.room else set())


def test_moves_release_no_stream_that_may_be_kept() -> None:
    assert moves(["a", "b"], ["a", "b", "c"], 2, Random(1)).release == ()


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_one_read_is_bounded_and_every_stream_gets_something(streams: int, largest: int) -> None:
    count = batch_size(streams, largest)
    assert min(10, largest) <= count <= largest
    assert count * streams <= max(BATCHES_AT_ONCE * largest, 10 * streams)


def test_next_limit_of_a_slow_handler_is_a_seconds_worth() -> None:
    assert next_limit(500, most=500, took_s=5.0) == 100
    assert next_limit(500, most=3, took_s=60.0) == 1
    assert next_limit(500, most=100, took_s=0.5) == 200
    assert next_limit(500, most=400, took_s=0.0) == 500


def test_next_limit_is_the_same_for_a_short_and_a_full_portion() -> None:
    assert next_limit(500, most=1, took_s=0.02) == 50


def test_an_entry_is_due_when_its_pause_is_over() -> None:
    assert [is_due(1, idle_ms) for idle_ms in (0, 249, 250)] == [False, False, True]
    assert [is_due(5, idle_ms) for idle_ms in (3999, 4000)] == [False, True]


def test_no_call_carries_more_than_a_hundred_streams() -> None:
    assert [len(part) for part in chunks(range(250))] == [100, 100, 50]


@given(st.integers(0, 10_000))
def test_block_ms_is_short_and_never_zero(portions: int) -> None:
    assert 1 <= block_ms(portions) <= 200


def test_retry_delays_grow_to_half_a_minute() -> None:
    assert [retry_delay_s(n) for n in (1, 2, 3, 8, 9, 100)] == [0.25, 0.5, 1, 30, 30, 30]


def test_portions_put_a_hot_stream_first_and_alone_beside_many_streams() -> None:
    streams = [f"s{n}" for n in range(250)]
    first, *others = portions(streams, {"s240"}, 500)
    assert first == ["s240"]
    assert [len(one) for one in others] == [100, 100, 49]
    assert portions(streams[:3], {"s1"}, 500) == [["s0", "s1", "s2"]]


@given(st.integers(0, 250), st.sets(st.integers(0, 260)), st.integers(1, 1000))
def test_portions_have_each_stream_once(count: int, hot: set[int], largest: int) -> None:
    streams = list(range(count))
    found = [stream for portion in portions(streams, hot, largest) for stream in portion]
    assert sorted(found) == streams
