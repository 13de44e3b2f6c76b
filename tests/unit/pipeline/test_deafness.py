"""From when to when nobody was listening."""

import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.pipeline.deafness import SILENT, UNSUBSCRIBED, Deafness
from bridge.pipeline.past import NOT_RUNNING, Deaf
from tests.support.deafness import NAMES, NOW_US, ORDERS, SECOND_US, Subject, at, deaf


def subject() -> Subject:
    deafness = Subject()
    assert deafness.listen(1, 0) == []
    return deafness


def test_deaf_from_the_exchanges_newest_time_less_what_was_under_way() -> None:
    deafness = subject()
    deafness.hear(1, 5)
    assert deafness.lost(1, "connection lost") == ([ORDERS], [])

    assert deafness.listen(2, 9) == deaf(4, 9)


def test_a_connection_that_heard_nothing_was_listening_until_it_was_answered() -> None:
    deafness = subject()
    deafness.lose(1)

    assert deafness.listen(2, 9) == deaf(0, 9)


def test_a_quiet_connection_was_listening_as_long_as_it_was_answered() -> None:
    deafness = subject()
    list(deafness.answered(1, at(60), at(60)))
    deafness.lose(1)

    assert deafness.listen(2, 70) == deaf(59, 70)


def test_an_answer_that_took_long_proves_no_more_than_that_it_was_asked_for() -> None:
    deafness = subject()
    list(deafness.answered(1, at(60), at(60), until_us=at(45)))
    deafness.lose(1)

    assert deafness.listen(2, 70) == deaf(44, 70)


def test_without_an_answer_nothing_is_heard_but_messages() -> None:
    deafness = Subject()
    deafness.opened(1, NAMES)
    deafness.hear(1, 3)
    list(deafness.answered(1, at(20), at(20), until_us=0))  # by then it has what it was asked for
    list(deafness.answered(1, at(40), at(40), until_us=0))
    assert deafness.heard_up_to_us() == {ORDERS: at(20)}
    deafness.hear(1, 41)
    deafness.lose(1)

    assert deafness.listen(2, 70) == deaf(40, 70)


def test_an_exchange_whose_clock_is_ahead_does_not_hide_deafness() -> None:
    deafness = subject()
    deafness.hear(1, 3600)
    deafness.lose(1)

    (found,) = deafness.listen(2, 9)

    assert found.from_us < found.to_us == at(9)


def test_what_a_connection_heard_that_was_never_answered_is_no_proof_of_listening() -> None:
    deafness = Subject()
    deafness.opened(1, NAMES)
    deafness.hear(1, 5)
    deafness.lose(1)

    assert deafness.listen(2, 9) == deaf(4, 9)


def test_what_an_unanswered_connection_heard_does_not_hide_what_was_before_it() -> None:
    deafness = Subject()
    deafness.opened(1, NAMES)
    deafness.hear(1, 5)
    deafness.lose(1)

    assert list(deafness.resume({ORDERS: at(-20)})) == deaf(-20, 4, NOT_RUNNING)
    assert deafness.certain_up_to_us() == {}
    assert deafness.listen(2, 9) == deaf(4, 9)


def test_what_was_heard_before_the_last_connection_went_is_told_to_others() -> None:
    deafness = subject()
    deafness.hear(1, 7)
    deafness.lose(1)

    assert deafness.heard_up_to_us() == {}
    assert deafness.certain_up_to_us() == {ORDERS: at(6)}


def test_with_another_connection_listening_the_end_of_one_is_no_deafness() -> None:
    deafness = subject()
    assert deafness.listen(2, 10) == []
    deafness.hear(1, 20)

    assert deafness.lost(1, "connection lost") == ([], [])
    assert deafness.heard_up_to_us() == {ORDERS: at(19)}

    deafness.hear(2, 25)
    assert deafness.lost(2, "connection lost") == ([ORDERS], [])
    assert deafness.listen(3, 30) == deaf(24, 30)


def test_an_overlap_with_a_connection_that_was_dead_already_is_none() -> None:
    deafness = subject()
    deafness.hear(1, 10)
    assert deafness.listen(2, 40) == []
    deafness.hear(2, 60)

    assert deafness.heard_up_to_us() == {ORDERS: at(9)}
    assert deafness.lose(1) == deaf(9, 40)
    assert deafness.heard_up_to_us() == {ORDERS: at(59)}


def test_an_overlap_is_proven_by_an_answer_on_the_old_connection() -> None:
    deafness = subject()
    deafness.listen(2, 40)
    list(deafness.answered(1, at(42), at(42)))

    assert deafness.lose(1) == []


def test_an_answer_proves_nothing_where_messages_should_flow() -> None:
    deafness = subject()
    deafness.ears[1].streams["ticker.SOL_USDC"] = NOW_US
    deafness.hear(1, 10)
    list(deafness.answered(1, at(40), at(40)))  # it answers, and brings nothing
    deafness.lose(1)

    assert deaf(9, 50)[0] in deafness.listen(2, 50)


