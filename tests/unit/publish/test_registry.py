"""What the registry says of streams, read again by the next bridge."""

from bridge.contract.streams import parse_stream
from bridge.publish.registry import describe, read_registry

TRADES, BOOK = "trade.SOL_USDC", "depth.SOL_USDC"


def test_streams_that_were_heard_to_the_last_are_read_again() -> None:
    lines = {
        TRADES: describe(parse_stream(TRADES)),
        BOOK: describe(parse_stream(BOOK), retired_us=1),
    }

    assert read_registry(lines) == {TRADES: parse_stream(TRADES)}


def test_what_is_not_of_the_bridges_own_hand_is_passed_over() -> None:
    lines = {"no stream": "{}", TRADES: "no JSON", BOOK: "7", "bridge:gaps": "{}"}

    assert read_registry(lines) == {}
