"""The pages `/metrics` and `/readyz` of a bridge, from literal statuses."""

import json
from dataclasses import fields
from typing import Any

import pytest

from bridge.contract.causes import GapCause
from bridge.contract.latency import BOUNDS_US
from bridge.contract.stream_types import StreamType
from bridge.core.counters import EndCause, StreamCounters
from bridge.core.round_trips import RoundTrips
from bridge.metrics import exposition
from bridge.metrics.bridge_metrics import ALONE, CATALOGUE, OF_ENTRIES, families
from bridge.metrics.bridge_pages import BridgePages
from bridge.metrics.exposition import Histogram
from bridge.view.facts import BridgeStatus
from bridge.view.troubles import Reason

NOW_US = 1_700_000_000_000_000
TYPES = {*(kind.value for kind in StreamType), "bridge"}
WELL: dict[str, Any] = {
    "instance": "a",
    "updated_us": NOW_US,
    "connections": [{"name": "public-1", "connected": True, "wanted": 1, "confirmed": 1}],
}
ILL: dict[Reason, dict[str, Any]] = {
    Reason.EXCHANGE_DISCONNECTED: {"connections": [{"name": "public-1", "trouble": "refused"}]},
    Reason.SUBSCRIBING: {
        "connections": [
            {"name": "public-1", "connected": True, "wanted": 2, "answered": False, "confirmed": 0}
        ]
    },
    Reason.STREAM_NOT_RECEIVED: {"stream_troubles": {"trade.A_B": "stale"}},
    Reason.CLOCK_SKEWED: {"clock_offset_us": -1_500_000},
    Reason.REDIS_UNWRITABLE: {"redis_trouble": "Redis refused: OOM"},
    Reason.SHARD_UNWRITABLE: {
        "redis_trouble": "shard 1 at b:6379: timed out",
        "shards": [
            {"shard": 0, "node": "a:6379"},
            {"shard": 1, "node": "b:6379", "trouble": "out"},
        ],
    },
    Reason.REGISTRY_UNWRITABLE: {"registry_trouble": "bridge:streams: WRONGTYPE"},
    Reason.JOURNAL_BROKEN: {"journal_trouble": "No space left", "journal_max_bytes": 1},
    Reason.CATCHING_UP: {"behind_bytes": 5},
    Reason.BUFFER_FILLING: {"pending_bytes": 51, "buffer_bytes": 100},
    Reason.STREAM_SUSPENDED: {"streams": {"trade.A_B": {"suspended": "WRONGTYPE"}}},
}


def series_of(per_stream: bool = False, **given: Any) -> dict[str, dict[Any, float | Histogram]]:
    """The metrics of a bridge's status: name → label values → value."""
    status = BridgeStatus.model_validate(WELL | given)
    found = families(status, per_stream=per_stream)
    return {each.metric.name: dict(each.values) for each in found}


def test_a_bridge_of_a_fleet_counts_kept_and_unreceived_streams() -> None:
    share = {"members": ["a", "b"], "me": "a", "kept": 3, "unreceived": 5}

    found = series_of(share=share)

    assert found["share_kept_streams"] == {(): 3}
    assert found["share_unreceived_streams"] == {(): 5}
    assert "share_kept_streams" not in series_of()


class Reporting:
    """A bridge with a healthy status, but for the given fields."""

    def __init__(self, **given: Any) -> None:
        self._given = given

    async def status_in_steps(self) -> dict[str, Any]:
        return WELL | self._given


class Mute:
    """A bridge whose status cannot be read."""

    async def status_in_steps(self) -> dict[str, Any]:
        raise AssertionError("liveness must not read the status")


async def test_liveness_depends_on_nothing_but_the_loop() -> None:
    page = await BridgePages(Mute(), per_stream=False).page("/healthz")

    assert (page.status.value, json.loads(page.body)) == (200, {"alive": True})


async def ready(**given: Any) -> tuple[int, Any]:
    page = await BridgePages(Reporting(**given), per_stream=False).page("/readyz")
    return page.status.value, json.loads(page.body)


def test_every_reason_has_an_example_here() -> None:
    assert set(ILL) == set(Reason)


