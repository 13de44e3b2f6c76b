"""From when to when nobody was listening."""

from bridge.pipeline.deafness import NOT_RUNNING, UNSURE_US, Deaf, Deafness

NOW_US = 1_790_915_531_000_000
SECOND_US = 1_000_000
NAMES = ["account.orderUpdate", "trade.SOL_USDC"]


def subject() -> Deafness:
    deafness = Deafness(["account.orderUpdate"])
    deafness.opened(1, NAMES)
    list(deafness.answered(1, NOW_US))
    return deafness


def again(deafness: Deafness, at_us: int) -> list[Deaf]:
    deafness.lost(1, "connection lost")
    deafness.opened(2, NAMES)
    return list(deafness.answered(2, at_us))


def test_deaf_from_the_exchanges_newest_time_less_what_was_under_way() -> None:
    deafness = subject()
    deafness.ears[1].newest_us = NOW_US + 5 * SECOND_US

    assert again(deafness, NOW_US + 9 * SECOND_US) == [
        Deaf(
            "account.orderUpdate",
            NOW_US + 5 * SECOND_US - UNSURE_US,
            NOW_US + 9 * SECOND_US,
            "connection lost",
        )
    ]


def test_a_connection_that_heard_nothing_was_listening_until_it_was_answered() -> None:
    (deaf,) = again(subject(), NOW_US + 9 * SECOND_US)

    assert (deaf.from_us, deaf.to_us) == (NOW_US, NOW_US + 9 * SECOND_US)


def test_an_exchange_whose_clock_is_ahead_does_not_hide_deafness() -> None:
    deafness = subject()
    deafness.ears[1].newest_us = NOW_US + 3600 * SECOND_US

    (deaf,) = again(deafness, NOW_US + 9 * SECOND_US)

    assert deaf.from_us < deaf.to_us == NOW_US + 9 * SECOND_US


def test_an_earlier_bridges_mark_is_where_deafness_begins() -> None:
    deafness = Deafness(["account.orderUpdate"])
    list(deafness.resume({"account.orderUpdate": NOW_US, "trade.SOL_USDC": 1, "gone": 1}))
    deafness.opened(1, NAMES)

    (deaf,) = deafness.answered(1, NOW_US + 5 * SECOND_US)

    assert deaf == Deaf("account.orderUpdate", NOW_US, NOW_US + 5 * SECOND_US, NOT_RUNNING)


def test_what_is_known_can_be_written_down_and_read_again() -> None:
    deafness = subject()
    deafness.ears[1].newest_us = NOW_US
    read = Deafness(["account.orderUpdate"])

    read.restore({"1": NAMES}, deafness.state())

    assert again(read, NOW_US + 9 * SECOND_US) == again(deafness, NOW_US + 9 * SECOND_US)


def test_a_connection_that_is_kept_is_not_forgotten() -> None:
    deafness = subject()
    deafness.opened(-2, NAMES)

    deafness.forget(keep=[-2])

    assert deafness.open_connections() == [-2]
