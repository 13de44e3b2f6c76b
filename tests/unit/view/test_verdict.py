"""The verdict in one line, and its reasons, from literal statuses."""

from typing import Any

import pytest

from bridge.view.facts import BridgeStatus, ConnectionStatus, Sample, StreamFacts, WorkerStatus
from bridge.view.history import History
from bridge.view.reader import memory_trouble
from bridge.view.verdict import Level, Verdict, judge
from bridge.view.view_model import draw

NOW_US = 1_700_000_000_000_000
CONNECTED = (ConnectionStatus(name="public-1", connected=True, wanted=1, confirmed=1),)


def bridge(instance: str = "a", **given: Any) -> BridgeStatus:
    whole = {"instance": instance, "updated_us": NOW_US, "connections": CONNECTED}
    return BridgeStatus.model_validate(whole | given)


def verdict(*bridges: BridgeStatus, **given: Any) -> Verdict:
    history = History()
    history.add(Sample(NOW_US, bridges, **given))
    return judge(draw(history))


def test_a_healthy_bridge_and_live_consumers_are_well() -> None:
    worker = WorkerStatus(group="g", consumer="w", updated_us=NOW_US)
    assert verdict(bridge(), workers=(worker,)) == Verdict(Level.GOOD, "all is well")


def test_no_bridge_is_bad_and_states_how_to_start_one() -> None:
    result = verdict()
    assert result.level is Level.BAD
    assert result.text == "no bridge has run here: start one with `python -m bridge run`"


def test_a_silent_bridge_is_bad_alone_and_a_warning_beside_another() -> None:
    silent = bridge("b", updated_us=NOW_US - 9_000_000)
    assert verdict(silent).level is Level.BAD
    result = verdict(bridge(), silent)
    assert (result.level, result.text) == (Level.WARNING, "one thing needs attention")
    assert result.reasons == ("bridge b is silent for 9.0s",)


def test_a_bridge_that_was_stopped_is_a_reason_only_where_no_other_is_up() -> None:
    stopped = bridge("b", stopped_us=NOW_US - 60_000_000, connections=())
    assert verdict(bridge(), stopped).level is Level.GOOD
    assert verdict(stopped).reasons == ("bridge b is stopped 60s ago",)


def test_a_bridge_in_trouble_is_bad_and_states_the_reason() -> None:
    result = verdict(bridge(redis_trouble="out of memory"))
    assert (result.level, result.text) == (
        Level.BAD,
        "bridge a is up, but publishing waits: out of memory",
    )
    assert result.reasons == ("bridge a: publishing waits: out of memory",)


@pytest.mark.parametrize("end", ["", "."])
def test_without_the_first_shard_it_is_bad_and_states_what_the_others_have(end: str) -> None:
    newest = {"received_us": str(NOW_US - 2_000_000)}
    streams = {
        "trade.SOL_USDC": StreamFacts(1, 1, "5-1", newest),
        "trade.JUP_USDC": StreamFacts(is_unavailable=True),
    }
    result = verdict(streams=streams, unavailable={0: f"shard 0 does not answer: timed out{end}"})
    assert (result.level, result.text) == (
        Level.BAD,
        "shard 0 does not answer: timed out. Bridges and consumers are not known without it; "
        "the other shards have 1 stream, the newest entry 2.0s old",
    )


def test_another_shard_unavailable_is_one_reason_for_all_its_streams() -> None:
    streams = {f"trade.{name}_USDC": StreamFacts(is_unavailable=True) for name in ("SOL", "BTC")}
    result = verdict(
        bridge(), streams=streams, unavailable={3: "shard 3 does not answer: timed out"}
    )
    assert (result.level, result.reasons) == (
        Level.WARNING,
        ("shard 3 does not answer: timed out",),
    )


def test_a_redis_that_is_full_is_the_cause_and_not_the_silence_that_follows() -> None:
    used = {"used_memory": 3 << 20, "maxmemory": 2 << 20, "maxmemory_policy": "noeviction"}
    full = memory_trouble(used)
    result = verdict(bridge(updated_us=NOW_US - 9_000_000), redis_full=full)
    assert (result.level, result.text, result.reasons[0]) == (Level.BAD, full, full)
    assert "3.0 of 2.0 MB" in full
    assert memory_trouble(used | {"maxmemory_policy": "allkeys-lru"}) == ""
    assert (
        memory_trouble(used | {"maxmemory": 4 << 20})
        == memory_trouble(used | {"maxmemory": 0})
        == ""
    )


def test_a_suspended_stream_is_reported_once() -> None:
    result = verdict(
        bridge(streams={"trade.A_B": {"suspended": "WRONGTYPE"}}),
        streams={"trade.A_B": StreamFacts()},
    )
    assert result.reasons == ("bridge a: trade.A_B is suspended: WRONGTYPE",)


def test_refused_streams_are_named_up_to_five() -> None:
    refused = {f"trade.A{i}_B": "no such market" for i in range(7)}
    connection = ConnectionStatus(name="public-1", connected=True, refused=refused)
    result = verdict(
        bridge(connections=(connection,)), streams=dict.fromkeys(refused, StreamFacts())
    )
    assert result.level is Level.WARNING
    assert result.reasons[0] == "trade.A0_B: refused: no such market"
    assert result.reasons[-1] == "2 more streams need attention"
    assert len(result.reasons) == 6


def test_a_silent_consumer_is_a_warning() -> None:
    worker = WorkerStatus(group="g", consumer="w", updated_us=NOW_US - 12_000_000)
    assert verdict(bridge(), workers=(worker,)).reasons == ("consumer g/w is silent for 12s",)
