"""The states of bridges, streams and workers in the view's model, from literal statuses."""

import json
from typing import Any

import pytest

from bridge.view.facts import (
    BridgeStatus,
    ConnectionStatus,
    Sample,
    StreamFacts,
    StreamStatus,
    WorkerStatus,
    read_statuses,
)
from bridge.view.history import History
from bridge.view.view_model import State, ViewModel, draw

NOW_US = 1_700_000_000_000_000
SECOND = 1_000_000
CONNECTED = (ConnectionStatus(name="public-1", connected=True, wanted=1, confirmed=1),)


def bridge(**given: Any) -> BridgeStatus:
    whole = {"instance": "b", "updated_us": NOW_US, "connections": CONNECTED}
    return BridgeStatus.model_validate(whole | given)


def view_model(*samples: Sample) -> ViewModel:
    history = History()
    for sample in samples:
        history.add(sample)
    return draw(history)


def line(name: str, **counters: Any) -> dict[str, StreamStatus]:
    return {name: StreamStatus.model_validate(counters)}


def test_a_bridge_with_a_fresh_status_and_connections_is_healthy() -> None:
    [row] = view_model(Sample(NOW_US, (bridge(started_us=NOW_US - SECOND),))).bridges
    assert (row.state, row.since_us, row.is_healthy) == (State.UP, NOW_US - SECOND, True)


def test_a_bridge_that_reports_nothing_for_five_seconds_is_silent() -> None:
    [row] = view_model(Sample(NOW_US, (bridge(updated_us=NOW_US - 5 * SECOND - 1),))).bridges
    assert (row.state, row.is_healthy) == (State.SILENT, False)


def test_a_bridge_that_reported_its_stop_is_stopped_and_not_in_trouble() -> None:
    [row] = view_model(Sample(NOW_US, (bridge(stopped_us=NOW_US - 9, connections=()),))).bridges
    assert (row.state, row.since_us, row.is_healthy) == (State.STOPPED, NOW_US - 9, False)


def test_each_trouble_of_a_bridge_is_a_sentence() -> None:
    down = (ConnectionStatus(name="public-1", trouble="refused"),)
    streams = line("trade.A_B", suspended="WRONGTYPE")
    shown = bridge(connections=down, redis_trouble="loading", streams=streams)
    [row] = view_model(Sample(NOW_US, (shown,))).bridges
    assert row.troubles == (
        "public-1 is not connected to the exchange: refused",
        "publishing waits: loading",
        "trade.A_B is suspended: WRONGTYPE",
    )


def test_streams_stand_in_the_contracts_order_of_types() -> None:
    names = ("ticker.A_B", "trade.B_B", "account.orderUpdate", "odd", "trade.A_B", "depth.A_B")
    rows = view_model(Sample(NOW_US, streams=dict.fromkeys(names, StreamFacts()))).streams
    assert [row.name for row in rows] == [
        "trade.A_B",
        "trade.B_B",
        "depth.A_B",
        "ticker.A_B",
        "account.orderUpdate",
        "odd",
    ]


def test_a_streams_age_is_since_its_newest_was_received() -> None:
    last = {"type": "gap", "cause": "x", "recovered": "false", "received_us": str(NOW_US - SECOND)}
    facts = StreamFacts(length=3, last_id="5-0", last=last)
    [row] = view_model(Sample(NOW_US, streams={"trade.A_B": facts})).streams
    assert (row.age_us, row.entries) == (SECOND, 3)


def test_an_entry_without_time_of_receiving_has_the_age_of_its_id() -> None:
    facts = StreamFacts(added=9, last_id=f"{NOW_US // 1000 - 2000}-0", last={"type": "foreign"})
    [row] = view_model(Sample(NOW_US, streams={"trade.A_B": facts})).streams
    assert (row.age_us, row.entries, row.text) == (2 * SECOND, 9, "type=foreign")


def test_counters_of_several_bridges_are_added_and_a_stopped_ones_waiting_is_not() -> None:
    one = bridge(streams=line("trade.A_B", gaps=1, pending=2))
    two = bridge(instance="c", stopped_us=NOW_US, streams=line("trade.A_B", gaps=3, pending=4))
    [row] = view_model(Sample(NOW_US, (one, two), streams={"trade.A_B": StreamFacts()})).streams
    assert (row.status.counters.gaps, row.status.pending) == (4, 2)
    assert row.marks == ("4 gaps",)


def test_a_stream_with_pending_entries_and_none_published_is_held() -> None:
    def sample(second: int, last_id: str) -> Sample:
        streams = line("trade.A_B", pending=2, last_id=last_id)
        at_us = NOW_US + second * SECOND
        shown = bridge(updated_us=at_us, streams=streams)
        return Sample(at_us, (shown,), streams={"trade.A_B": StreamFacts()})

    assert view_model(sample(0, "1-0"), sample(1, "1-0")).streams[0].marks == ("2 held",)
    assert view_model(sample(0, "1-0"), sample(1, "2-0")).streams[0].marks == ()


