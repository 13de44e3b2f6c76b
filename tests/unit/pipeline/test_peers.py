"""Whose turn it is, and whom a gap waits for: literal words of other bridges in, decisions out."""

from bridge.pipeline.peers import (
    DEAF_US,
    LAG_US,
    PATIENCE_US,
    SILENT_US,
    STALE_US,
    TURN_US,
    Company,
    DeafMark,
    Word,
)

NOW_US = 1_790_915_531_000_000
SECOND_US = 1_000_000
ORDERS, TRADES = "account.orderUpdate", "trade.SOL_USDC"


def word(instance: str, beat: int = 1, **facts: object) -> Word:
    told = {"instance": instance, "session": instance * 2, "beat": beat, "at_us": NOW_US, **facts}
    return Word.model_validate(told)


def look(
    company: Company, *others: Word, me: Word | None = None, now_us: int = NOW_US, **marks: int
) -> None:
    own = me or word("m")
    company.look(own, [own, *others], marks, redis_us=NOW_US, now_us=now_us)


def with_other(name: str, **facts: object) -> Company:
    company = Company()
    look(company, word(name, **facts))
    return company


def may_mark(company: Company, after: int = 5, now_us: int = NOW_US) -> bool:
    return company.may_mark(TRADES, after, NOW_US, waited_since_us=NOW_US, now_us=now_us)


def test_a_bridge_alone_waits_for_nobody() -> None:
    company = Company()

    assert (company.rank, company.turn_us(ORDERS), company.hears(ORDERS)) == (0, 0, False)
    assert may_mark(company)
    assert company.waits_from_us(NOW_US) == NOW_US
    assert company.judge_deafness(ORDERS, NOW_US, NOW_US) is DeafMark.TRUE


def test_before_the_first_look_nothing_is_marked() -> None:
    company = Company()
    company.expect()

    assert not company.knows
    assert not may_mark(company)
    look(company)
    assert company.knows
    assert may_mark(company)


def test_turns_go_by_name_among_those_that_hear_a_stream() -> None:
    company = Company()
    look(
        company,
        word("a", heard={ORDERS: NOW_US}),
        word("b", heard={ORDERS: NOW_US, TRADES: NOW_US}),
        word("z", heard={ORDERS: NOW_US}),
    )

    assert company.rank == 2
    assert company.turn_us(ORDERS) == 2 * TURN_US
    assert company.turn_us(TRADES) == TURN_US
    assert company.turn_us("liquidation") == 0


def test_one_that_has_stopped_is_not_there() -> None:
    assert not with_other("a", heard={ORDERS: NOW_US}, stopped=True).live


def test_one_whose_last_word_is_old_at_the_first_look_is_not_there() -> None:
    assert not with_other("a", at_us=NOW_US - SILENT_US).live
    assert with_other("a", at_us=NOW_US - SILENT_US + 1).live


def test_one_that_says_nothing_new_for_seconds_is_gone_and_comes_back_with_a_word() -> None:
    company = with_other("a", heard={ORDERS: NOW_US})
    look(company, word("a", heard={ORDERS: NOW_US}), now_us=NOW_US + SILENT_US)
    assert (company.rank, company.turn_us(ORDERS)) == (0, 0)

    look(company, word("a", 2, heard={ORDERS: NOW_US}), now_us=NOW_US + SILENT_US + 1)
    assert (company.rank, company.turn_us(ORDERS)) == (1, TURN_US)


def test_silence_while_redis_was_away_says_nothing() -> None:
    company = with_other("a")
    company.look_failed()
    later_us = NOW_US + 10 * SILENT_US

    look(company, word("a"), now_us=later_us)
    assert company.live
    look(company, word("a"), now_us=later_us + SILENT_US)
    assert not company.live


def test_one_that_lags_behind_what_we_heard_seconds_ago_hears_nothing() -> None:
    company = Company()
    stuck = {ORDERS: NOW_US}
    for second in range(20):
        heard = {ORDERS: NOW_US + 1 + second * SECOND_US}
        look(
            company,
            word("a", second, heard=stuck),
            me=word("m", heard=heard),
            now_us=NOW_US + second * SECOND_US,
        )
        lag_us = second * SECOND_US
        assert company.turn_us(ORDERS) == (0 if lag_us >= DEAF_US else TURN_US)
        assert company.hears(ORDERS) is (lag_us < LAG_US)
        if second == 10:  # not its turn any more, but a mark still waits for it
            assert (company.turn_us(ORDERS), company.hears(ORDERS)) == (0, True)


