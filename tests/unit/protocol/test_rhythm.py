"""How long a stream may be silent."""

import pytest

from bridge.contract.streams import parse_stream
from bridge.protocol.rhythm import Patience, interval_s, patience

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
        ("bookTicker.SOL_USDC", 4, 40, None, 3),
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


@pytest.mark.parametrize(
    "name",
    ["liquidation", "account.orderUpdate", "stockPrice.NVDA", "externalTicker.AAPL.US_USDC_PERP"],
)
def test_some_cannot_be_judged(name: str) -> None:
    assert patience(parse_stream(name), 0, SILENCE_US) is None


def test_intervals_in_seconds() -> None:
    assert [interval_s(each) for each in ("1s", "15m", "12h", "3d", "1w", "1month")] == [
        1, 900, 43_200, 259_200, 604_800, 2_678_400,
    ]  # fmt: skip
