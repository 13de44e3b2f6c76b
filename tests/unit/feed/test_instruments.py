"""Additions to and removals from the list of markets."""

import random

from bridge.feed.instruments import Instruments
from bridge.runtime.backoff import Backoff
from bridge.runtime.markets import Market, Markets

SOL = Market("SOL_USDC", "SPOT", "Open")
PERP = Market("SOL_USDC_PERP", "PERP", "Open")
MARKETS = {market.symbol: market for market in (SOL, PERP)}


def instruments() -> Instruments:
    return Instruments(60, Backoff(1, 60, random.Random(1)))


def changed(subject: Instruments, listed: Markets) -> bool:
    """Take this list; True if it changes the instruments."""
    subject.changed.clear()
    subject.take(listed)
    return subject.changed.is_set()


def test_market_is_removed_when_it_is_missing_twice() -> None:
    subject = instruments()

    assert changed(subject, MARKETS)
    assert not changed(subject, {"SOL_USDC": SOL})
    assert list(subject.markets) == ["SOL_USDC", "SOL_USDC_PERP"]
    assert changed(subject, {"SOL_USDC": SOL})
    assert list(subject.markets) == ["SOL_USDC"]


def test_market_that_is_missing_once_is_not_removed() -> None:
    subject = instruments()
    for listed in (MARKETS, {"SOL_USDC": SOL}, MARKETS, {"SOL_USDC": SOL}):
        subject.take(listed)

    assert list(subject.markets) == ["SOL_USDC", "SOL_USDC_PERP"]
