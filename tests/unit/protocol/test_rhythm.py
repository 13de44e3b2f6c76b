"""How long a stream may be silent."""

import pytest

from bridge.contract.streams import parse_stream
from bridge.protocol.rhythm import Patience, Rhythm, interval_s, patience

SILENCE_US = 30_000_000
S = 1_000_000


@pytest.mark.parametrize(
    ("name", "longest_s", "look_s", "sure_s", "probe_s"),
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
def test_patience_is_the_clocks_or_the_markets(
    name: str, longest_s: int, look_s: int, sure_s: int | None, probe_s: float
) -> None:
    assert patience(parse_stream(name), longest_s * S, SILENCE_US) == Patience(
        look_s * S, None if sure_s is None else sure_s * S, int(probe_s * S)
    )


@pytest.mark.parametrize(("name", "look_s"), [("ticker.SOL_USDC", 3), ("trade.SOL_USDC", 1)])
def test_a_clocks_tick_may_be_three_seconds_late_however_short_the_patience(
    name: str, look_s: int
) -> None:
    found = patience(parse_stream(name), 0, 1 * S)
    assert found is not None
    assert found.look_us == look_s * S


@pytest.mark.parametrize(
    "name",
    ["liquidation", "account.orderUpdate", "stockPrice.NVDA", "externalTicker.AAPL.US_USDC_PERP"],
)
def test_some_cannot_be_judged(name: str) -> None:
    assert patience(parse_stream(name), 0, SILENCE_US) is None


def test_the_longest_silence_is_learned_and_forgotten_slowly() -> None:
    rhythm = Rhythm()
    rhythm.spoke(1 * S, 6 * S)
    assert rhythm.longest_us == 5 * S

    for second in range(6, 400):
        rhythm.spoke(second * S, (second + 1) * S)
    assert rhythm.longest_us < 2 * S


def test_nothing_is_learned_from_a_silence_that_asking_again_has_ended() -> None:
    rhythm = Rhythm()
    rhythm.asked_again(31 * S, 3 * S)
    rhythm.spoke(1 * S, 32 * S)
    assert rhythm.longest_us == 0

    rhythm.spoke(32 * S, 33 * S)  # it speaks anyhow
    assert rhythm.longest_us == 1 * S

    rhythm.spoke(33 * S, 38 * S)
    assert rhythm.longest_us == 5 * S


def test_intervals_in_seconds() -> None:
    assert [interval_s(each) for each in ("1s", "15m", "12h", "3d", "1w", "1month")] == [
        1, 900, 43_200, 259_200, 604_800, 2_678_400,
    ]  # fmt: skip
