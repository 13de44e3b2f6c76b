"""Renders events as the exchange's frames: the one place that knows the wire names.

`data` comes first; keys are sorted, capitals first, except in klines, which have their own order;
no spaces. Pure. Knows no receivers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from simulator import events
from simulator.orders import Fill, OrderView

_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
Data = dict[str, Any]


def render(event: events.Event, stream: str) -> bytes:
    """The frame of an event on one of its streams."""
    data = _DATA[type(event)](event)
    return f'{{"data":{_write(data)},"stream":"{stream}"}}'.encode()


def error(code: int, message: str) -> bytes:
    """An error frame. It does not contain the request's id."""
    return _write({"id": None, "error": {"code": code, "message": message}}).encode()


def _trade(event: events.Trade) -> Data:
    return {
        "E": event.event_us,
        "T": event.engine_us,
        "a": event.seller_order,
        "b": event.buyer_order,
        "e": "trade",
        "m": event.buyer_is_maker,
        "p": event.price,
        "q": event.quantity,
        "s": event.symbol,
        "t": event.trade_id,
    }


def _depth(event: events.Depth) -> Data:
    return {
        "E": event.event_us,
        "T": event.engine_us,
        "U": event.first_id,
        "a": event.asks,
        "b": event.bids,
        "e": "depth",
        "s": event.symbol,
        "u": event.last_id,
    }


def _book_ticker(event: events.BookTicker) -> Data:
    return {
        "A": event.ask_quantity,
        "B": event.bid_quantity,
        "E": event.event_us,
        "T": event.engine_us,
        "a": event.ask,
        "b": event.bid,
        "e": "bookTicker",
        "s": event.symbol,
        "u": event.update_id,
    }


def _ticker(event: events.Ticker) -> Data:
    return {
        "E": event.event_us,
        "V": event.quote_volume,
        "c": event.last,
        "e": event.name,
        "h": event.high,
        "l": event.low,
        "n": event.trades,
        "o": event.first,
        "s": event.symbol,
        "v": event.volume,
    }


def _kline(event: events.Kline) -> Data:
    return {
        "E": event.event_us,
        "e": "kline",
        "s": event.symbol,
        "T": event.close_time,
        "X": event.closed,
        "c": event.close,
        "h": event.high,
        "l": event.low,
        "n": event.trades,
        "o": event.open,
        "t": event.start,
        "v": event.volume,
    }


def _mark_price(event: events.MarkPrice) -> Data:
    data: Data = {
        "E": event.event_us,
        "T": event.engine_us,
        "e": "markPrice",
        "f": event.funding_rate,
        "i": event.index_price,
        "n": event.next_funding_ms,
        "p": event.price,
        "s": event.symbol,
    }
    return _present(data)


def _open_interest(event: events.OpenInterest) -> Data:
    return {
        "E": event.event_us,
        "e": "openInterest",
        "o": event.open_interest,
        "s": event.symbol,
    }


def _liquidation(event: events.Liquidation) -> Data:
    return {
        "E": event.event_us,
        "S": event.side,
        "T": event.engine_us,
        "e": "liquidation",
        "p": event.price,
        "q": event.quantity,
        "s": event.symbol,
    }


def _stock_price(event: events.StockPrice) -> Data:
    return {
        "ask": event.ask,
        "bid": event.bid,
        "e": "stockPrice",
        "mid": event.mid,
        "session": event.session,
        "symbol": event.symbol,
        "timestamp": event.source_ms,
    }


def _stock_indicative_quote(event: events.StockIndicativeQuote) -> Data:
    return {
        "ask": event.ask,
        "bid": event.bid,
        "e": "stockIndicativeQuote",
        "estimatedAsk": event.estimated_ask,
        "estimatedBid": event.estimated_bid,
        "session": event.session,
        "symbol": event.symbol,
        "timestamp": event.source_ms,
    }


def _order_update(event: events.OrderUpdate) -> Data:
    data = _present(_order(event.order))
    data |= {"E": event.event_us, "T": event.engine_us, "e": event.name}
    if event.reason is not None:
        data["R"] = event.reason
    # A fill's members; every other event says `"t":null`.
    data |= _fill(event.fill) if event.fill else {"t": None}
    return dict(sorted(data.items()))


def _order(order: OrderView) -> Data:
    return {
        "B": order.trigger_by,
        "O": order.origin,
        "P": order.trigger_price,
        "Q": order.quote_quantity,
        "S": order.side,
        "V": order.self_trade_prevention,
        "X": order.status,
        "Y": order.trigger_quantity,
        "Z": order.executed_quote,
        "c": order.client_id,
        "f": order.time_in_force,
        "i": order.order_id,
        "o": order.order_type,
        "p": order.price,
        "q": order.quantity,
        "r": order.reduce_only,
        "s": order.symbol,
        "y": order.post_only,
        "z": order.executed,
    }


def _fill(fill: Fill) -> Data:
    return {
        "L": fill.price,
        "N": fill.fee_asset,
        "l": fill.quantity,
        "m": fill.maker,
        "n": fill.fee,
        "t": fill.trade_id,
    }


def _position_update(event: events.PositionUpdate) -> Data:
    position = event.position
    data: Data = {
        "B": position.entry_price,
        "E": event.event_us,
        "M": position.mark_price,
        "P": position.unrealised,
        "Q": position.exposure_quantity,
        "T": event.engine_us,
        "b": position.break_even_price,
        "e": event.name,
        "f": position.initial_margin,
        "i": position.position_id,
        "l": "0",
        "m": position.maintenance_margin,
        "n": position.exposure_notional,
        "p": position.realised,
        "q": position.quantity,
        "s": position.symbol,
    }
    return _present(data)


def _balance_update(event: events.BalanceUpdate) -> Data:
    return {
        "A": event.available,
        "E": event.event_us,
        "L": event.locked,
        "S": event.staked,
        "T": event.engine_us,
        "a": event.asset,
        "e": "balanceUpdate",
    }


def _rfq_update(event: events.RfqUpdate) -> Data:
    data: Data = {"E": event.event_us, "T": event.engine_us, "e": event.name} | event.fields
    return dict(sorted(data.items()))


def _present(data: Data) -> Data:
    """The members without those that this message lacks."""
    return {key: value for key, value in data.items() if value is not None}


_DATA: dict[type, Callable[[Any], Data]] = {
    events.Trade: _trade,
    events.Depth: _depth,
    events.BookTicker: _book_ticker,
    events.Ticker: _ticker,
    events.Kline: _kline,
    events.MarkPrice: _mark_price,
    events.OpenInterest: _open_interest,
    events.Liquidation: _liquidation,
    events.StockPrice: _stock_price,
    events.StockIndicativeQuote: _stock_indicative_quote,
    events.OrderUpdate: _order_update,
    events.PositionUpdate: _position_update,
    events.BalanceUpdate: _balance_update,
    events.RfqUpdate: _rfq_update,
}
