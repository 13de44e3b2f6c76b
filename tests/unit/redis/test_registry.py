"""The registry of streams that the next bridge reads, and the claim of the account."""

import pytest

from bridge.contract.streams import parse_stream
from bridge.errors import Fatal
from bridge.redis.registry import OtherAccount, check_claim, describe, read_registry

TRADES, BOOK = "trade.SOL_USDC", "depth.SOL_USDC"


def test_registry_has_the_streams_that_were_not_retired() -> None:
    lines = {
        TRADES: describe(parse_stream(TRADES), TRADES),
        BOOK: describe(parse_stream(BOOK), BOOK, retired_us=1),
    }

    assert read_registry(lines) == {TRADES: parse_stream(TRADES)}


def test_registry_ignores_entries_that_the_bridge_did_not_write() -> None:
    lines = {"no stream": "{}", TRADES: "no JSON", BOOK: "7", "bridge:gaps": "{}"}

    assert read_registry(lines) == {}


def test_registry_claim_of_another_account_is_refused() -> None:
    check_claim([None, b"mine"], "px:", "mine")
    check_claim([b"OK", None], "px:", "mine")

    with pytest.raises(OtherAccount, match=r"'px:'.*fingerprint theirs, yours is mine"):
        check_claim([None, b"theirs"], "px:", "mine")
    assert issubclass(OtherAccount, Fatal)
