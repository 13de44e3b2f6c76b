"""The quiet time after which a stream is suspected."""

import pytest

from bridge.contract.streams import parse_stream
from bridge.protocol.periods import QuietTime, StaleLimits, interval_s, stale_limits

SHORTEST_S = 30.0


@pytest.mark.parametrize(
    ("name", "longest_s", "suspect_s", "certain_s", "back_s"),
    [
        ("markPrice.SOL_USDC_PERP", 0, 10, 10, 4.5),
        ("ticker.SOL_USDC", 500, 10, 10, 4.5),
        ("openInterest.SOL_USDC_PERP", 0, 128, 128, 93),
        ("trade.SOL_USDC", 0, 30, None, 3),
        ("trade.SOL_USDC", 60, 600, None, 3),
        ("depth.200ms.SOL_USDC", 2, 30, None, 3),
        ("depth.SOL_USDC", 60, 90, None, 3),
        ("bookTicker.SOL_USDC", 4, 40, None, 3),
        ("bookTicker.SOL_USDC", 3600, 90, None, 3),
        ("kline.1m.SOL_USDC", 1, 60, 90, 63),
        ("kline.1m.SOL_USDC", 50, 90, 90, 63),
        ("kline.1d.SOL_USDC", 1, 60, 86_430, 63),
    ],
)
def test_limits_are_the_periods_or_the_markets(
    name: str, longest_s: int, suspect_s: int, certain_s: int | None, back_s: float
) -> None:
    assert stale_limits(parse_stream(name), longest_s, SHORTEST_S) == StaleLimits(
        suspect_s, certain_s, back_s
    )


@pytest.mark.parametrize(("name", "suspect_s"), [("ticker.SOL_USDC", 3), ("trade.SOL_USDC", 1)])
def test_periodic_message_may_be_three_seconds_late_with_any_limit(
    name: str, suspect_s: int
) -> None:
    found = stale_limits(parse_stream(name), 0, 1)
    assert found is not None
    assert found.suspect_s == suspect_s


@pytest.mark.parametrize(
    "name",
    ["liquidation", "account.orderUpdate", "stockPrice.NVDA", "externalTicker.AAPL.US_USDC_PERP"],
)
def test_streams_without_a_period_or_rate_are_never_suspected(name: str) -> None:
    assert stale_limits(parse_stream(name), 0, SHORTEST_S) is None


def test_longest_quiet_time_is_learned_and_forgotten_slowly() -> None:
    quiet = QuietTime()
    quiet.received(1, 6)
    assert quiet.longest_s == 5

    for second in range(6, 400):
        quiet.received(second, second + 1)
    assert quiet.longest_s < 2


def test_nothing_is_learned_from_a_quiet_time_that_subscribing_again_has_ended() -> None:
    quiet = QuietTime()
    quiet.subscribed_again(31, 3)
    quiet.received(1, 32)
    assert quiet.longest_s == 0

    quiet.received(32, 33)  # a message without a new subscription
    assert quiet.longest_s == 1

    quiet.received(33, 38)
    assert quiet.longest_s == 5


def test_intervals_are_read_in_seconds() -> None:
    assert [interval_s(each) for each in ("1s", "15m", "12h", "3d", "1w", "1month")] == [
        1, 900, 43_200, 259_200, 604_800, 2_678_400,
    ]  # fmt: skip
