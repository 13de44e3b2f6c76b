"""Streams kept for another member until it receives them."""

from bridge.contract.streams import parse_stream
from bridge.feed.handover import Handover

TRADES, BOOK = "trade.SOL_USDC", "depth.SOL_USDC"
BOTH = {name: parse_stream(name) for name in (TRADES, BOOK)}


def test_a_stream_is_overdue_since_it_was_kept_first() -> None:
    handover = Handover()
    handover.keep({TRADES: BOTH[TRADES]}, 100)
    handover.keep(BOTH, 150)

    assert list(handover.overdue(100, 199)) == []
    assert list(handover.overdue(100, 200)) == [TRADES]
    assert list(handover.overdue(None, 10**12)) == []


def test_a_stream_that_is_ended_or_wanted_again_is_no_longer_kept() -> None:
    handover = Handover()
    handover.keep(BOTH, 100)
    handover.end([TRADES, "trade.GONE"])
    assert list(handover.streams) == [BOOK]

    handover.keep({}, 150)
    handover.keep(BOTH, 200)

    assert list(handover.overdue(100, 250)) == []