def test_what_the_exchange_refused_is_reported_at_the_stream() -> None:
    refused = (ConnectionStatus(connected=True, refused={"trade.A_B": "4005 no such market"}),)
    shown = bridge(connections=refused)
    [row] = view_model(Sample(NOW_US, (shown,), streams={"trade.A_B": StreamFacts()})).streams
    assert (row.marks, row.is_failing) == (("refused: 4005 no such market",), True)


def test_a_worker_is_silent_after_five_seconds() -> None:
    worker = WorkerStatus(group="book", consumer="x", updated_us=NOW_US - 6 * SECOND)
    [row] = view_model(Sample(NOW_US, workers=(worker,))).consumers
    assert (row.name, row.state, row.age_us) == ("book/x", State.SILENT, 6 * SECOND)


def test_the_newest_quarantined_message_is_reported() -> None:
    last = {"type": "quarantined", "stream": "trade.A_B", "reason": "no price", "raw": "{}"}
    last |= {"received_us": "1"}
    seen = view_model(Sample(NOW_US, quarantine=StreamFacts(length=2, last_id="1-0", last=last)))
    assert (seen.quarantined, seen.newest_quarantined) == (2, "REFUSED trade.A_B: no price")


def test_a_status_with_unknown_fields_is_read_and_an_invalid_one_counted() -> None:
    texts = {
        "a": '{"instance":"a","updated_us":5,"tomorrow":true}',
        "b": '{"no":"instance"}',
        "c": "not JSON",
    }
    found, unreadable = read_statuses(BridgeStatus, texts)
    assert ([status.instance for status in found], unreadable) == (["a"], 2)


@pytest.mark.parametrize(
    "wrong",
    [
        '"updated_us":1e999', '"updated_us":"5"', '"updated_us":5,"frames":"7"',
        '"updated_us":5,"frames":-1e999', '"updated_us":NaN', f'"updated_us":{10**400}',
        '"updated_us":5,"latencies":{"a":{"trade":{"counts":["1"]}}}',
        f'"updated_us":5,"streams":{{"trade.A_B":{{"gaps":{2**63}}}}}',
    ],
)  # fmt: skip
def test_a_status_with_an_implausible_number_is_skipped(wrong: str) -> None:
    assert read_statuses(BridgeStatus, {"a": f'{{"instance":"a",{wrong}}}'}) == ((), 1)


def test_a_worker_with_an_infinite_latency_is_skipped() -> None:
    text = '{"group":"g","consumer":"w","updated_us":5,"latency_ms":{"p50":%s}}'

    assert read_statuses(WorkerStatus, {"a": text % "1e999", "b": text % '"1e999"'}) == ((), 2)


def test_a_bridge_with_peers_shows_its_turn_and_their_names() -> None:
    alone, second, gone = (
        view_model(Sample(NOW_US, (bridge(**facts),))).bridges[0].turn
        for facts in (
            {},
            {"rank": 1, "peers": ["a", "c"]},
            {"rank": 1, "peers": ["a"], "stopped_us": NOW_US},
        )
    )
    assert (alone, second, gone) == ("", "2 of 3, beside a, c", "")


def test_texts_of_a_status_are_escaped_for_a_terminal() -> None:
    status = {"instance": "a\x1b]0;X\x07", "updated_us": 1, "redis_trouble": "x\r\nbridge b: fine"}
    streams = {"stream_troubles": {"trade.X\n": "\x9b2J"}}
    [result], _ = read_statuses(BridgeStatus, {"a": json.dumps(status | streams)})
    assert result.instance == r"a\u001b]0;X\u0007"
    assert result.redis_trouble == r"x\r\nbridge b: fine"
    assert result.stream_troubles == {r"trade.X\n": r"\u009b2J"}


def test_a_bridge_whose_own_clock_is_late_is_up_by_the_clock_of_redis() -> None:
    shown = bridge(updated_us=NOW_US - 60 * SECOND, redis_us=NOW_US - SECOND)
    [row] = view_model(Sample(NOW_US, (shown,))).bridges
    assert row.state is State.UP


def test_a_frozen_bridge_whose_own_clock_is_ahead_is_silent_by_the_clock_of_redis() -> None:
    shown = bridge(updated_us=NOW_US + 60 * SECOND, redis_us=NOW_US - 6 * SECOND)
    [row] = view_model(Sample(NOW_US, (shown,))).bridges
    assert (row.state, row.since_us) == (State.SILENT, NOW_US - 6 * SECOND)