def test_an_answer_proves_no_more_than_the_messages_of_other_connections() -> None:
    deafness = subject()
    deafness.listen(2, 0)
    deafness.ears[2].streams = {"ticker.SOL_USDC": NOW_US}
    deafness.hear(2, 90)  # the exchange's messages are ten seconds behind its clock
    deafness.ears[2].ticked_at_us = at(100)
    list(deafness.answered(1, at(100), at(100)))
    deafness.lose(1)

    assert deafness.listen(3, 110) == deaf(89, 110)


def test_two_answers_behind_the_beginning_of_another_prove_an_overlap_whatever_clocks_say() -> None:
    deafness = subject()
    deafness.listen(2, 50)
    list(deafness.answered(1, at(1), at(1)))  # perhaps asked for before
    assert not deafness.may_leave(1)
    list(deafness.answered(1, at(2), at(2)))

    assert deafness.may_leave(1)
    assert deafness.lose(1) == []


def test_answers_that_never_came_prove_no_overlap() -> None:
    deafness = subject()
    deafness.listen(2, 50)
    for _ in range(2):
        list(deafness.answered(1, at(60), at(60), until_us=0))

    assert not deafness.may_leave(1)
    assert deafness.lose(1) == deaf(0, 50)


def test_such_a_proof_outlives_a_restart() -> None:
    deafness = subject()
    deafness.listen(2, 50)
    list(deafness.answered(1, at(1), at(1)))
    again = Subject()
    state = json.loads(json.dumps(deafness.state()))
    again.restore({str(number): ear.streams for number, ear in deafness.ears.items()}, state)
    list(again.answered(1, at(1.2), at(1.2)))

    assert again.may_leave(1)


def test_of_two_that_rest_on_each_other_only_one_may_leave() -> None:
    deafness = subject()
    deafness.listen(2, 0)
    deafness.hear(1, 10)
    deafness.hear(2, 10)
    deafness.listen(3, 15)  # replaces them, and began behind what either is known to have heard
    assert deafness.may_leave(1)
    assert deafness.may_leave(2)

    deafness.leaving(1)  # its farewell takes a while
    assert not deafness.may_leave(2)
    assert deafness.lose(1) == []
    deafness.hear(2, 17)
    assert deafness.may_leave(2)
    assert deafness.lose(2) == []


def test_an_earlier_bridges_mark_is_where_deafness_begins() -> None:
    deafness = Subject()
    assert list(deafness.resume({ORDERS: NOW_US, "gone": 1})) == []

    assert deafness.listen(1, 5) == deaf(0, 5, NOT_RUNNING)


def test_a_mark_that_is_told_late_says_what_lies_before_the_first_hearing() -> None:
    deafness = Subject()
    deafness.listen(1, 5)
    deafness.hear(1, 6)
    deafness.lose(1)
    assert deafness.listen(2, 9) == deaf(5, 9)

    assert list(deafness.resume({ORDERS: NOW_US})) == deaf(0, 5, NOT_RUNNING)


def test_what_the_journal_has_marked_a_mark_does_not_mark_again() -> None:
    deafness = subject()
    deafness.lost(1, NOT_RUNNING)
    assert deafness.listen(2, 9) == deaf(0, 9, NOT_RUNNING)

    assert list(deafness.resume({ORDERS: NOW_US})) == []


def test_what_no_process_was_told_yet_the_next_one_is() -> None:
    deafness = Subject()
    deafness.listen(1, 5)
    deafness.lost(1, NOT_RUNNING)
    later = Subject()  # which reads the journal from a later segment on
    later.restore({}, json.loads(json.dumps(deafness.state())))

    for each in (deafness, later):
        assert list(each.resume({ORDERS: at(-600)})) == deaf(-600, 5, NOT_RUNNING)
        assert each.listen(2, 9) == deaf(5, 9, NOT_RUNNING)


def test_a_stream_that_was_left_is_deaf_until_it_is_heard_again() -> None:
    deafness = subject()
    deafness.hear(1, 5)

    assert deafness.changed(1, []) == ([ORDERS], [])
    assert deafness.heard_up_to_us() == {}
    assert deafness.changed(1, NAMES) == ([], [])

    assert list(deafness.answered(1, at(9), at(9))) == deaf(4, 9, UNSUBSCRIBED)


def test_a_stream_that_came_later_is_listened_to_from_its_own_answer() -> None:
    deafness = Subject()
    deafness.opened(1, [])
    list(deafness.answered(1, at(0), at(0)))
    deafness.changed(1, NAMES)
    assert deafness.heard_up_to_us() == {}

    list(deafness.answered(1, at(3), at(3)))

    assert deafness.heard_up_to_us() == {ORDERS: at(3)}


def test_an_answer_is_not_about_what_was_asked_for_later() -> None:
    deafness = subject()
    deafness.opened(2, [ORDERS, "liquidation"])
    list(deafness.answered(2, at(3), at(3), [ORDERS]))
    assert deafness.heard_up_to_us() == {ORDERS: at(0), "liquidation": at(3)}
    deafness.lose(1)

    assert list(deafness.answered(2, at(5), at(5))) == deaf(0, 5)


