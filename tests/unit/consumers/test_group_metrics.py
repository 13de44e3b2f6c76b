"""The exporter's metrics for one snapshot of Redis, from literal groups."""

import json
from typing import Any

from consumers.exporter.group_metrics import CATALOGUE, HandledSums, Snapshot, families
from consumers.kit.lag import GroupLag, StreamLag, Took, Worker
from consumers.kit.stats import Identity, Stats


def stream(name: str, **given: Any) -> StreamLag:
    whole: dict[str, Any] = {
        "stream": name, "position": "1-0", "lag": 0, "precision": "exact", "behind_s": 0.0,
        "pending": 0, "oldest_pending_s": 0.0, "owner": "", "dead": 0, "missed": 0,
        "blocked_at": "",
    }  # fmt: skip
    return StreamLag(**whole | given)


def worker(name: str, silent_s: float, rate: float) -> Worker:
    return Worker(name, silent_s, 0, 0, 0, 0, 0, rate, 0)


GROUPS = (
    GroupLag(
        "candles",
        "ordered",
        (
            stream("trade.A_B", lag=3, behind_s=1.5, owner="w1", dead=1, missed=4),
            stream("trade.C_D", lag=4, behind_s=0.5, blocked_at="7-0"),
            stream("trade.E_F", owner="w1"),
        ),
        (worker("w1", 0.1, 20.0), worker("w2", 60.0, 5.0)),
    ),
    GroupLag("others", "", (stream("trade.A_B", pending=2, oldest_pending_s=9.0),)),
)


def took(*latencies_us: int) -> Took:
    """A worker's latency counts for entries that took so many µs."""
    stats = Stats(lambda: 10**9)
    for us in latencies_us:
        stats.received(10**9 - us)
    stats.done("trade.A_B", len(latencies_us), "1-0")
    reported = json.loads(stats.report(Identity("g", "w", "shared", 1, "h", 1), ""))["latencies"]
    return Took(reported["counts"], reported["sum_us"])


def of(*workers: tuple[str, int, Took]) -> list[GroupLag]:
    """A snapshot with workers of one group, each given as name, start time and latencies."""
    return [GroupLag("g", "shared", (), [
        Worker(name, 0, 0, 0, 0, 0, 0, 0, 0, started_us, counted)
        for name, started_us, counted in workers
    ])]  # fmt: skip


def series_of(snapshot: Snapshot | None, per_stream: bool = False) -> dict[str, dict[Any, Any]]:
    found = families(snapshot, per_stream=per_stream)
    return {each.metric.name: dict(each.values) for each in found}


def test_catalogue_has_every_family_once() -> None:
    whole = series_of(Snapshot(GROUPS, {"a": 1}, 1, 2, {"g": took(0)}, {0: True}), per_stream=True)
    names = [each.name for each in CATALOGUE]

    assert len(set(names)) == len(names)
    assert set(whole) == set(names)


def test_lag_is_added_and_age_is_the_greatest_of_a_groups_streams() -> None:
    found = series_of(Snapshot(GROUPS))

    assert found["group_lag_entries"] == {("candles",): 7, ("others",): 0}
    assert found["group_behind_seconds"] == {("candles",): 1.5, ("others",): 0}
    assert found["group_pending_entries"] == {("candles",): 0, ("others",): 2}
    assert found["group_oldest_pending_seconds"] == {("candles",): 0, ("others",): 9}
    assert found["group_dead_letters"] == {("candles",): 1}
    assert found["group_missed_total"] == {("candles",): 4}


def test_a_worker_that_is_silent_counts_neither_as_alive_nor_with_its_rate() -> None:
    found = series_of(Snapshot(GROUPS))

    assert found["group_workers"] == {("candles",): 1}, "groups of other programs are left out"
    assert found["group_handled_per_second"] == {("candles",): 20.0}


def test_streams_of_an_ordered_group_are_counted_by_owner_and_named_where_blocked() -> None:
    found = series_of(Snapshot(GROUPS))

    assert found["group_streams"] == {("candles", "owned"): 2, ("candles", "unowned"): 1}
    assert found["group_blocked"] == {("candles", "trade.C_D"): 1}
    assert "group_stream_lag_entries" not in found
    by_stream = series_of(Snapshot(GROUPS), per_stream=True)["group_stream_lag_entries"]
    assert by_stream["candles", "trade.A_B"] == 3


def test_without_redis_there_is_one_series_that_reports_it() -> None:
    assert series_of(None) == {"exporter_redis_up": {(): 0}}


def test_a_limit_of_memory_appears_only_where_one_is_set() -> None:
    assert "redis_memory_max_bytes" not in series_of(Snapshot(memory_used=5))
    assert series_of(Snapshot(memory_used=5, memory_max=9))["redis_memory_max_bytes"] == {(): 9}


def test_latencies_of_a_group_are_summed_over_new_ended_and_restarted_workers() -> None:
    sums = HandledSums()
    assert sum(sums.take(of(("a", 1, took(500, 500))))["g"].counts) == 0  # the baseline
    sums.take(of(("a", 1, took(500, 500, 3_000)), ("b", 2, took(4_000))))
    sums.take(of(("b", 2, took(4_000))))
    found = sums.take(of(("a", 9, took(600)), ("b", 2, took(4_000, 99_000_000))))["g"]
    assert (found.counts[0], found.counts[2], found.counts[-1]) == (1, 2, 1)
    assert found.sum_us == 3_000 + 4_000 + 600 + 99_000_000


def test_handled_sums_neither_fall_nor_count_again_what_was_not_to_be_seen_for_a_moment() -> None:
    sums = HandledSums()
    sums.take(of(("a", 1, took())))
    seen = [
        sum(sums.take(of(*statuses))["g"].counts)
        for statuses in (
            [("a", 1, took(500, 500))],
            [],  # Redis was emptied, and the worker has not written its status yet
            [("a", 1, took(500, 500))],
            [("a", 1, took(500))],  # of a replica that lags
            [("a", 1, took(500, 500, 500))],
        )
    ]
    assert seen == [2, 2, 2, 2, 3]
