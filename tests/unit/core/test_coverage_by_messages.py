"""Outages detected by messages: stalls by ticks, missed messages by another connection."""

from collections.abc import Iterable

import pytest

from bridge.contract.causes import GapCause
from bridge.core.connection_coverage import JITTER_US
from bridge.core.coverage import NOTHING
from bridge.core.outages import Outage
from tests.support.coverage import NOW_US, ORDERS, SECOND_US, Subject, at, restored

BOOK, TICKER = "bookTicker.SOL_USDC", "ticker.SOL_USDC"
STALE, LOST = GapCause.STALE, GapCause.CONNECTION_LOST


class Speaking(Subject):
    """A monitored stream, a periodic one, and one without a limit on its quiet time."""

    streams = (BOOK, TICKER, ORDERS)

    def begin(self, connection: int, seconds: float) -> None:
        """Begin to cover at `seconds`, by a message `JITTER_US` earlier."""
        self.cover(connection, seconds)
        self.message(connection, seconds - JITTER_US / SECOND_US)

    def tick(self, connection: int, seconds: Iterable[float]) -> None:
        for second in seconds:
            assert not self.message(connection, second, TICKER)


def speaking() -> Speaking:
    coverage = Speaking()
    coverage.begin(1, 0)
    assert not coverage.message(1, 0.5, BOOK)
    return coverage


def found(outages: Iterable[Outage]) -> list[tuple[str, float, float, str]]:
    return sorted(
        (each.stream, (each.from_us - NOW_US) / 1e6, (each.to_us - NOW_US) / 1e6, each.cause)
        for each in outages
    )


def test_stall_of_a_connection_with_ticks_is_an_outage_of_all_its_streams() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3])

    assert found(coverage.message(1, 6.5, BOOK)) == [
        (ORDERS, 2, 6.6, STALE),
        (BOOK, 0.5, 6.6, STALE),
        (TICKER, 2, 6.6, STALE),
    ]
    assert not coverage.message(1, 7, TICKER)


def test_answer_on_a_connection_with_ticks_covers_nothing_before_the_first_message() -> None:
    coverage = Speaking()
    coverage.cover(1, 0)
    assert not list(coverage.resume({BOOK: at(-5)}))
    coverage.cover(1, 1)

    assert found(coverage.message(1, 4.5, TICKER)) == [(BOOK, -5, 4.6, GapCause.NOT_RUNNING)]


def test_stream_suspected_between_its_answer_and_the_first_message_is_not_covered() -> None:
    coverage = Speaking()
    coverage.cover(1, 0)
    coverage.suspected(1, ORDERS, None)
    coverage.tick(1, [1])

    assert sorted(coverage.covered_until_us()) == [BOOK, TICKER]


def test_pause_of_two_ticks_or_of_one_clock_alone_is_no_stall() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 4.9])
    assert not coverage.message(1, 5.9, TICKER, late_s=60)  # 60 s late: this process paused
    assert not coverage.message(1, 30, TICKER, late_s=36)  # the exchange's clock jumped


@pytest.mark.parametrize("off_s", [3_700, -3_700])
def test_clock_that_is_hours_off_for_seconds_makes_no_stall(off_s: float) -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3])
    known = coverage.known(1)
    for second in range(4, 11):  # event_us is 0: times so far off are not plausible
        assert coverage.received(known, TICKER, 0, at(second + off_s)) == NOTHING
        assert coverage.received(known, BOOK, 0, at(second + off_s + 0.1)) == NOTHING

    assert not coverage.message(1, 11, BOOK)
    coverage.tick(1, [11.1, 12.1])
    assert found(coverage.message(1, 17, BOOK)) == [
        (ORDERS, 11.1, 17.1, STALE),
        (BOOK, 11, 17.1, STALE),
        (TICKER, 11.1, 17.1, STALE),
    ]


def test_pause_after_ticks_have_ended_is_no_stall() -> None:
    coverage = speaking()
    coverage.tick(1, [1])
    coverage.message(1, 12, ORDERS)
    assert not coverage.message(1, 60, ORDERS)


def test_late_message_in_the_middle_does_not_hide_a_stall() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3])
    assert not coverage.message(1, 4.9, BOOK, late_s=2)

    assert found(coverage.message(1, 7.6, BOOK)) == [
        (name, 2.9, 7.7, STALE)  # JITTER_US: streams may be out of order
        for name in (ORDERS, BOOK, TICKER)
    ]


def test_missing_tick_while_other_streams_flow_is_no_stall() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2])
    for half_seconds in range(5, 18):
        assert not coverage.message(1, half_seconds / 2, BOOK)


def test_stuck_connection_leaves_an_outage_until_its_replacement_begins() -> None:
    coverage = speaking()
    coverage.tick(1, range(1, 8))
    coverage.begin(2, 9.8)

    assert found(coverage.lose(1)) == [
        (ORDERS, 6, 9.8, LOST),
        (BOOK, 0.5, 9.8, LOST),
        (TICKER, 6, 9.8, LOST),
    ]


def test_messages_behind_the_exchanges_clock_cover_from_their_own_time() -> None:
    coverage = speaking()
    coverage.tick(1, range(1, 21))
    coverage.message(1, 19, BOOK)
    coverage.cover(2, 33)
    coverage.message(2, 19, ORDERS, late_s=14)
    assert not coverage.may_close(1)
    coverage.tick(1, [21])

    assert coverage.may_close(1)
    assert coverage.lose(1) == []


