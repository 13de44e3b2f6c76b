"""Descriptions of entries, from literal stored fields."""

import pytest

from bridge.contract.entry import MODEL_BY_TYPE, MODELS, field_names
from bridge.contract.events import Event, Gap, OpenInterest
from bridge.view.describe import clock, describe_entry, describe_event
from consumers.kit.event_factory import EventFactory

TIMES = {"event_us": "1700000000000300", "engine_us": "1700000000000100", "received_us": "1"}
ORDER = {
    "symbol": "SOL_USDC",
    "order_id": "1",
    "side": "Bid",
    "order_type": "LIMIT",
    "status": "New",
    "price": "99.5",
    "quantity": "3",
}


def whole(fields: dict[str, str]) -> dict[str, str]:
    """The stored entry: all fields of its type, absent ones as the empty string."""
    names = field_names(MODEL_BY_TYPE[fields["type"]])
    return dict.fromkeys(names, "") | {k: v for k, v in TIMES.items() if k in names} | fields


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"type": "trade", "symbol": "SOL_USDC", "price": "99.01", "quantity": "1.50"}
            | {"trade_id": "7", "buyer_is_maker": "true"},
            "sell 1.50 @ 99.01",
        ),
        (
            {"type": "trade", "symbol": "SOL_USDC", "price": "99.01", "quantity": "1.50"}
            | {"trade_id": "7", "buyer_is_maker": "false", "source": "rest"},
            "buy 1.50 @ 99.01 (from REST)",
        ),
        (
            {"type": "depth", "symbol": "SOL_USDC", "first_update_id": "1", "last_update_id": "2"}
            | {"bids": '[["99.00","0.00"]]', "asks": '[["99.02","4"]]'},
            "bid 99.00 removed … (1 bid, 1 ask)",
        ),
        (
            {"type": "depth", "symbol": "SOL_USDC", "first_update_id": "1", "last_update_id": "2"}
            | {"bids": "[]", "asks": '[["99.02","40"]]'},
            "ask 99.02 × 40",
        ),
        (
            {"type": "depth", "symbol": "SOL_USDC", "first_update_id": "1", "last_update_id": "2"}
            | {"bids": "[]", "asks": "[]"},
            "0 bids, 0 asks changed",
        ),
        (
            {"type": "depth_snapshot", "symbol": "SOL_USDC", "update_id": "2"}
            | {"bids": '[["99.00","1"]]', "asks": "[]"},
            "whole book: 1 bids from 99.00, 0 asks from none",
        ),
        (
            {"type": "bookTicker", "symbol": "SOL_USDC", "bid_price": "99.00"}
            | {"bid_quantity": "5", "ask_price": "", "ask_quantity": "", "update_id": "3"},
            "99.00 × 5 ‖ no ask",
        ),
        (
            {"type": "ticker", "symbol": "SOL_USDC", "first_price": "100", "last_price": "98.5"}
            | {"base_volume": "7.5"},
            "98.5 -1.50% in 24 h, 7.5 traded",
        ),
        ({"type": "externalTicker", "symbol": "SOL_USDC"}, "no trade in 24 h"),
        (
            {"type": "kline", "symbol": "SOL_USDC", "start_utc": "2026-01-01T00:00:00"}
            | {"end_utc": "2026-01-01T00:01:00", "open_price": "1", "high_price": "3"}
            | {"low_price": "0.5", "close_price": "2", "base_volume": "9", "trades": "4"}
            | {"closed": "true"},
            "O 1 H 3 L 0.5 C 2 V 9 closed",
        ),
        (
            {"type": "kline", "symbol": "SOL_USDC", "start_utc": "2026-01-01T00:00:00"}
            | {"end_utc": "2026-01-01T00:01:00", "trades": "0", "closed": "false"},
            "no trade yet",
        ),
        (
            {"type": "markPrice", "symbol": "SOL_USDC_PERP", "mark_price": "99.1"}
            | {"index_price": "99.0", "funding_rate": "-0.0001"},
            "mark 99.1, index 99.0, funding -0.0001",
        ),
        ({"type": "openInterest", "symbol": "S_P", "open_interest": "9.5"}, "open interest 9.5"),
        (
            {"type": "liquidation", "symbol": "S_P", "side": "Ask", "price": "9", "quantity": "2"},
            "S_P liquidation sell 2 @ 9",
        ),
        (
            {"type": "stockPrice", "symbol": "NVDA", "bid": "1.5", "session": "Regular"}
            | {"source_ms": "1"},
            "bid 1.5 ask - mid - (Regular)",
        ),
        (
            {"type": "stockIndicativeQuote", "symbol": "NVDA", "bid": "1.5", "ask": "1.6"}
            | {"estimated_bid": "1.4", "source_ms": "1"},
            "bid 1.5 ask 1.6, estimated 1.4 / -",
        ),
        ({"type": "orderAccepted"} | ORDER, "SOL_USDC accepted: buy 3 @ 99.5"),
        (
            {"type": "orderFill"}
            | ORDER
            | {"fill_price": "99.4", "fill_quantity": "1", "executed_quantity": "2"},
            "SOL_USDC fill: buy 1 @ 99.4, 2 of 3 done",
        ),
        (
            {"type": "triggerPlaced"} | ORDER | {"price": ""},
            "SOL_USDC trigger placed: buy 3 @ market",
        ),
        (
            {"type": "position", "symbol": "S_P", "net_quantity": "-2", "entry_price": "9.5"},
            "S_P position -2, entry 9.5",
        ),
        (
            {"type": "balanceUpdate", "asset": "USDC", "available": "5", "locked": "1"}
            | {"staked": "0"},
            "USDC 5 free, 1 locked",
        ),
        (
            {"type": "rfqActive", "symbol": "S_RFQ", "rfq_id": "1", "side": "Bid"}
            | {"quantity": "2", "status": "New"},
            "S_RFQ rfq active buy 2",
        ),
        ({"type": "orders_snapshot", "orders": "[{}]"}, "currently 1 open order"),
        ({"type": "positions_snapshot", "positions": "[]"}, "currently 0 positions"),
        ({"type": "balances_snapshot", "balances": "[{},{}]"}, "currently 2 balances"),
        (
            {"type": "gap", "to_us": "1700000000250000", "cause": "disconnected"}
            | {"from_us": "1699999999000000", "recovered": "false"},
            "GAP: nothing received from 22:13:19.000 to 22:13:20.250 (disconnected)",
        ),
        (
            {"type": "gap", "cause": "start", "recovered": "false"},
            "GAP: nothing is known before here (start)",
        ),
        (
            {"type": "quarantined", "stream": "trade.X", "reason": "no price", "raw": "{}"},
            "REFUSED trade.X: no price",
        ),
    ],
)
def test_an_entry_is_described_as_text(fields: dict[str, str], text: str) -> None:
    assert describe_entry(whole(fields)) == text