@pytest.mark.parametrize("reason", list(Reason))
async def test_reason_is_one_in_the_metric_and_named_by_readyz_and_no_other_is(
    reason: Reason,
) -> None:
    assert [label for label, value in series_of(**ILL[reason])["unhealthy"].items() if value] == [
        (reason.value,)
    ]
    code, body = await ready(**ILL[reason])
    assert (code, body["ready"]) == (503, False)
    assert [each["reason"] for each in body["reasons"]] == [reason.value]
    assert body["reasons"][0]["text"]


@pytest.mark.parametrize("more", [{"answered": True}, {"confirmed": 1}, {"wanted": 0}])
async def test_connection_is_subscribed_once_it_was_answered_or_brought_something(
    more: dict[str, Any],
) -> None:
    new = {"name": "public-1", "connected": True, "wanted": 2, "answered": False, "confirmed": 0}

    assert (await ready(connections=[new | more]))[0] == 200


async def test_a_lost_connection_is_no_reason_while_its_copy_is_connected() -> None:
    copies = [{"name": "public-1-a", "trouble": "gone"}, {"name": "public-1-b", "connected": True}]

    assert (await ready(connections=copies))[0] == 200
    assert (await ready(connections=copies[:1]))[0] == 503


async def test_bridge_that_is_well_is_ready_and_unhealthy_for_no_reason() -> None:
    assert await ready() == (200, {"ready": True, "reasons": []})
    assert series_of()["unhealthy"] == {(reason.value,): 0.0 for reason in Reason}


@pytest.mark.parametrize(
    ("troubles", "redis_up", "reason"),
    [
        (("", ""), 1.0, None),
        (("", "timed out"), 1.0, "shard_unwritable"),
        (("timed out", ""), 1.0, "shard_unwritable"),
        (("timed out", "timed out"), 0.0, "redis_unwritable"),
    ],
)
def test_of_several_shards_the_one_that_is_unavailable_is_reported_and_redis_is_down_when_all_are(
    troubles: tuple[str, str], redis_up: float, reason: str | None
) -> None:
    shards = [{"shard": n, "node": "a:1", "trouble": one} for n, one in enumerate(troubles)]

    found = series_of(shards=shards, redis_trouble="".join(troubles))

    assert found["redis_shard_up"] == {(str(n),): float(not one) for n, one in enumerate(troubles)}
    assert found["redis_up"] == {(): redis_up}
    assert [label for (label,), value in found["unhealthy"].items() if value] == (
        [reason] if reason else []
    )


async def test_readyz_names_the_shard_and_its_node() -> None:
    _, body = await ready(**ILL[Reason.SHARD_UNWRITABLE])

    words = "shard 1 at b:6379 waits, the other shards continue: out"
    assert body["reasons"] == [{"reason": "shard_unwritable", "text": words}]


async def test_a_password_in_a_trouble_is_masked_in_readyz() -> None:
    _, body = await ready(redis_trouble="redis://bridge:hunter2@host refuses")

    assert "hunter2" not in json.dumps(body)
    assert "***" in body["reasons"][0]["text"]


def test_every_counter_of_streams_is_in_one_metric() -> None:
    assert sorted([*OF_ENTRIES, *ALONE]) == sorted(each.name for each in fields(StreamCounters))


def test_catalogue_has_every_family_once() -> None:
    names = [each.name for each in CATALOGUE]
    whole = series_of(per_stream=True, journal_max_bytes=1, checkpoint_us=1, clock_offset_us=1,
                 acknowledged_us=1, share={}, round_trips={"counts": [0] * 13})  # fmt: skip

    assert len(set(names)) == len(names)
    assert set(whole) == set(names)


def test_counters_are_added_by_type_and_streams_appear_by_name_only_where_something_is() -> None:
    streams = {
        "trade.A_B": {"published": 2, "gaps": 1, "event_us": NOW_US},
        "trade.C_D": {"published": 3, "pending": 4, "event_us": NOW_US - 5},
        "bridge:gaps": {"published": 1},
    }

    found = series_of(streams=streams, stream_troubles={"depth.A_B": "stale"})

    assert found["entries_total"]["trade", "published"] == 5
    assert found["entries_total"]["bridge", "published"] == 1
    assert found["gaps_total"] == {("trade",): 1, ("bridge",): 0}
    assert found["last_event_timestamp_seconds"] == {("trade",): NOW_US / 1e6}
    assert found["stream_pending_entries"] == {("trade.C_D",): 4}
    assert found["stream_trouble"] == {("depth.A_B",): 1}
    assert "stream_entries_total" not in found


