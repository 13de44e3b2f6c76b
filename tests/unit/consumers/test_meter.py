"""What a worker's status says."""

import json

from consumers.meter import Identity, Meter

WHO = Identity("candles", "host-1", "ordered", 42, "host", started_us=1_000_000)


def test_the_status_says_who_how_much_how_fast_and_how_late() -> None:
    now = [2_000_000]
    meter = Meter(lambda: now[0])
    assert json.loads(meter.report(WHO, ""))["rate"] == 0.0
    for received_us in (1_990_000, 1_995_000, 1_999_000, None):
        meter.heard(received_us)
    meter.done("trade.SOL_USDC", 4, "5-0")
    now[0] = 4_000_000
    assert json.loads(meter.report(WHO, "SOL_USDC 98.96/98.97")) == {
        "group": "candles",
        "consumer": "host-1",
        "pid": 42,
        "host": "host",
        "mode": "ordered",
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
        "rate": 2.0,
        "made": "SOL_USDC 98.96/98.97",
    }


def test_before_the_first_entry_there_is_no_latency() -> None:
    report = json.loads(Meter(lambda: 1).report(WHO, ""))
    assert report["latency_ms"] == {"p50": None, "p99": None}


def test_a_stream_that_went_to_another_worker_is_not_told_of() -> None:
    meter = Meter(lambda: 1)
    meter.done("trade.SOL_USDC", 1, "5-0")
    meter.forget("trade.SOL_USDC")
    report = json.loads(meter.report(WHO, ""))
    assert (report["streams"], report["handled"]) == ({}, 1)


def test_latency_is_of_the_last_thousand() -> None:
    meter = Meter(lambda: 1_000_000)
    for received_us in (*[0] * 5000, *[999_000] * 1000):
        meter.heard(received_us)
    meter.done("trade.SOL_USDC", 6000, "5-0")
    assert json.loads(meter.report(WHO, ""))["latency_ms"] == {"p50": 1.0, "p99": 1.0}
