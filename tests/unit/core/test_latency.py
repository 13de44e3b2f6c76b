"""Latency buckets by stage and type, which count only entries received and appended."""

from bridge.core.buckets import MOST_UNCOUNTED
from bridge.core.entries import Entry, Op, Slot
from bridge.core.latency import BOUNDS_US, Latencies

RECEIVED_US = 1_700_000_000_000_000


def slot(engine_us: int, at_us: int, connection: int = 1) -> Slot:
    entry = Entry(
        Op.CONTENT, ("type",), ["ticker"], 1, 0, 0, RECEIVED_US, connection=connection,
        engine_us=engine_us,
    )  # fmt: skip
    return Slot(entry, position=0, at_us=at_us, size=1)


def counted(latencies: Latencies, stage: str) -> dict[int, int]:
    """The counts of tickers by upper bound in µs (0: above all bounds), without zeros."""
    bounds = (*BOUNDS_US, 0)
    found = latencies.as_dict()[stage].get("ticker", {"counts": ()})["counts"]
    return {bound: count for bound, count in zip(bounds, found, strict=False) if count}


def test_written_entry_counts_in_both_stages_under_its_bound() -> None:
    latencies = Latencies()

    latencies.written("ticker", [slot(RECEIVED_US - 3_000, at_us=100)], "+", now_us=1_100)

    assert counted(latencies, "engine_to_received") == {5_000: 1}
    assert counted(latencies, "received_to_written") == {1_000: 1}
    counts = latencies.as_dict()
    assert counts["engine_to_received"]["ticker"]["sum_us"] == 3_000
    assert counts["received_to_written"]["ticker"]["sum_us"] == 1_000


def test_entries_that_redis_did_not_append_or_that_were_not_received_do_not_count() -> None:
    latencies = Latencies()
    engine = RECEIVED_US - 3_000
    slots = [slot(engine, 0), slot(engine, 0, connection=0), slot(engine, 0), slot(engine, 0)]

    latencies.written("ticker", slots, "=++", now_us=1)  # the fourth is not settled

    assert counted(latencies, "engine_to_received") == {5_000: 1}
    assert counted(latencies, "received_to_written") == {1_000: 1}


def test_message_without_an_engine_time_counts_as_written_only() -> None:
    latencies = Latencies()

    latencies.written("ticker", [slot(0, 0)], "+", now_us=40_000_000)

    assert latencies.as_dict()["engine_to_received"] == {}
    assert counted(latencies, "received_to_written") == {0: 1}


def test_engine_clock_ahead_of_ours_counts_as_no_time() -> None:
    latencies = Latencies()

    latencies.written("ticker", [slot(RECEIVED_US + 5_000, 0)], "+", now_us=0)

    assert counted(latencies, "engine_to_received") == {BOUNDS_US[0]: 1}
    assert latencies.as_dict()["engine_to_received"]["ticker"]["sum_us"] == 0


def test_times_count_the_same_in_one_batch_or_many() -> None:
    times_us = [number * number * 7 for number in range(MOST_UNCOUNTED + 1_500)]
    times_us += [*BOUNDS_US, *(bound + 1 for bound in BOUNDS_US)]
    at_once, singly = Latencies(), Latencies()

    slots = [slot(RECEIVED_US - us, -us) for us in times_us]
    at_once.written("ticker", slots, "+" * len(slots), now_us=0)
    for each in slots:
        singly.written("ticker", [each], "+", now_us=0)

    assert at_once.as_dict() == singly.as_dict() == Latencies.total([singly]).as_dict()
    for stage in ("engine_to_received", "received_to_written"):
        counts = at_once.as_dict()[stage]["ticker"]
        expected = [0] * (len(BOUNDS_US) + 1)
        for us in times_us:
            expected[sum(bound < us for bound in BOUNDS_US)] += 1
        assert counts == {"counts": expected, "sum_us": sum(times_us)}
