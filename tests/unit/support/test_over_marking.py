"""The judge's measure of the part of a gap in which messages were received."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.core.connection_coverage import IN_FLIGHT_US, PERIOD_US, TIMINGS
from bridge.feed.connection import PROOF_S
from tests.support import over_marking
from tests.support.exchange_coverage import LOST_WITH_THE_END_US, Connections
from tests.support.over_marking import Marking, Sent, limit_us, longest_us

TICKER, ORDERS = "ticker.SOL_USDC", "account.orderUpdate"
SECOND_US = 1_000_000
QUIET = Sent([], [], [])
# one connection until second 60, the next from second 61
NOTES: list[dict[str, Any]] = [
    note
    for number, second in ((1, 0), (2, 61))
    for note in (
        {"at_us": second * SECOND_US, "connection": number, "state": "opened"},
        *(
            {"at_us": second * SECOND_US, "connection": number, "subscribed": stream}
            for stream in (TICKER, ORDERS)
        ),
    )
]
NOTES.insert(3, {"at_us": 60 * SECOND_US, "connection": 1, "state": "reset"})


def us(seconds: float) -> int:
    return int(seconds * SECOND_US)


def ticks(*seconds: float, behind_s: float = 0) -> Sent:
    made_us = [us(second + behind_s) for second in seconds]
    return Sent([us(second) for second in seconds], made_us, made_us)


def received_s(stream: str, from_s: float, to_s: float, sent: Sent, *more: dict[str, Any]) -> float:
    covered = Connections([*NOTES, *more]).provable(stream)
    return longest_us(stream, sent.at_us(us(from_s)), us(to_s), covered, sent) / SECOND_US


def fault(name: str, from_s: float, to_s: float, **command: object) -> list[dict[str, Any]]:
    order = {"number": 7, "command": {"fault": name, **command}}
    return [
        {"at_us": us(from_s), "fault": order, "state": "began"},
        {"at_us": us(to_s), "fault": order, "state": "ended"},
    ]


def test_the_limits_are_what_the_bridge_needs() -> None:
    assert set(over_marking.RHYTHMIC) == {f"{kind}." for kind in TIMINGS}
    assert limit_us(TICKER) == PERIOD_US + IN_FLIGHT_US
    assert limit_us(ORDERS) == PROOF_S * SECOND_US + IN_FLIGHT_US
    assert IN_FLIGHT_US <= LOST_WITH_THE_END_US


def test_a_gap_that_is_false_for_nearly_all_of_it_is_reported() -> None:
    assert received_s(ORDERS, 1, 61, QUIET) == 57.5
    assert received_s(TICKER, 1, 61, ticks(*range(60))) == 56


def test_a_gap_is_true_from_a_moment_before_the_end_to_the_next_beginning() -> None:
    assert received_s(ORDERS, 58.5, 61, QUIET) == 0
    assert received_s(ORDERS, 58.5, 62, QUIET) == 1


def test_a_periodic_stream_may_be_marked_from_its_last_message_on() -> None:
    assert received_s(TICKER, 40, 61, ticks(10, 20, 30, 40)) == 0
    assert received_s(TICKER, 40, 61, ticks(10, 20, 30, 40, 50)) == 0
    assert received_s(TICKER, 40, 61, ticks(10, 20, 30, 40, 50, 55)) == 5


def test_an_exchange_that_is_behind_its_schedule_sent_the_last_message_later() -> None:
    assert received_s(ORDERS, 50, 61, ticks(49, behind_s=8)) == 0.5


@pytest.mark.parametrize("name", ["no_pongs", "stall", "slow_network", "burst", "error", "reject"])
def test_unanswered_pings_and_the_time_after_them_are_not_counted_as_received(
    name: str,
) -> None:
    assert received_s(ORDERS, 20, 61, QUIET, *fault(name, 30, 32)) == 58.5 - 40


def test_the_time_of_unanswered_pings_is_limited() -> None:
    again = [note for second in range(4, 60, 6) for note in fault("error", second, second)]
    marking = Marking(ORDERS, Connections([*NOTES, *again]), QUIET)
    begun = 61 - over_marking.MOST_US // SECOND_US - 4 - 1.5

    assert received_s(ORDERS, 10, 61, QUIET, *again) == 0
    assert marking.needless_us(us(begun), us(61)) == 0
    assert marking.needless_us(us(begun - 2), us(61)) > over_marking.MOST_US


def test_a_stall_of_one_stream_does_not_affect_answers_to_pings() -> None:
    stall = fault("stall", 30, 32, stream="depth.*")
    assert received_s(ORDERS, 20, 61, QUIET, *stall) == 38.5
