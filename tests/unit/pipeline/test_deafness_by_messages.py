"""What messages tell of deafness: ticks of a stall, those of another of what one had forgotten."""

import json
from collections.abc import Iterable, Sequence

from bridge.pipeline.deafness import SILENT, UNSUBSCRIBED
from bridge.pipeline.ear import JITTER_US
from bridge.pipeline.past import NOT_RUNNING, Deaf
from tests.support.deafness import NOW_US, ORDERS, SECOND_US, Subject, at

BOOK, TICKER = "bookTicker.SOL_USDC", "ticker.SOL_USDC"


class Speaking(Subject):
    """Two streams, told message by message."""

    def listen(self, connection: int, seconds: float) -> list[Deaf]:
        self.opened(connection, [BOOK, TICKER, ORDERS])
        return list(self.answered(connection, at(seconds), at(seconds)))

    def begin(self, connection: int, seconds: float) -> None:
        """Listen from then on, by a message a little earlier."""
        self.listen(connection, seconds)
        self.say(connection, ORDERS, seconds - JITTER_US / SECOND_US)

    def say(
        self, connection: int, name: str, seconds: float, late_s: float = 0.0
    ) -> Sequence[Deaf]:
        ear = self.ears[connection]
        return self.heard(ear, name, at(seconds), at(seconds + late_s)).deaf

    def tick(self, connection: int, seconds: Iterable[float]) -> None:
        for second in seconds:
            assert not self.say(connection, TICKER, second)


def speaking() -> Speaking:
    deafness = Speaking()
    deafness.begin(1, 0)
    assert not deafness.say(1, BOOK, 0.5)
    return deafness


def found(deaf: Iterable[Deaf]) -> list[tuple[str, float, float, str]]:
    return sorted(
        (each.stream, (each.from_us - NOW_US) / 1e6, (each.to_us - NOW_US) / 1e6, each.cause)
        for each in deaf
    )


def test_a_connection_that_ticked_and_then_brought_nothing_was_deaf_to_all_of_its_streams() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3])

    assert found(deafness.say(1, BOOK, 6.5)) == [
        (ORDERS, 2, 6.6, SILENT),
        (BOOK, 0.5, 6.6, SILENT),
        (TICKER, 2, 6.6, SILENT),
    ]
    assert not deafness.say(1, TICKER, 7)


def test_where_something_ticks_an_answer_alone_is_no_proof_of_listening() -> None:
    deafness = Speaking()
    deafness.listen(1, 0)
    assert not list(deafness.resume({BOOK: at(-5)}))
    deafness.listen(1, 1)

    assert found(deafness.say(1, TICKER, 4.5)) == [(BOOK, -5, 4.6, NOT_RUNNING)]


def test_what_is_refused_before_the_first_message_behind_its_answer_is_not_listened_to() -> None:
    deafness = Speaking()
    deafness.listen(1, 0)
    deafness.doubted(1, ORDERS, 0)
    deafness.tick(1, [1])

    assert sorted(deafness.heard_up_to_us()) == [BOOK, TICKER]


def test_a_pause_of_two_ticks_or_one_of_our_own_clock_or_the_exchanges_alone_is_none() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 4.9])
    assert not deafness.say(1, TICKER, 5.9, late_s=60)  # we slept
    assert not deafness.say(1, TICKER, 30, late_s=36)  # its clock jumped


def test_a_connection_whose_ticks_had_ended_before_proves_nothing_by_a_pause() -> None:
    deafness = speaking()
    deafness.tick(1, [1])
    deafness.say(1, ORDERS, 12)
    assert not deafness.say(1, ORDERS, 60)


def test_a_late_message_that_slips_through_does_not_hide_a_stall() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3])
    assert not deafness.say(1, BOOK, 4.9, late_s=2)

    assert found(deafness.say(1, BOOK, 7.6)) == [
        (name, 2.9, 7.7, SILENT)  # messages of several streams are not quite in order
        for name in (ORDERS, BOOK, TICKER)
    ]


def test_a_tick_that_is_missing_where_others_flow_tells_nothing_of_those() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2])
    for half_seconds in range(5, 18):
        assert not deafness.say(1, BOOK, half_seconds / 2)


def test_a_stuck_connection_does_not_say_when_its_replacement_began_to_listen() -> None:
    deafness = speaking()
    deafness.tick(1, range(1, 8))
    deafness.begin(2, 9.8)

    assert found(deafness.lose(1)) == [
        (ORDERS, 6, 9.8, "connection lost"),
        (BOOK, 0.5, 9.8, "connection lost"),
        (TICKER, 6, 9.8, "connection lost"),
    ]


def test_what_lags_behind_the_exchanges_clock_is_heard_from_its_own_time_on() -> None:
    deafness = speaking()
    deafness.hear(1, 20)
    deafness.listen(2, 33)
    deafness.say(2, ORDERS, 19, late_s=14)
    assert not deafness.may_leave(1)
    deafness.hear(1, 21)

    assert deafness.may_leave(1)
    assert deafness.lose(1) == []


def test_with_another_connection_listening_a_stall_is_no_deafness() -> None:
    deafness = speaking()
    deafness.begin(2, 0.2)
    for connection in (1, 2):
        deafness.tick(connection, [1, 2])
    deafness.tick(2, [3, 4, 5, 6])

    assert not deafness.say(1, TICKER, 7)


