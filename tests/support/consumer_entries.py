"""Entries as the contract writes them: flat fields of strings, written by hand.

The bridge's encoder is not used, so that an error in it cannot hide.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.contract.entry import decode
from consumers import Delivery

Fields = dict[str, str]
Levels = Sequence[tuple[str, str]]

MINUTE_US = 60_000_000
START_US = 1_788_367_440_000_000  # 2026-09-02T16:44:00 UTC, a whole minute


def entry_id(engine_us: int, position: int, slot: int = 0) -> str:
    """The ID of an entry of a sequenced stream."""
    return f"{engine_us // 1000}-{position * 10 + slot}"


def trade(number: int, engine_us: int, price: str = "98.96", quantity: str = "1.5") -> Fields:
    return {
        "type": "trade",
        "symbol": "SOL_USDC",
        "price": price,
        "quantity": quantity,
        "trade_id": str(number),
        "buyer_order_id": "59887375336",
        "seller_order_id": "59887375337",
        "buyer_is_maker": "true",
        "source": "",
        "event_us": str(engine_us + 1500),
        "engine_us": str(engine_us),
        "received_us": str(engine_us + 90_000),
        "extra": "",
    }


def depth(first: int, last: int, bids: Levels, asks: Levels, engine_us: int = START_US) -> Fields:
    return {
        "type": "depth",
        "symbol": "SOL_USDC",
        "first_update_id": str(first),
        "last_update_id": str(last),
        "bids": json.dumps(list(bids)),
        "asks": json.dumps(list(asks)),
        "event_us": str(engine_us + 1500),
        "engine_us": str(engine_us),
        "received_us": str(engine_us + 90_000),
        "extra": "",
    }


def depth_snapshot(at: int, bids: Levels, asks: Levels, engine_us: int = START_US) -> Fields:
    return {
        "type": "depth_snapshot",
        "symbol": "SOL_USDC",
        "update_id": str(at),
        "rest_update_id": str(at),
        "bids": json.dumps(list(bids)),
        "asks": json.dumps(list(asks)),
        "event_us": str(engine_us + 1500),
        "engine_us": str(engine_us),
        "received_us": str(engine_us + 90_000),
        "extra": "",
    }


def gap(to: int, *, first: int | None = None, recovered: bool = False) -> Fields:
    """A gap of the IDs `first` to `to`; without `first` the gap at a stream's start."""
    return {
        "type": "gap",
        "symbol": "SOL_USDC",
        "from": "" if first is None else str(first),
        "to": str(to),
        "from_us": "",
        "to_us": "",
        "cause": "start" if first is None else "skipped",
        "recovered": "true" if recovered else "false",
        "occurrence": "",
        "event_us": "",
        "engine_us": "",
        "received_us": str(START_US),
        "extra": "",
    }


def order_update(event: str, order_id: str, status: str, **more: str) -> Fields:
    """An entry of account.orderUpdate; `more` overrides fields by name."""
    names = (
        "type symbol order_id client_order_id side order_type time_in_force status price quantity "
        "quote_quantity executed_quantity executed_quote_quantity trade_id fill_price "
        "fill_quantity is_maker fee fee_asset expiry_reason self_trade_prevention origin "
        "reduce_only post_only trigger_price trigger_by trigger_quantity "
        "take_profit_trigger_price take_profit_trigger_by take_profit_limit_price "
        "stop_loss_trigger_price stop_loss_trigger_by stop_loss_limit_price related_order_id "
        "strategy_id source occurrence event_us engine_us received_us extra"
    )
    given = {
        "type": event,
        "symbol": "USDT_USDC",
        "order_id": order_id,
        "side": "Ask",
        "order_type": "LIMIT",
        "time_in_force": "GTC",
        "status": status,
        "price": "1.0076",
        "quantity": "20",
        "executed_quantity": "0",
        "event_us": "1788368290063153",
        "engine_us": "1788368290062979",
        "received_us": "1788368290153153",
    }
    return dict.fromkeys(names.split(), "") | given | more


def orders_snapshot(rows: Sequence[Mapping[str, Any]], symbol: str = "") -> Fields:
    return _account_snapshot("orders_snapshot", "orders", rows, symbol)


def positions_snapshot(rows: Sequence[Mapping[str, Any]], symbol: str = "") -> Fields:
    return _account_snapshot("positions_snapshot", "positions", rows, symbol)


def balances_snapshot(rows: Sequence[Mapping[str, Any]]) -> Fields:
    return _account_snapshot("balances_snapshot", "balances", rows, "")


def _account_snapshot(
    kind: str, rows_field: str, rows: Sequence[Mapping[str, Any]], symbol: str
) -> Fields:
    return {
        "type": kind,
        "symbol": symbol,
        rows_field: json.dumps(list(rows)),
        "occurrence": "",
        "event_us": "",
        "engine_us": "",
        "received_us": "1788368290200000",
        "extra": "",
    }


def position_update(event: str, symbol: str, quantity: str) -> Fields:
    names = (
        "type symbol position_id net_quantity net_exposure_quantity net_exposure_notional "
        "entry_price break_even_price mark_price initial_margin_fraction "
        "maintenance_margin_fraction realized_pnl unrealized_pnl liquidation_price occurrence "
        "event_us engine_us received_us extra"
    )
    given = {
        "type": event,
        "symbol": symbol,
        "position_id": "5411399049",
        "net_quantity": quantity,
        "entry_price": "4236.36",
        "event_us": "1754943862040486",
        "engine_us": "1754943862040487",
        "received_us": "1754943862140487",
    }
    return dict.fromkeys(names.split(), "") | given


def balance_update(asset: str, available: str, locked: str) -> Fields:
    return {
        "type": "balanceUpdate",
        "symbol": "",
        "asset": asset,
        "available": available,
        "locked": locked,
        "staked": "0",
        "occurrence": "",
        "event_us": "1788368290063168",
        "engine_us": "1788368290062981",
        "received_us": "1788368290163168",
        "extra": "",
    }


def delivery(fields: Fields, *, stream: str = "trade.SOL_USDC", at: str = "") -> Delivery[Any]:
    """The delivery that a handler would get for these fields, by default in an entry of their
    time.
    """
    moment_us = int(fields.get("engine_us") or fields.get("event_us") or fields["received_us"])
    return Delivery(stream, at or f"{moment_us // 1000}-1", decode(fields))