def test_stall_of_one_of_two_connections_is_no_outage() -> None:
    coverage = speaking()
    coverage.begin(2, 0.2)
    for connection in (1, 2):
        coverage.tick(connection, [1, 2])
    coverage.tick(2, [3, 4, 5, 6])

    assert not coverage.message(1, 7, TICKER)


def test_suspected_periodic_stream_on_a_silent_connection_uncovers_all_of_its_streams() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3])
    assert coverage.suspected(1, TICKER, at(3)) == ([BOOK, TICKER, ORDERS], [])

    assert not coverage.answer(1, 9)  # the connection is stuck
    assert found(coverage.message(1, 9.2, BOOK)) == [
        (ORDERS, 2, 9.3, STALE),
        (BOOK, 0.5, 9.3, STALE),
        (TICKER, 3, 9.3, STALE),
    ]


def test_suspected_periodic_stream_on_a_live_connection_uncovers_itself_only() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3])
    coverage.message(1, 5, BOOK)

    assert coverage.suspected(1, TICKER, at(3)) == ([TICKER], [])


def test_message_that_only_the_replacement_received_is_an_outage_of_the_replaced_one() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3, 4])
    coverage.begin(2, 4.5)
    coverage.tick(2, [5, 6])
    coverage.message(2, 5.2, BOOK)
    coverage.tick(1, [5, 6])
    assert not coverage.may_close(1)  # it may still receive the message
    coverage.tick(1, [7])

    assert coverage.may_close(1)
    assert found(coverage.lose(1)) == [(BOOK, 0.5, 4.5, STALE)]
    coverage.message(2, 8, BOOK)
    assert found(coverage.lose(2)) == []


def test_subscription_lost_in_a_stall_is_found_by_the_replacement() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3])
    stalled = found(coverage.message(1, 7, TICKER))
    assert (BOOK, 0.5, 7.1, STALE) in stalled
    # connection 1 ticks again, but has lost its subscription of BOOK
    coverage.begin(2, 7.4)
    for connection in (1, 2):
        coverage.tick(connection, [8, 9, 10])
    coverage.message(2, 8.2, BOOK)

    assert found(coverage.lose(1)) == [(BOOK, 7.1, 7.4, STALE)]


def test_missed_message_is_found_when_a_connection_is_lost_suspected_or_unsubscribed() -> None:
    def forgetful() -> Speaking:
        coverage = speaking()
        coverage.tick(1, [1, 2, 3, 4])
        coverage.begin(2, 4.5)
        coverage.tick(2, [5, 6, 7])
        coverage.message(2, 5.2, BOOK)
        coverage.tick(1, [5, 6, 7])
        return coverage

    gap = (BOOK, 0.5, 4.5, STALE)
    assert found(forgetful().lose(1)) == [gap]
    assert found(forgetful().suspected(1, TICKER, at(7)).outages) == [gap]
    assert found(forgetful().subscribed(1, [TICKER]).outages) == [(*gap[:3], GapCause.UNSUBSCRIBED)]


def test_same_message_with_a_slightly_later_time_was_not_missed() -> None:
    coverage = speaking()
    coverage.tick(1, range(1, 31))
    coverage.begin(2, 30.5)
    coverage.message(2, 31.2, BOOK)

    assert not coverage.message(1, 31.22, BOOK)


def test_messages_before_a_new_beginning_do_not_count_as_missed_after_it() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3])
    coverage.begin(2, 2.5)
    coverage.message(2, 5, BOOK)
    coverage.suspected(1, BOOK, at(0.5))
    for connection in (1, 2):
        coverage.tick(connection, range(4, 10))
    assert not coverage.answer(1, 9.5)
    for connection in (1, 2):
        coverage.tick(connection, range(10, 30))
    assert not coverage.message(1, 29.5, BOOK)

    assert found(coverage.lose(2)) == []


def test_messages_of_an_unanswered_connection_prove_nothing_of_another() -> None:
    coverage = speaking()
    coverage.tick(1, range(1, 8))
    coverage.opened(2, [BOOK, TICKER, ORDERS])
    coverage.message(2, 8, BOOK)
    coverage.lose(1)
    coverage.answer(2, 11)

    assert (BOOK, 0.5, 11.1, LOST) in found(coverage.message(2, 11, TICKER))


def test_stream_that_resumes_after_another_connection_received_it_has_an_outage() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3, 4])
    coverage.begin(2, 4.5)
    coverage.message(2, 5.2, BOOK)

    assert found(coverage.message(1, 6, BOOK)) == [(BOOK, 0.5, 4.5, STALE)]
    assert found(coverage.lose(1)) == []


def test_outage_of_a_monitored_stream_begins_at_its_last_message() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3, 4])
    coverage.begin(2, 9)

    assert found(coverage.lose(1)) == [
        (ORDERS, 3, 9, LOST),
        (BOOK, 0.5, 9, LOST),
        (TICKER, 3, 9, LOST),
    ]


def test_times_of_messages_survive_a_restart() -> None:
    coverage = speaking()
    coverage.tick(1, [1, 2, 3, 4])
    coverage.begin(2, 4.5)
    coverage.message(2, 5.2, BOOK)
    again = restored(coverage)

    assert again.state() == coverage.state()
    assert found(again.message(1, 6, BOOK)) == [(BOOK, 0.5, 4.5, STALE)]
