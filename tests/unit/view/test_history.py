"""Rates and latency from several polls of literal counters."""

import pytest

from bridge.view.facts import BridgeStatus, Sample, StreamFacts, StreamStatus
from bridge.view.history import History

SECOND = 1_000_000


def history(*samples: Sample) -> History:
    made = History()
    for sample in samples:
        made.add(sample)
    return made


def counted(second: float, added: int) -> Sample:
    return Sample(int(second * SECOND), streams={"trade.A_B": StreamFacts(added=added)})


def received(second: int, last_id: str, latency_us: int, **more: str) -> Sample:
    times = {"engine_us": "1000", "received_us": str(1000 + latency_us)}
    last = {"type": "trade", **times, **more}
    return Sample(second * SECOND, streams={"trade.A_B": StreamFacts(last_id=last_id, last=last)})


def test_one_poll_gives_no_rate() -> None:
    made = history(counted(1, 10))
    assert (made.rates(), made.curve, made.earlier) == ({}, [], None)


def test_a_rate_is_the_increase_over_the_time_between_polls() -> None:
    assert history(counted(1, 10), counted(3, 30)).rates() == {"trade.A_B": 10.0}


def test_a_rate_ignores_counts_from_before_the_window() -> None:
    made = history(counted(0, 0), counted(1, 1000), *(counted(n, 1000) for n in range(2, 8)))
    assert made.rates() == {"trade.A_B": 0.0}


def test_the_window_stays_full_when_polls_are_far_apart() -> None:
    assert history(counted(0, 0), counted(60, 600)).rates() == {"trade.A_B": 10.0}


def test_a_counter_that_decreased_counts_from_zero() -> None:
    assert history(counted(0, 500), counted(1, 0), counted(2, 7)).rates() == {"trade.A_B": 7.0}


def test_without_the_servers_counter_the_bridges_own_are_added_up() -> None:
    def sample(second: int, published: int) -> Sample:
        line = {"trade.A_B": StreamStatus.model_validate({"published": published})}
        bridges = tuple(
            BridgeStatus(instance=name, updated_us=0, streams=line) for name in ("one", "two")
        )
        return Sample(second * SECOND, bridges, streams={"trade.A_B": StreamFacts(added=None)})

    assert history(sample(0, 10), sample(1, 15)).rates() == {"trade.A_B": 10.0}


def test_the_curve_has_a_value_for_each_step() -> None:
    assert history(counted(0, 0), counted(1, 5), counted(2, 25)).curve == [5.0, 20.0]


def test_latency_counts_each_entry_once() -> None:
    made = history(received(0, "1-0", 9000), received(1, "1-0", 9000), received(2, "2-0", 1000))
    assert made.receive_ms() == (1.0, 9.0)


@pytest.mark.parametrize("more", [{"type": "gap"}, {"engine_us": ""}, {"received_us": "x"}])
def test_latency_is_measured_on_messages_with_both_times(more: dict[str, str]) -> None:
    assert history(received(0, "1-0", 1000, **more)).receive_ms() is None


def test_aggregated_depth_is_no_measure_of_latency() -> None:
    last = {"type": "depth", "engine_us": "1", "received_us": "200001"}
    facts = StreamFacts(last_id="1-0", last=last)
    assert history(Sample(0, streams={"depth.200ms.A_B": facts})).receive_ms() is None
    assert history(Sample(0, streams={"depth.A_B": facts})).receive_ms() == (200.0, 200.0)


def test_messages_of_a_bridges_first_seconds_are_no_measure_of_latency() -> None:
    def sample(received_us: int, last_id: str) -> Sample:
        fields = {"type": "trade", "engine_us": "1000000", "received_us": str(received_us)}
        bridge = BridgeStatus(instance="b", updated_us=0, started_us=1_000_000)
        facts = StreamFacts(last_id=last_id, last=fields)
        return Sample(0, bridges=(bridge,), streams={"trade.A_B": facts})

    cold, warm = sample(3_999_999, "1-0"), sample(4_000_000, "2-0")
    assert history(cold).receive_ms() is None
    assert history(cold, warm).receive_ms() == (3000.0, 3000.0)