def test_a_stream_that_fell_silent_is_deaf_from_its_own_last_message() -> None:
    deafness = subject()
    deafness.hear(1, 30)  # of other streams

    assert deafness.doubted(1, ORDERS, at(12)) == ([ORDERS], [])
    assert deafness.heard_up_to_us() == {}

    assert list(deafness.answered(1, at(31), at(31))) == deaf(12, 31, SILENT)


def test_a_stream_that_was_silent_from_the_beginning_is_deaf_since_then() -> None:
    deafness = subject()
    deafness.doubted(1, ORDERS, 0)

    assert list(deafness.answered(1, at(31), at(31))) == deaf(0, 31, SILENT)


def test_silence_on_one_of_two_connections_is_no_deafness() -> None:
    deafness = subject()
    deafness.listen(2, 1)

    assert deafness.doubted(1, ORDERS, at(12)) == ([], [])
    assert list(deafness.answered(1, at(31), at(31))) == []


def test_what_is_known_can_be_written_down_and_read_again() -> None:
    deafness = subject()
    deafness.hear(1, 7)
    read = Subject()

    read.restore({"1": {ORDERS: NOW_US}}, deafness.state())  # type: ignore[arg-type]

    assert read.heard_up_to_us() == deafness.heard_up_to_us() == {ORDERS: at(6)}
    assert read.lose(1) == deafness.lose(1)
    assert read.listen(2, 9) == deafness.listen(2, 9) == deaf(6, 9)


def test_a_half_open_connection_does_not_hide_what_was_between_it_and_the_next() -> None:
    """The one beside it came later and went earlier than the half-open one was given up."""
    deafness = subject()
    deafness.hear(1, 5)  # half-open from here on, and nobody knows
    assert deafness.listen(2, 9) == []
    deafness.hear(2, 15)
    assert deafness.lose(2) == []  # the first may have heard it all

    assert deafness.lose(1) == deaf(4, 9)
    assert deafness.listen(3, 20) == deaf(14, 20)


def test_what_is_heard_apart_can_be_written_down_too() -> None:
    before = subject()
    before.hear(1, 5)
    before.listen(2, 9)
    list(before.answered(2, at(15), at(15)))
    before.lose(2)

    after = Subject()
    known = json.loads(json.dumps(before.state()))
    streams = {str(number): ear.streams for number, ear in before.ears.items()}
    after.restore(streams, known)
    assert after.lose(1) == deaf(4, 9)


# begin, last answer, end of each connection: in whole seconds, in this order
lives = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)).map(sorted),
    min_size=1,
    max_size=6,
)


@given(lives)
def test_every_moment_is_claimed_by_somebody_or_said_to_be_deaf_and_never_both(
    lives: list[list[int]],
) -> None:
    deafness, found = Subject(), []
    moments = [
        (moment, step, number)
        for number, life in enumerate(lives)
        for step, moment in enumerate(life)
    ]
    claimed = set()
    for moment, step, number in sorted(moments):
        if step == 0:
            found += deafness.listen(number, moment)
        elif step == 1:
            list(deafness.answered(number, at(moment), at(moment)))
            begin = lives[number][0]
            claimed |= set(range(begin, max(begin, moment - 1)))
        else:
            found += deafness.lose(number)
    found += deafness.listen(99, 40)
    said = [second for each in found for second in range(_s(each.from_us), _s(each.to_us))]

    first = min(life[0] for life in lives)
    assert len(said) == len(set(said))
    assert set(said) == set(range(first, 40)) - claimed


def _s(at_us: int) -> int:
    return (at_us - NOW_US) // SECOND_US


def test_a_stream_that_was_silent_when_its_connection_broke_is_deaf_from_its_last_message() -> None:
    deafness = Deafness()
    names = ["bookTicker.SOL_USDC", "bookTicker.BTC_USDC", ORDERS]
    deafness.opened(1, names)
    list(deafness.answered(1, at(0), at(0)))
    deafness.ears[1].spoken_us["bookTicker.SOL_USDC"] = at(3)
    deafness.ears[1].newest_us = at(8)  # others go on
    restored = Deafness()
    since = {"1": dict(deafness.ears[1].streams)}
    restored.restore(since, json.loads(json.dumps(deafness.state())))

    for each in (deafness, restored):
        each.lost(1, "connection lost")
        each.opened(2, names)
        assert list(each.answered(2, at(10), at(10))) == [
            Deaf("bookTicker.SOL_USDC", at(3), at(10), "connection lost"),
            Deaf("bookTicker.BTC_USDC", at(0), at(10), "connection lost"),  # never spoke
            Deaf(ORDERS, at(7), at(10), "connection lost"),  # comes when it comes
        ]


def test_a_stream_that_another_connection_hears_is_not_deaf_for_having_been_silent() -> None:
    deafness = Deafness()
    names = ["bookTicker.SOL_USDC"]
    for connection in (1, 2):
        deafness.opened(connection, names)
        list(deafness.answered(connection, at(connection), at(connection)))
    deafness.ears[1].newest_us = at(8)
    assert deafness.lost(1, "connection lost") == ([], [])
