"""The fields of a worker's status."""

import json

from consumers.kit.stats import Identity, Stats

WHO = Identity(
    "candles", "host-1", "ordered", 42, "host", started_us=1_000_000, patterns=("trade.*",)
)


def test_stats_report_identity_counts_rate_and_latency() -> None:
    now = [2_000_000]
    stats = Stats(lambda: now[0])
    assert json.loads(stats.report(WHO, ""))["rate"] == 0.0
    for received_us in (1_990_000, 1_995_000, 1_999_000, None):
        stats.received(received_us)
    stats.done("trade.SOL_USDC", 4, "5-0")
    now[0] = 4_000_000
    assert json.loads(stats.report(WHO, "SOL_USDC 98.96/98.97")) == {
        "group": "candles",
        "consumer": "host-1",
        "pid": 42,
        "host": "host",
        "mode": "ordered",
        "patterns": ["trade.*"],
        "started_us": 1_000_000,
        "updated_us": 4_000_000,
        "handled": 4,
        "failed": 0,
        "retried": 0,
        "dead": 0,
        "missed": 0,
        "late": 0,
        "undecodable": 0,
        "streams": {"trade.SOL_USDC": {"handled": 4, "last_id": "5-0"}},
        "latency_ms": {"p50": 5.0, "p99": 10.0},
        "latencies": {"counts": [1, 0, 1, 1, *[0] * 11], "sum_us": 16_000},
        "rate": 2.0,
        "made": "SOL_USDC 98.96/98.97",
    }


def test_stats_count_the_latency_of_each_entry_of_a_large_batch() -> None:
    stats = Stats(lambda: 2_000_000)
    for _ in range(40_000):  # four batches of the largest, which are settled together
        stats.received(1_999_000)
    stats.done("trade.SOL_USDC", 40_000, "5-0")
    assert sum(json.loads(stats.report(WHO, ""))["latencies"]["counts"]) == 40_000


def test_stats_report_no_latency_before_the_first_entry() -> None:
    report = json.loads(Stats(lambda: 1).report(WHO, ""))
    assert report["latency_ms"] == {"p50": None, "p99": None}


def test_stats_count_undecodable_entries_apart_from_handled_ones() -> None:
    stats = Stats(lambda: 1)
    stats.done("trade.SOL_USDC", 5, "5-0", undecodable=2)
    report = json.loads(stats.report(WHO, ""))
    assert (report["handled"], report["undecodable"]) == (3, 2)
    assert report["streams"] == {"trade.SOL_USDC": {"handled": 3, "last_id": "5-0"}}


def test_stats_leave_out_a_stream_that_another_worker_has() -> None:
    stats = Stats(lambda: 1)
    stats.done("trade.SOL_USDC", 1, "5-0")
    stats.forget("trade.SOL_USDC")
    report = json.loads(stats.report(WHO, ""))
    assert (report["streams"], report["handled"]) == ({}, 1)


def test_stats_report_the_latency_of_the_last_thousand_entries() -> None:
    stats = Stats(lambda: 1_000_000)
    for received_us in (*[0] * 5000, *[999_000] * 1000):
        stats.received(received_us)
    stats.done("trade.SOL_USDC", 6000, "5-0")
    assert json.loads(stats.report(WHO, ""))["latency_ms"] == {"p50": 1.0, "p99": 1.0}


def test_entries_received_before_warm_up_have_no_latency() -> None:
    stats = Stats(lambda: 2_000_000, warm_us=1_500_000)
    for received_us in (1_000_000, 1_499_999, 1_990_000):
        stats.received(received_us)
    stats.done("trade.SOL_USDC", 3, "5-0")
    assert json.loads(stats.report(WHO, ""))["latency_ms"] == {"p50": 10.0, "p99": 10.0}
