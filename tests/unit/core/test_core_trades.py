"""Trade streams in a core: gaps recovered from history, remaining gaps, and the gap log."""

import pytest

from bridge.core import trade_gaps
from bridge.core.entries import Wait
from bridge.core.outcomes import Reach
from bridge.core.plan import ResumePoints
from bridge.core.records import BodyKind
from bridge.core.wants import TradesWanted
from tests.support.core_subject import NOW_US, TRADES, CoreSubject, history, trade

SECOND_US = 1_000_000
RECOVER_US = 30 * SECOND_US


def test_core_gap_in_trades_is_filled_from_history_in_its_place() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))
    assert core.requests == [TRADES]
    assert core.core.wants(TRADES, NOW_US) == TradesWanted(4)

    assert core.rest(TRADES, history(9, 8, 7, 6, 5)) is Reach.DONE

    assert core.waiting(TRADES) == [("A", number) for number in (5, 6, 7, 8, 9)]
    (record,) = core.logged()
    assert (record["from"], record["to"], record["recovered"], record["how"]) == (
        "6", "8", "true", "history",
    )  # fmt: skip
    assert core.queue(TRADES).counters.recovered == 1
    assert core.core.wants(TRADES, NOW_US) is None


def test_core_numbers_that_history_does_not_have_are_logged_and_leave_no_gap() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))

    core.rest(TRADES, history(9, 5))
    core.publish()

    assert core.redis.numbers(TRADES) == ["gap - start", "5", "9"]
    assert core.redis.entries("bridge:gaps")[0]["how"] == "no such trades"


def test_core_gap_that_history_does_not_reach_is_written_and_logged() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))

    assert core.rest(TRADES, b"[]", BodyKind.END) is Reach.DONE
    core.publish()

    assert core.redis.numbers(TRADES) == ["gap - start", "5", "gap 6-8 skipped", "9"]
    (record,) = core.redis.entries("bridge:gaps")
    assert (record["from"], record["to"], record["recovered"]) == ("6", "8", "false")


def test_core_gap_waits_half_a_minute_for_history_and_is_written_then() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))
    core.publish()
    core.now_us += RECOVER_US - 1
    core.publish()
    assert core.redis.numbers(TRADES) == ["gap - start", "5"]

    core.now_us += 1
    core.publish()

    assert core.redis.numbers(TRADES) == ["gap - start", "5", "gap 6-8 skipped", "9"]
    assert core.core.wants(TRADES, core.now_us) is None


def test_core_trades_behind_a_gap_are_sent_when_it_is_released() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))
    core.publish()

    core.core.wait_no_longer()
    core.publish()

    assert core.redis.numbers(TRADES)[-2:] == ["gap 6-8 skipped", "9"]


def test_core_gap_older_than_its_wait_is_released_by_the_next_trade() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))
    core.publish()
    core.now_us += RECOVER_US + 1

    core.receive(trade(10, core.now_us))
    core.publish()

    assert core.redis.numbers(TRADES)[-3:] == ["gap 6-8 skipped", "9", "10"]


def test_core_trade_that_redis_refuses_without_a_known_gap_requests_history() -> None:
    core = CoreSubject(TRADES)
    core.receive(trade(5))
    core.publish()
    again = CoreSubject(TRADES, redis=core.redis)  # without a journal: 5 is unknown to it

    again.receive(trade(8))
    again.publish()

    assert again.requests == [TRADES]
    assert again.core.wants(TRADES, again.now_us) == TradesWanted(3)
    again.rest(TRADES, history(8, 7, 6, 5))
    again.publish()
    assert again.redis.numbers(TRADES) == ["gap - start", "5", "6", "7", "8"]


def test_core_replayed_gap_waits_for_the_page_that_follows_in_the_journal() -> None:
    core = CoreSubject(TRADES, resume=ResumePoints(0, 1_000))
    for number in (5, 9):
        core.receive(trade(number))
    core.now_us += 2 * RECOVER_US
    core.publish()
    assert core.redis.numbers(TRADES) == ["gap - start", "5"]

    core.now_us -= 2 * RECOVER_US
    core.rest(TRADES, history(9, 8, 7, 6, 5))
    core.publish()

    assert core.redis.numbers(TRADES) == ["gap - start", "5", "6", "7", "8", "9"]


def test_core_replayed_gap_waits_by_the_clock_when_the_journal_is_read() -> None:
    core = CoreSubject(TRADES, resume=ResumePoints(0, 2))
    core.position = 0
    for number in (5, 9):
        core.receive(trade(number))
    core.publish()

    core.catch_up()
    assert core.requests.count(TRADES) == 2
    core.now_us += RECOVER_US
    core.publish()

    assert core.redis.numbers(TRADES)[-2:] == ["gap 6-8 skipped", "9"]


def test_core_gap_that_was_written_is_not_filled_from_history_later() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))
    core.publish()
    core.queue(TRADES).slots[0].wait_until(0)  # as if an earlier process had waited
    core.queue(TRADES).release()
    core.publish()
    assert core.redis.numbers(TRADES)[-2:] == ["gap 6-8 skipped", "9"]

    core.rest(TRADES, history(9, 8, 7, 6, 5))
    core.publish()

    assert core.redis.numbers(TRADES)[-2:] == ["gap 6-8 skipped", "9"]


def test_core_recovered_trades_are_not_put_into_a_detached_queue() -> None:
    core = CoreSubject(TRADES)
    for number in (5, 9):
        core.receive(trade(number))
    core.core.detach([TRADES])

    core.rest(TRADES, history(9, 8, 7, 6, 5))

    assert core.waiting(TRADES) == [("A", 5), ("A", 9)]
    assert core.logged() == []


def test_core_three_skips_of_the_exchange_do_not_hide_the_gap_after_them() -> None:
    core = CoreSubject(TRADES)
    core.receive(trade(10))
    for number in (20, 30, 40):
        core.receive(trade(number))
        core.rest(TRADES, history(number, number - 10))
    assert core.core.sparse() == [TRADES]

    core.receive(trade(44))
    core.receive(trade(50))  # 45 to 49 are not requested at once
    core.rest(TRADES, history(50, 48, 44, 43, 42, 41, 40))

    recovered, unseen = core.logged()[-2:]
    assert (recovered["from"], recovered["to"], recovered["how"]) == ("41", "43", "history")
    assert (unseen["from"], unseen["to"], unseen["recovered"]) == ("45", "49", "false")
    assert core.queue(TRADES).counters.gaps == 1
    assert core.core.sparse() == []


def test_core_gap_of_trades_keeps_the_cause_that_was_noted_before_it() -> None:
    core = CoreSubject(TRADES)
    core.receive(trade(5))
    core.answer(1)
    core.lose(1)
    core.open(2)
    core.receive(trade(9), 2)

    core.rest(TRADES, b"[]", BodyKind.END)
    core.publish()

    assert core.redis.numbers(TRADES)[-2:] == ["gap 6-8 connection lost", "9"]


def test_core_gap_beyond_the_limit_of_open_gaps_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_gaps, "MAX_OPEN", 5)
    core = CoreSubject(TRADES)
    for number in range(2, 16, 2):  # 6 gaps
        core.receive(trade(number))
    assert core.queue(TRADES).slots[-1].wait is Wait.AS_QUEUE

    for _ in range(2):  # the last gap is opened when the others are marked
        core.publish()
        core.now_us += RECOVER_US
    core.publish()

    assert core.redis.numbers(TRADES)[-4:] == ["gap 11-11 skipped", "12", "gap 13-13 skipped", "14"]
