"""Coverage: the intervals in which streams were received, from events of connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.causes import GapCause
from bridge.core.coverage import Coverage
from bridge.core.dedup import DedupWindow
from bridge.core.outages import Outage
from tests.support.coverage import NAMES, NOW_US, ORDERS, SECOND_US, Subject, at, outage, restored

TICKER = "ticker.SOL_USDC"


def subject() -> Subject:
    coverage = Subject()
    assert coverage.cover(1, 0) == []
    return coverage


# ---- one connection after another ------------------------------------------------------------


def test_outage_begins_a_second_before_the_newest_message_of_a_lost_connection() -> None:
    coverage = subject()
    coverage.message(1, 5)
    assert coverage.lost(1, GapCause.CONNECTION_LOST) == ([ORDERS], [])

    assert coverage.cover(2, 9) == outage(4, 9)


def test_connection_without_messages_covers_from_its_answer() -> None:
    coverage = subject()
    coverage.lose(1)

    assert coverage.cover(2, 9) == outage(0, 9)


def test_quiet_connection_covers_until_a_second_before_its_last_answer() -> None:
    coverage = subject()
    coverage.answer(1, 60)
    coverage.lose(1)

    assert coverage.cover(2, 70) == outage(59, 70)


def test_answer_that_took_long_covers_only_until_it_was_requested() -> None:
    coverage = subject()
    coverage.answer(1, 60, asked_s=45)
    coverage.lose(1)

    assert coverage.cover(2, 70) == outage(44, 70)


def test_inferred_answer_confirms_subscriptions_and_proves_no_reception() -> None:
    coverage = Subject()
    coverage.opened(1, NAMES)
    coverage.message(1, 3)
    coverage.answer(1, 20, is_inferred=True)
    coverage.answer(1, 40, is_inferred=True)
    assert coverage.covered_until_us() == {ORDERS: at(20)}
    coverage.message(1, 41)
    coverage.lose(1)

    assert coverage.cover(2, 70) == outage(40, 70)


def test_exchange_clock_that_is_ahead_does_not_hide_an_outage() -> None:
    coverage = subject()
    coverage.message(1, 3600)
    coverage.lose(1)

    (found,) = coverage.cover(2, 9)

    assert found.from_us < found.to_us == at(9)


def test_messages_of_an_unanswered_connection_cover_nothing_before_them() -> None:
    coverage = Subject()
    coverage.opened(1, NAMES)
    coverage.message(1, 5)
    coverage.lose(1)

    assert list(coverage.resume({ORDERS: at(-20)})) == outage(-20, 4, GapCause.NOT_RUNNING)
    assert coverage.certain_until_us() == {}
    assert coverage.cover(2, 9) == outage(4, 9)


def test_unanswered_connection_leaves_an_outage_behind_its_messages() -> None:
    coverage = Subject()
    coverage.opened(1, NAMES)
    coverage.message(1, 5)
    coverage.lose(1)

    assert coverage.cover(2, 9) == outage(4, 9)


def test_stream_of_a_lost_connection_is_not_covered_but_certain_until_its_end() -> None:
    coverage = subject()
    coverage.message(1, 7)
    coverage.lose(1)

    assert coverage.covered_until_us() == {}
    assert coverage.certain_until_us() == {ORDERS: at(6)}


def test_messages_answers_and_ends_of_unknown_connections_change_nothing() -> None:
    coverage = subject()
    before = coverage.state()

    assert coverage.subscribed(7, NAMES) == coverage.lost(7, GapCause.CONNECTION_LOST) == ((), ())
    assert coverage.suspected(7, ORDERS, None) == ((), ())
    assert coverage.answer(7, 3) == []
    assert list(coverage.unanswered(7)) == []
    assert coverage.connection(7) is None
    assert coverage.may_close(7)
    coverage.closing(7)

    assert coverage.state() == before


# ---- several connections ---------------------------------------------------------------------


def test_end_of_one_of_two_connections_leaves_no_outage() -> None:
    coverage = subject()
    assert coverage.cover(2, 10) == []
    coverage.message(1, 20)

    assert coverage.lost(1, GapCause.CONNECTION_LOST) == ([], [])
    assert coverage.covered_until_us() == {ORDERS: at(19)}

    coverage.message(2, 25)
    assert coverage.lost(2, GapCause.CONNECTION_LOST) == ([ORDERS], [])
    assert coverage.cover(3, 30) == outage(24, 30)


def test_overlap_with_a_connection_that_was_dead_already_leaves_an_outage() -> None:
    coverage = subject()
    coverage.message(1, 10)
    assert coverage.cover(2, 40) == []
    coverage.message(2, 60)

    assert coverage.covered_until_us() == {ORDERS: at(9)}
    assert coverage.lose(1) == outage(9, 40)
    assert coverage.covered_until_us() == {ORDERS: at(59)}


def test_overlap_is_proved_by_an_answer_on_the_older_connection() -> None:
    coverage = subject()
    coverage.cover(2, 40)
    coverage.answer(1, 42)

    assert coverage.lose(1) == []


def test_answer_on_a_connection_with_a_periodic_stream_proves_no_reception() -> None:
    coverage = Subject()
    coverage.opened(1, [ORDERS])
    coverage.answer(1, 0)
    coverage.message(1, 10)
    coverage.subscribed(1, [ORDERS, TICKER])
    coverage.answer(1, 40)  # it answers, but receives no message
    coverage.lose(1)

    assert coverage.cover(2, 50) == outage(9, 50)


def test_answer_proves_no_more_than_the_messages_of_connections_that_tick() -> None:
    coverage = subject()
    coverage.opened(2, [TICKER])
    coverage.answer(2, 0)
    coverage.message(2, 90, TICKER, late_s=10)  # messages are 10 s behind the clock
    coverage.answer(1, 100)
    coverage.lose(1)

    assert coverage.cover(3, 110) == outage(89, 110)


def test_two_answers_after_another_connection_began_prove_an_overlap_for_any_clock() -> None:
    coverage = subject()
    coverage.cover(2, 50)
    coverage.answer(1, 1)  # its request may be older than connection 2
    assert not coverage.may_close(1)
    coverage.answer(1, 2)

    assert coverage.may_close(1)
    assert coverage.lose(1) == []


def test_inferred_answers_prove_no_overlap() -> None:
    coverage = subject()
    coverage.cover(2, 50)
    for _ in range(2):
        coverage.answer(1, 60, is_inferred=True)

    assert not coverage.may_close(1)
    assert coverage.lose(1) == outage(0, 50)


def test_half_open_connection_does_not_hide_an_outage_before_the_next_one() -> None:
    """Connection 2 opens and ends while connection 1 is half-open."""
    coverage = subject()
    coverage.message(1, 5)  # the last message: half-open from here on
    assert coverage.cover(2, 9) == []
    coverage.message(2, 15)
    assert coverage.lose(2) == []  # connection 1 may have received the rest

    assert coverage.lose(1) == outage(4, 9)
    assert coverage.cover(3, 20) == outage(14, 20)


def test_of_two_connections_that_cover_for_each_other_only_one_may_close() -> None:
    coverage = subject()
    coverage.cover(2, 0)
    coverage.message(1, 10)
    coverage.message(2, 10)
    coverage.cover(3, 15)  # begins after the coverage proved for 1 and 2
    assert coverage.may_close(1)
    assert coverage.may_close(2)

    coverage.closing(1)  # its closing handshake is in progress
    assert not coverage.may_close(2)
    assert coverage.lose(1) == []
    coverage.message(2, 17)
    assert coverage.may_close(2)
    assert coverage.lose(2) == []


def test_overlap_ends_a_minute_after_the_last_message_with_two_connections() -> None:
    coverage = subject()
    assert not coverage.overlaps
    coverage.cover(2, 1)
    assert coverage.overlaps
    assert not coverage.ends_overlap(at(10))
    coverage.lose(2)

    assert not coverage.ends_overlap(at(10) + DedupWindow.WITHIN_US)
    assert coverage.ends_overlap(at(10) + DedupWindow.WITHIN_US + 1)
    assert not coverage.overlaps


def test_receivers_are_answered_connections_and_wanted_are_all() -> None:
    coverage = Subject()
    coverage.opened(1, NAMES)
    assert (coverage.receivers(ORDERS), coverage.is_wanted(ORDERS)) == (0, True)
    assert tuple(coverage.unanswered(1)) == NAMES
    coverage.answer(1, 0)
    coverage.cover(2, 0)
    assert (coverage.receivers(ORDERS), list(coverage.unanswered(1))) == (2, [])
    assert list(coverage.open_connections()) == [1, 2]
    for connection in (1, 2):
        coverage.lose(connection)

    assert (coverage.receivers(ORDERS), coverage.is_wanted(ORDERS)) == (0, False)


# ---- earlier bridges, and restarts -----------------------------------------------------------


def test_outage_begins_at_the_mark_of_an_earlier_bridge() -> None:
    coverage = Subject()
    assert list(coverage.resume({ORDERS: NOW_US, "gone": 1})) == []

    assert coverage.cover(1, 5) == outage(0, 5, GapCause.NOT_RUNNING)


def test_mark_that_comes_late_shows_the_time_before_the_first_connection() -> None:
    coverage = Subject()
    coverage.cover(1, 5)
    coverage.message(1, 6)
    coverage.lose(1)
    assert coverage.cover(2, 9) == outage(5, 9)

    assert list(coverage.resume({ORDERS: NOW_US})) == outage(0, 5, GapCause.NOT_RUNNING)


def test_outage_that_the_journal_has_reported_is_not_reported_again_by_a_mark() -> None:
    coverage = subject()
    coverage.lost(1, GapCause.NOT_RUNNING)
    assert coverage.cover(2, 9) == outage(0, 9, GapCause.NOT_RUNNING)

    assert list(coverage.resume({ORDERS: NOW_US})) == []


def test_mark_that_was_not_applied_yet_is_used_by_the_next_process() -> None:
    coverage = Subject()
    coverage.cover(1, 5)
    coverage.lost(1, GapCause.NOT_RUNNING)
    later = restored(coverage)  # reads the journal from a later segment

    for each in (coverage, later):
        assert list(each.resume({ORDERS: at(-600)})) == outage(-600, 5, GapCause.NOT_RUNNING)
        assert each.cover(2, 9) == outage(5, 9, GapCause.NOT_RUNNING)


def test_restored_coverage_is_equal() -> None:
    coverage = subject()
    coverage.message(1, 7)
    again = restored(coverage)

    assert again.covered_until_us() == coverage.covered_until_us() == {ORDERS: at(6)}
    assert again.lose(1) == coverage.lose(1) == []
    assert again.cover(2, 9) == coverage.cover(2, 9) == outage(6, 9)


def test_restored_coverage_has_the_intervals_received_separately() -> None:
    before = subject()
    before.message(1, 5)
    before.cover(2, 9)
    before.answer(2, 15)
    before.lose(2)

    assert restored(before).lose(1) == outage(4, 9)


def test_proof_by_the_order_of_answers_survives_a_restart() -> None:
    coverage = subject()
    coverage.cover(2, 50)
    coverage.answer(1, 1)
    again = restored(coverage)
    again.answer(1, 1.2)

    assert again.may_close(1)


def test_state_of_an_earlier_version_is_read_without_the_later_fields() -> None:
    state = {
        "ears": {"1": [at(7), at(3), {TICKER: at(6)}]},
        "since": {"liquidation": [at(2), "silent"], "bookTicker.SOL_USDC": [at(1), "buffer full"]},
        "apart": {ORDERS: [[at(8), at(9)]]},
    }
    coverage = Subject()
    coverage.restore({1: {ORDERS: at(0), TICKER: 0}}, state)

    assert coverage.covered_until_us() == {ORDERS: at(6)}
    assert list(coverage.unanswered(1)) == [TICKER]
    coverage.opened(2, ["liquidation", "bookTicker.SOL_USDC"])
    assert coverage.answer(2, 9) == [
        Outage("liquidation", at(2), at(9), GapCause.STALE),
        Outage("bookTicker.SOL_USDC", at(1), at(9), GapCause.OVERFLOW),
    ]
    assert coverage.lose(1) == outage(6, 8)


def test_state_with_an_unknown_cause_is_refused() -> None:
    with pytest.raises(ValueError, match="boredom"):
        Coverage().restore({}, {"since": {ORDERS: [1, "boredom"]}})


def test_state_has_the_shape_of_todays_journals() -> None:
    coverage = Subject()
    coverage.opened(1, [ORDERS, TICKER])
    coverage.answer(1, 0)
    coverage.message(1, 2, TICKER)
    coverage.subscribed(1, [ORDERS, TICKER, "liquidation"])
    coverage.answer(1, 3)
    coverage.suspected(1, ORDERS, None)

    assert coverage.state() == {
        "ears": {
            "1": [
                at(2),
                0,
                {TICKER: at(2)},
                at(2),
                {TICKER: at(2)},
                at(2),
                {ORDERS: 0, TICKER: at(2.1), "liquidation": 0},
                {"liquidation": at(3)},
                2,
                {"1": 1},
            ]
        },
        "since": {ORDERS: [at(2.1), "stale"]},
        "until": {ORDERS: at(2.1)},
        "apart": {},
        "said": {},
        "begun": {ORDERS: at(2.1), TICKER: at(2.1)},
    }


def test_coverage_that_missed_a_beginning_takes_it_from_another_one() -> None:
    part, whole = Subject(), subject()
    part.resume({ORDERS: at(-9), "liquidation": at(-9)})

    found = part.settle_by(whole, [ORDERS, "liquidation"])

    assert list(found) == outage(-9, 0, GapCause.NOT_RUNNING)


# ---- subscriptions ---------------------------------------------------------------------------


def test_stream_that_was_left_has_an_outage_until_it_is_answered_again() -> None:
    coverage = subject()
    coverage.message(1, 5)

    assert coverage.subscribed(1, []) == ([ORDERS], [])
    assert coverage.covered_until_us() == {}
    assert coverage.subscribed(1, NAMES) == ([], [])

    assert coverage.answer(1, 9) == outage(4, 9, GapCause.UNSUBSCRIBED)


def test_stream_that_was_added_is_covered_from_its_own_answer() -> None:
    coverage = Subject()
    coverage.opened(1, [])
    coverage.answer(1, 0)
    coverage.subscribed(1, NAMES)
    assert coverage.covered_until_us() == {}

    coverage.answer(1, 3)

    assert coverage.covered_until_us() == {ORDERS: at(3)}


def test_answer_does_not_confirm_streams_that_were_requested_later() -> None:
    coverage = subject()
    coverage.opened(2, [ORDERS, "liquidation"])
    coverage.answer(2, 3, [ORDERS])
    assert coverage.covered_until_us() == {ORDERS: at(0), "liquidation": at(3)}
    coverage.lose(1)

    assert coverage.answer(2, 5) == outage(0, 5)


# ---- suspected streams -----------------------------------------------------------------------


def test_suspected_stream_has_an_outage_from_its_own_last_message() -> None:
    coverage = subject()
    coverage.message(1, 30)

    assert coverage.suspected(1, ORDERS, at(12)) == ([ORDERS], [])
    assert coverage.covered_until_us() == {}

    assert coverage.answer(1, 31) == outage(12, 31, GapCause.STALE)


def test_suspected_stream_without_messages_has_an_outage_from_its_answer() -> None:
    coverage = subject()
    coverage.suspected(1, ORDERS, None)

    assert coverage.answer(1, 31) == outage(0, 31, GapCause.STALE)


def test_stream_suspected_on_one_of_two_connections_has_no_outage() -> None:
    coverage = subject()
    coverage.cover(2, 1)

    assert coverage.suspected(1, ORDERS, at(12)) == ([], [])
    assert coverage.answer(1, 31) == []


# ---- monitored streams -----------------------------------------------------------------------


def test_monitored_stream_is_certain_only_until_its_last_message_when_a_connection_breaks() -> None:
    coverage = Subject()
    names = ["bookTicker.SOL_USDC", "bookTicker.BTC_USDC", ORDERS]
    coverage.opened(1, names)
    coverage.answer(1, 0)
    coverage.message(1, 3, "bookTicker.SOL_USDC")
    coverage.message(1, 8)  # other streams still receive messages

    for each in (restored(coverage), coverage):
        each.lose(1)
        each.opened(2, names)
        assert each.answer(2, 10) == [
            *outage(3, 10, stream="bookTicker.SOL_USDC"),
            *outage(0, 10, stream="bookTicker.BTC_USDC"),  # received no message
            *outage(7, 10),  # not monitored
        ]


def test_monitored_stream_that_another_connection_receives_has_no_outage_for_its_silence() -> None:
    coverage = Subject()
    for connection in (1, 2):
        coverage.opened(connection, ["bookTicker.SOL_USDC", ORDERS])
        coverage.answer(connection, connection)
    coverage.message(1, 8)

    assert coverage.lost(1, GapCause.CONNECTION_LOST) == ([], [])


# ---- invariants ------------------------------------------------------------------------------

# begin, last answer and end of each connection, in s
lives = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)).map(sorted),
    min_size=1,
    max_size=6,
)


@given(lives)
def test_every_moment_is_either_covered_or_in_one_outage(lives: list[list[int]]) -> None:
    coverage, found = Subject(), []
    moments = [
        (moment, step, number)
        for number, life in enumerate(lives)
        for step, moment in enumerate(life)
    ]
    covered = set()
    for moment, step, number in sorted(moments):
        if step == 0:
            found += coverage.cover(number, moment)
        elif step == 1:
            coverage.answer(number, moment)
            begin = lives[number][0]
            covered |= set(range(begin, max(begin, moment - 1)))
        else:
            found += coverage.lose(number)
    found += coverage.cover(99, 40)
    out = [second for each in found for second in range(_s(each.from_us), _s(each.to_us))]

    first = min(life[0] for life in lives)
    assert len(out) == len(set(out))
    assert set(out) == set(range(first, 40)) - covered


def _s(at_us: int) -> int:
    return (at_us - NOW_US) // SECOND_US