def test_gaps_and_ends_of_connections_are_counted_by_each_cause_from_the_beginning() -> None:
    streams = {
        "trade.A_B": {"gaps": 3, "gap_causes": {"skipped": 2, "overflow": 1}},
        "depth.A_B": {"gaps": 1, "gap_causes": {"skipped": 1}},
    }

    found = series_of(streams=streams, ends={"refused": 4, "of another version": 1})

    assert {cause: n for (cause,), n in found["gaps_by_cause_total"].items() if n} == {
        "skipped": 3, "overflow": 1,
    }  # fmt: skip
    assert len(found["gaps_by_cause_total"]) == len(GapCause) - 1  # all but a stream's start
    assert found["connections_ended_total"] == {
        (cause.value,): 4 * (cause is EndCause.REFUSED) for cause in EndCause
    }


def test_round_trips_are_a_histogram_and_none_of_a_bridge_that_does_not_count_them() -> None:
    trips = RoundTrips()
    for us in (100, 101, 9_000_000):
        trips.add(us)

    [histogram] = series_of(round_trips=trips.as_dict())["redis_round_trip_seconds"].values()

    assert isinstance(histogram, Histogram)
    assert (histogram.bounds_s[0], histogram.sum_s) == (0.0001, 9.000201)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (1, 1, 1)
    assert "redis_round_trip_seconds" not in series_of()


def test_with_per_stream_each_stream_has_all_of_its_counters() -> None:
    found = series_of(per_stream=True, streams={"trade.A_B": {"published": 2, "event_us": NOW_US}})

    assert found["stream_entries_total"]["trade.A_B", "published"] == 2
    assert len(found["stream_entries_total"]) == len(fields(StreamCounters))
    assert found["stream_last_event_timestamp_seconds"] == {("trade.A_B",): NOW_US / 1e6}


def test_types_in_labels_are_of_the_contract_whatever_a_stream_is_called() -> None:
    odd = {"nonsense": {}, "kline.1m.A_B": {}, "account.orderUpdate": {}, "depth.200ms.A_B": {}}

    kinds = {kind for kind, _ in series_of(streams=odd)["entries_total"]}

    assert kinds == {"bridge", "kline", "account.orderUpdate", "depth"}
    assert kinds <= TYPES


def test_each_rest_request_counts_under_one_result() -> None:
    counters = {"requests": 10, "failed": 4, "refused": 1, "too_often": 3}

    assert series_of(rest=counters)["rest_requests_total"] == {
        ("answered",): 5, ("failed",): 1, ("refused",): 1, ("too_often",): 3,
    }  # fmt: skip


def test_page_has_cumulative_buckets_in_seconds_and_is_parsed_by_prometheus_client() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="the extra `metrics`")
    counts = [0] * (len(BOUNDS_US) + 1)
    counts[0], counts[2], counts[-1] = 1, 2, 3
    latencies = {"received_to_written": {"trade": {"counts": counts, "sum_us": 7_000_000}}}
    status = BridgeStatus.model_validate(WELL | {"latencies": latencies})

    text = exposition.render(families(status, per_stream=False)).decode()

    read = {each.name: each for each in parser.text_string_to_metric_families(text)}
    samples = read["backpack_latency_seconds"].samples
    buckets = {each.labels["le"]: each.value for each in samples if each.name.endswith("_bucket")}
    assert buckets["0.001"] == 1
    assert buckets["0.0025"] == 1
    assert buckets["0.005"] == 3
    assert buckets["30"] == 3
    assert buckets["+Inf"] == 6
    assert [each.value for each in samples if each.name.endswith("_sum")] == [7.0]
    assert read["backpack_frames"].type == "counter"
    assert "process_cpu_seconds" in read


async def test_without_the_extra_metrics_names_what_to_install_and_the_others_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exposition, "find_spec", lambda _: None)
    pages = BridgePages(Reporting(), per_stream=False)

    page = await pages.page("/metrics")

    assert page.status.value == 501
    assert b"pip install 'backpack-bridge[metrics]'" in page.body
    assert (await pages.page("/healthz")).status.value == 200
    assert (await pages.page("/readyz")).status.value == 200