def test_a_tick_that_is_missed_where_nothing_comes_at_all_is_deafness_of_all() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3])
    assert deafness.doubted(1, TICKER, at(3)) == ([BOOK, TICKER, ORDERS], [])

    assert not list(deafness.answered(1, at(9), at(9)))  # and is stuck
    assert found(deafness.say(1, BOOK, 9.2)) == [
        (ORDERS, 2, 9.3, SILENT),
        (BOOK, 0.5, 9.3, SILENT),
        (TICKER, 3, 9.3, SILENT),
    ]


def test_a_tick_that_is_missed_where_others_come_is_deafness_of_one() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3])
    deafness.say(1, BOOK, 5)

    assert deafness.doubted(1, TICKER, at(3)) == ([TICKER], [])


def test_what_only_the_replacement_heard_was_forgotten_by_the_one_before() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3, 4])
    deafness.begin(2, 4.5)
    deafness.tick(2, [5, 6])
    deafness.say(2, BOOK, 5.2)
    deafness.tick(1, [5, 6])
    assert not deafness.may_leave(1)  # it may yet come
    deafness.tick(1, [7])

    assert deafness.may_leave(1)
    assert found(deafness.lose(1)) == [(BOOK, 0.5, 4.5, SILENT)]
    deafness.say(2, BOOK, 8)
    assert found(deafness.lose(2)) == []


def test_what_was_forgotten_when_a_stall_ended_is_told_by_the_replacement() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3])
    stalled = found(deafness.say(1, TICKER, 7))
    assert (
        BOOK,
        0.5,
        7.1,
        SILENT,
    ) in stalled  # it ticks again, and BOOK is not subscribed any more
    deafness.begin(2, 7.4)
    for connection in (1, 2):
        deafness.tick(connection, [8, 9, 10])
    deafness.say(2, BOOK, 8.2)

    assert found(deafness.lose(1)) == [(BOOK, 7.1, 7.4, SILENT)]


def test_what_a_connection_had_forgotten_shows_in_whatever_way_it_goes() -> None:
    def forgetful() -> Speaking:
        deafness = speaking()
        deafness.tick(1, [1, 2, 3, 4])
        deafness.begin(2, 4.5)
        deafness.tick(2, [5, 6, 7])
        deafness.say(2, BOOK, 5.2)
        deafness.tick(1, [5, 6, 7])
        return deafness

    gap = (BOOK, 0.5, 4.5, SILENT)
    assert found(forgetful().lose(1)) == [gap]
    assert found(forgetful().doubted(1, TICKER, at(7)).deaf) == [gap]
    assert found(forgetful().changed(1, [TICKER]).deaf) == [(*gap[:3], UNSUBSCRIBED)]


def test_the_same_message_with_a_slightly_later_time_was_not_forgotten() -> None:
    deafness = speaking()
    deafness.tick(1, range(1, 31))
    deafness.begin(2, 30.5)
    deafness.say(2, BOOK, 31.2)

    assert not deafness.say(1, BOOK, 31.22)


def test_what_was_said_before_a_new_beginning_is_no_measure_for_what_is_missed_since() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3])
    deafness.begin(2, 2.5)
    deafness.say(2, BOOK, 5)
    deafness.doubted(1, BOOK, at(0.5))
    for connection in (1, 2):
        deafness.tick(connection, range(4, 10))
    assert not list(deafness.answered(1, at(9.5), at(9.5)))
    for connection in (1, 2):
        deafness.tick(connection, range(10, 30))
    assert not deafness.say(1, BOOK, 29.5)

    assert found(deafness.lose(2)) == []


def test_what_an_unanswered_connection_says_is_no_proof_that_another_listened() -> None:
    deafness = speaking()
    deafness.tick(1, range(1, 8))
    deafness.opened(2, [BOOK, TICKER, ORDERS])
    deafness.say(2, BOOK, 8)
    deafness.lose(1)
    list(deafness.answered(2, at(11), at(11)))

    assert (BOOK, 0.5, 11.1, "connection lost") in found(deafness.say(2, TICKER, 11))


def test_what_spoke_again_after_another_was_heard_had_been_forgotten_until_then() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3, 4])
    deafness.begin(2, 4.5)
    deafness.say(2, BOOK, 5.2)

    assert found(deafness.say(1, BOOK, 6)) == [(BOOK, 0.5, 4.5, SILENT)]
    assert found(deafness.lose(1)) == []


def test_where_one_took_over_too_late_the_gap_begins_at_the_last_message() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3, 4])
    deafness.begin(2, 9)

    assert found(deafness.lose(1)) == [
        (ORDERS, 3, 9, "connection lost"),
        (BOOK, 0.5, 9, "connection lost"),
        (TICKER, 3, 9, "connection lost"),
    ]


def test_what_is_known_of_each_message_outlives_a_restart() -> None:
    deafness = speaking()
    deafness.tick(1, [1, 2, 3, 4])
    deafness.begin(2, 4.5)
    deafness.say(2, BOOK, 5.2)
    again = Speaking()
    state = json.loads(json.dumps(deafness.state()))
    again.restore({str(number): ear.streams for number, ear in deafness.ears.items()}, state)

    assert again.state() == deafness.state()
    assert found(again.say(1, BOOK, 6)) == [(BOOK, 0.5, 4.5, SILENT)]