def test_a_gap_in_numbers_is_reported_with_them() -> None:
    gap = Gap.model_validate(
        {"from": 5, "to": 9, "cause": "skipped", "recovered": True, "received_us": 1}
    )
    assert describe_event(gap) == "GAP: 5…9 missing (skipped), recovered"


def test_an_entry_of_another_day_is_shown_as_stored() -> None:
    assert describe_entry({"type": "future", "field": "value"}) == "type=future field=value"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_event_of_the_contract_has_a_description(model: type[Event]) -> None:
    event = EventFactory().event(model).event

    assert describe_event(event)
    assert "None" not in describe_event(event)


def test_an_event_without_a_sentence_of_its_own_is_described_by_its_fields() -> None:
    class New(OpenInterest):
        pass

    event = New(type="openInterest", symbol="S_P", open_interest="5", event_us=1, received_us=2)

    assert describe_event(event) == "symbol=S_P open_interest=5"


def test_a_moment_is_shown_in_utc_to_the_millisecond() -> None:
    assert clock(1_700_000_000_123_999) == "22:13:20.123"


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "liquidation", "symbol": "X\r\n\x1b]0;X\x07", "side": "Bid"}
        | {"price": "1", "quantity": "1"},
        {"of another": "program\n\x1b[2J"},
    ],
)
def test_descriptions_are_one_printable_line(fields: dict[str, str]) -> None:
    stored = whole(fields) if "type" in fields else fields
    assert describe_entry(stored).isprintable()


@pytest.mark.parametrize("moment_us", [2**64 - 1, 253_402_300_800_000_000])
def test_a_moment_that_no_calendar_has_is_shown_unchanged(moment_us: int) -> None:
    fields = {"from_us": str(moment_us), "to_us": str(moment_us), "cause": "stale"}
    gap = whole({"type": "gap", "symbol": "SOL_USDC", "recovered": "false"} | fields)

    assert clock(moment_us) == f"{moment_us} µs"
    assert describe_entry(gap) == (
        f"GAP: nothing received from {moment_us} µs to {moment_us} µs (stale)"
    )
