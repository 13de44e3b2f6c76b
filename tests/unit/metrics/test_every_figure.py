"""Each number of a bridge's status is in the series named after it, in the series' unit."""

from typing import Any

from bridge.metrics.bridge_metrics import families
from bridge.view.facts import BridgeStatus

STATUS: dict[str, Any] = {
    "instance": "a", "version": "1.2.3", "contract": 9, "started_us": 11_500_000,
    "updated_us": 12_000_000, "frames": 101, "quarantined": 102, "unknown_fields": 103,
    "unwanted": 104, "unknown_events": {"x": 5, "y": 100}, "pending": 106, "pending_bytes": 107,
    "buffer_bytes": 108, "acknowledged_us": 13_500_000, "journal_bytes": 109,
    "journal_max_bytes": 110, "behind_bytes": 111, "checkpoint_us": 14_500_000,
    "clock_offset_us": -250_000, "peers": ["b", "c"], "rank": 1, "open_outages": ["t", "u", "v"],
    "outbox": {"batches": 112, "disconnects": 113, "refusals": 114, "stream_refusals": 115},
    "connections": [
        {
            "name": "public-1", "connected": True, "attempts": 116, "received_us": 15_500_000,
            "wanted": 20, "confirmed": 17, "pending": ["p", "q"], "refused": {"r": "no"},
            "stale": {"s": "?", "t": "?", "u": "?"},
        },
        {"name": "private", "attempts": 118, "wanted": 4, "confirmed": 2},
    ],
    "stream_troubles": {"trade.A_B": "x", "ticker.A_B": "x", "depth.A_B": "x", "kline.1m.A_B": "x"},
    "streams": {
        "trade.A_B": {
            "received": 1, "published": 2, "duplicates": 3, "repeated": 4, "late": 5,
            "overflowed": 6, "gaps": 7, "recovered": 8, "snapshots": 9, "misplaced_snapshots": 10,
            "sparse": True, "event_us": 16_500_000,
        },
        "depth.C_D": {"suspended": "WRONGTYPE", "pending": 3, "sparse": True},
    },
}  # fmt: skip
FIGURES: dict[str, float | dict[Any, float]] = {
    "build_info": {("1.2.3", "9"): 1},
    "start_timestamp_seconds": 11.5,
    "frames_total": 101,
    "quarantined_total": 102,
    "unknown_fields_total": 103,
    "unknown_events_total": 105,
    "unwanted_total": 104,
    "connection_up": {("public-1",): 1, ("private",): 0},
    "connection_attempts_total": {("public-1",): 116, ("private",): 118},
    "last_frame_timestamp_seconds": {("public-1",): 15.5},
    "streams": {
        ("wanted",): 24, ("confirmed",): 19, ("pending",): 2, ("refused",): 1, ("stale",): 3,
        ("not_received",): 4, ("suspended",): 1, ("sparse",): 2,
    },
    "stream_trouble": {
        ("depth.A_B",): 1, ("depth.C_D",): 1, ("kline.1m.A_B",): 1, ("ticker.A_B",): 1,
        ("trade.A_B",): 1,
    },
    "stream_pending_entries": {("depth.C_D",): 3},
    "last_event_timestamp_seconds": {("trade",): 16.5},
    "gaps_total": {("trade",): 7, ("depth",): 0},
    "recovered_total": {("trade",): 8, ("depth",): 0},
    "snapshots_total": {("trade",): 9, ("depth",): 0},
    "misplaced_snapshots_total": {("trade",): 10, ("depth",): 0},
    "pending_entries": 106,
    "pending_bytes": 107,
    "buffer_bytes": 108,
    "redis_up": 1,
    "redis_acknowledged_timestamp_seconds": 13.5,
    "batches_total": 112,
    "redis_errors_total": {("disconnects",): 113, ("refusals",): 114, ("stream_refusals",): 115},
    "journal_up": 1,
    "journal_bytes": 109,
    "journal_max_bytes": 110,
    "journal_behind_bytes": 111,
    "journal_checkpoint_timestamp_seconds": 14.5,
    "clock_offset_seconds": -0.25,
    "peers": 2,
    "rank": 1,
    "open_outages": 3,
}  # fmt: skip
LABELS = {
    "build_info": ("version", "contract"), "unhealthy": ("reason",),
    "connection_up": ("connection",), "connection_attempts_total": ("connection",),
    "connections_ended_total": ("cause",), "last_frame_timestamp_seconds": ("connection",),
    "entries_total": ("type", "result"), "gaps_total": ("type",), "gaps_by_cause_total": ("cause",),
    "recovered_total": ("type",), "snapshots_total": ("type",),
    "misplaced_snapshots_total": ("type",), "streams": ("state",),
    "last_event_timestamp_seconds": ("type",), "stream_trouble": ("stream",),
    "stream_pending_entries": ("stream",), "redis_shard_up": ("shard",),
    "redis_errors_total": ("kind",), "latency_seconds": ("stage", "type"),
    "rest_requests_total": ("result",),
}  # fmt: skip


def values_of(**given: Any) -> dict[str, Any]:
    """The metrics of a status: name → value, or label values → value."""
    found = families(BridgeStatus.model_validate(STATUS | given), per_stream=False)
    return {each.metric.name: each.values.get((), dict(each.values)) for each in found}


def test_each_figure_is_in_the_series_of_its_name_and_in_its_unit() -> None:
    found = values_of()

    assert {name: found[name] for name in FIGURES} == FIGURES
    results = ("received", "published", "duplicates", "repeated", "late", "overflowed")
    assert [found["entries_total"]["trade", result] for result in results] == [1, 2, 3, 4, 5, 6]


def test_labels_have_the_names_that_expressions_of_users_have() -> None:
    found = families(BridgeStatus.model_validate(STATUS), per_stream=False)

    assert {each.metric.name: each.metric.labels for each in found if each.metric.labels} == LABELS


def test_a_journal_that_cannot_be_written_is_down_and_one_that_is_not_there_is_not_reported() -> (
    None
):
    assert values_of(journal_trouble="No space left")["journal_up"] == 0
    assert "journal_up" not in values_of(journal_max_bytes=0, journal_trouble="")