def test_a_gap_waits_for_one_that_is_held_lower() -> None:
    assert not may_mark(with_other("z", held={TRADES: 4}), after=5)
    assert may_mark(with_other("z", held={TRADES: 5}), after=5)
    assert may_mark(with_other("z", held={TRADES: 9}), after=5)


def test_a_gap_waits_for_one_that_has_not_got_so_far() -> None:
    assert not may_mark(with_other("z", heard={TRADES: NOW_US - 1}))
    assert may_mark(with_other("z", heard={TRADES: NOW_US}))
    assert not may_mark(with_other("z", heard={TRADES: NOW_US}, oldest_us=NOW_US))
    assert may_mark(with_other("z", heard={TRADES: NOW_US}, oldest_us=NOW_US + 1))


def test_a_gap_waits_for_one_that_does_not_know_how_far_it_is() -> None:
    assert not may_mark(with_other("z", oldest_us=1))


def test_one_that_does_not_hear_the_stream_is_not_waited_for() -> None:
    assert may_mark(with_other("z", heard={ORDERS: NOW_US}))


def test_nobody_is_waited_for_longer_than_half_a_minute() -> None:
    company = with_other("z", held={TRADES: 4})

    assert not may_mark(company, now_us=NOW_US + PATIENCE_US - 1)
    assert may_mark(company, now_us=NOW_US + PATIENCE_US)


def test_after_a_pause_of_redis_everybody_has_time_again() -> None:
    company = with_other("z", held={TRADES: 4})
    company.resumed(NOW_US + PATIENCE_US)

    assert company.waits_from_us(NOW_US) == NOW_US + PATIENCE_US
    assert not may_mark(company, now_us=NOW_US + PATIENCE_US)


def test_an_interval_that_somebody_heard_is_no_deafness() -> None:
    company = Company()
    look(company, word("z", heard={ORDERS: NOW_US}), **{ORDERS: NOW_US})

    assert company.judge_deafness(ORDERS, NOW_US, NOW_US) is DeafMark.COVERED


def test_while_somebody_hears_the_stream_deafness_waits_for_its_mark() -> None:
    company = with_other("z", heard={ORDERS: NOW_US})

    assert company.judge_deafness(ORDERS, NOW_US, NOW_US) is DeafMark.WAIT
    assert company.judge_deafness(ORDERS, NOW_US, NOW_US + PATIENCE_US) is DeafMark.TRUE


def test_after_a_long_sleep_nothing_is_marked_before_a_look_at_the_others() -> None:
    company = Company()
    look(company)
    later_us = NOW_US + STALE_US

    assert not may_mark(company, now_us=later_us)
    assert company.judge_deafness(ORDERS, NOW_US, later_us) is DeafMark.WAIT
    look(company, now_us=later_us)
    assert may_mark(company, now_us=later_us)
    assert company.judge_deafness(ORDERS, NOW_US, later_us) is DeafMark.TRUE


def test_of_two_that_were_both_deaf_the_first_says_so() -> None:
    first, second = with_other("z"), with_other("a")

    assert first.judge_deafness(ORDERS, NOW_US, NOW_US) is DeafMark.WAIT
    for company, other in ((first, "z"), (second, "a")):
        look(company, word(other, beat=2), now_us=NOW_US + TURN_US)
    assert first.judge_deafness(ORDERS, NOW_US, NOW_US + TURN_US) is DeafMark.TRUE
    assert second.judge_deafness(ORDERS, NOW_US, NOW_US + TURN_US) is DeafMark.WAIT
    later_us = NOW_US + 2 * TURN_US
    assert second.judge_deafness(ORDERS, NOW_US, later_us) is DeafMark.TRUE


def test_deafness_is_not_told_before_others_have_said_what_they_hear_since() -> None:
    company = with_other("z")
    look(company, word("z"), now_us=NOW_US + 1)
    late_us = NOW_US + 2 * TURN_US

    look(company, word("z", beat=2), now_us=late_us)  # said behind the look before it
    assert company.judge_deafness(ORDERS, NOW_US + 2, late_us) is DeafMark.WAIT
    look(company, word("z", beat=2), now_us=late_us + 1)
    assert company.judge_deafness(ORDERS, NOW_US + 2, late_us + 1) is DeafMark.WAIT
    look(company, word("z", beat=3), now_us=late_us + 2)
    assert company.judge_deafness(ORDERS, NOW_US + 2, late_us + 2) is DeafMark.TRUE
