"""Describes an entry for people on one line, the most important facts first (pure).

For display only: nothing parses this. Prices and quantities stay the exchange's own strings.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from bridge.contract import events as ev
from bridge.contract.entry import BadEntry, decode
from bridge.contract.moments import moment
from bridge.runtime.terminal import bounded, printable

_LEFT_OUT = {"type", "event_us", "engine_us", "received_us"}
_MAX_CHARS = 2_000  # more than any real message needs
_SIDES = {"Bid": "buy", "Ask": "sell"}


def describe_entry(fields: Mapping[str, str]) -> str:
    """A stored entry as text; one that is not of the contract as its plain fields."""
    try:
        text = describe_event(decode(fields))
    except BadEntry:
        text = plain_fields(fields)
    return printable(bounded(text, _MAX_CHARS))


def describe_event(event: ev.Event) -> str:
    """The event as text."""
    return _DESCRIPTIONS.get(type(event), _fields)(event)


def plain_fields(fields: Mapping[str, str]) -> str:
    """Every field as `name=value`."""
    return " ".join(f"{name}={value}" for name, value in fields.items())


def clock(moment_us: int) -> str:
    """A time as UTC time of day, to the millisecond; one out of range as its number of µs."""
    found = moment(moment_us)
    return f"{moment_us} µs" if found is None else found.strftime("%H:%M:%S.%f")[:-3]


def _fields(event: ev.Event) -> str:
    """A type without a sentence of its own: all fields but times and empty ones."""
    values = event.model_dump(exclude=_LEFT_OUT, exclude_none=True) | event.extra
    return plain_fields({name: str(value) for name, value in values.items()})


def _trade(event: ev.Trade) -> str:
    side = "sell" if event.buyer_is_maker else "buy"
    return f"{side} {event.quantity} @ {event.price}" + (" (from REST)" if event.source else "")


def _depth(event: ev.Depth) -> str:
    counted = f"{_count(event.bids, 'bid')}, {_count(event.asks, 'ask')}"
    changes = [("bid", *level) for level in event.bids] + [("ask", *level) for level in event.asks]
    if not changes:
        return f"{counted} changed"
    side, price, quantity = changes[0]
    first = f"{side} {price} removed" if _is_zero(quantity) else f"{side} {price} × {quantity}"
    return first + (f" … ({counted})" if len(changes) > 1 else "")


def _depth_snapshot(event: ev.DepthSnapshot) -> str:
    bid = event.bids[0][0] if event.bids else "none"
    ask = event.asks[0][0] if event.asks else "none"
    return f"whole book: {len(event.bids)} bids from {bid}, {len(event.asks)} asks from {ask}"


def _book_ticker(event: ev.BookTicker) -> str:
    bid = f"{event.bid_price} × {event.bid_quantity}" if event.bid_price else "no bid"
    ask = f"{event.ask_price} × {event.ask_quantity}" if event.ask_price else "no ask"
    return f"{bid} ‖ {ask}"


def _ticker(event: ev.Ticker | ev.ExternalTicker) -> str:
    if event.last_price is None:
        return "no trade in 24 h"
    change = _percent(event.first_price, event.last_price)
    return f"{event.last_price} {change} in 24 h, {event.base_volume or 0} traded"


def _kline(event: ev.Kline) -> str:
    if event.open_price is None:
        return "no trade yet"
    prices = f"O {event.open_price} H {event.high_price} L {event.low_price} C {event.close_price}"
    return f"{prices} V {event.base_volume}" + (" closed" if event.closed else "")


def _mark_price(event: ev.MarkPrice) -> str:
    index = f", index {event.index_price}" if event.index_price else ""
    funding = f", funding {event.funding_rate}" if event.funding_rate else ""
    return f"mark {event.mark_price}{index}{funding}"


def _open_interest(event: ev.OpenInterest) -> str:
    return f"open interest {event.open_interest}"


def _liquidation(event: ev.Liquidation) -> str:
    return f"{event.symbol} liquidation {_SIDES[event.side]} {event.quantity} @ {event.price}"


def _stock_price(event: ev.StockPrice) -> str:
    session = f" ({event.session})" if event.session else ""
    return f"bid {event.bid or '-'} ask {event.ask or '-'} mid {event.mid or '-'}{session}"


def _stock_quote(event: ev.StockIndicativeQuote) -> str:
    session = f" ({event.session})" if event.session else ""
    estimated = ""
    if event.estimated_bid or event.estimated_ask:
        estimated = f", estimated {event.estimated_bid or '-'} / {event.estimated_ask or '-'}"
    return f"bid {event.bid or '-'} ask {event.ask or '-'}{estimated}{session}"


def _order(event: ev.OrderUpdate) -> str:
    what = _spaced(event.type.removeprefix("order"))
    if event.type == "orderFill":
        amount = f"{event.fill_quantity} @ {event.fill_price}"
        done = f", {event.executed_quantity} of {event.quantity} done" if event.quantity else ""
    else:
        amount = f"{event.quantity or event.quote_quantity or '?'} @ {event.price or 'market'}"
        done = f", {event.expiry_reason}" if event.expiry_reason else ""
    return f"{event.symbol} {what}: {_SIDES[event.side]} {amount}{done}"


def _position(event: ev.PositionUpdate) -> str:
    what = _spaced(event.type.removeprefix("position")) or "position"
    entry = f", entry {event.entry_price}" if event.entry_price else ""
    pnl = f", unrealized {event.unrealized_pnl}" if event.unrealized_pnl else ""
    return f"{event.symbol} {what} {event.net_quantity}{entry}{pnl}"


def _balance(event: ev.BalanceUpdate) -> str:
    return f"{event.asset} {event.available} free, {event.locked} locked"


def _rfq(event: ev.RfqUpdate) -> str:
    side = f" {_SIDES[event.side]}" if event.side else ""
    amount = event.quantity or event.quote_quantity or ""
    price = f" @ {event.price}" if event.price else ""
    return f"{event.symbol} {_spaced(event.type)}{side} {amount}{price}".rstrip()


def _gap(event: ev.Gap) -> str:
    if event.from_ is not None:
        where = f"{event.from_}…{event.to} missing"
    elif event.to_us is not None:
        since = clock(event.from_us) if event.from_us is not None else "the start"
        where = f"nothing received from {since} to {clock(event.to_us)}"
    else:
        where = "nothing is known before here"
    return f"GAP: {where} ({event.cause})" + (", recovered" if event.recovered else "")


def _gap_record(event: ev.GapRecord) -> str:
    if event.from_ is not None:
        where = f"{event.from_}…{event.to}"
    else:
        since = clock(event.from_us) if event.from_us is not None else "the start"
        where = f"from {since} to {clock(event.to_us or 0)}"
    outcome = "recovered" if event.recovered else "missing"
    by = f", {event.how}" if event.how else ""
    return f"{event.stream}: {where} {outcome} ({event.cause}{by})"


def _quarantined(event: ev.Quarantined) -> str:
    return f"REFUSED {event.stream or 'a frame'}: {event.reason}"


def _rows(noun: str, field: str) -> Callable[[Any], str]:
    def text(event: Any) -> str:
        return f"currently {_count(getattr(event, field), noun)}"

    return text


def _count(items: list[Any], noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")


def _is_zero(quantity: str) -> bool:
    return not quantity.strip("0.")


def _spaced(name: str) -> str:
    """`TriggerPlaced` → `trigger placed`."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


def _percent(first: str | None, last: str) -> str:
    try:
        return f"{(Decimal(last) / Decimal(first or '0') - 1) * 100:+.2f}%"
    except (InvalidOperation, ZeroDivisionError):
        return "±?%"


_DESCRIPTIONS: Mapping[type[ev.Event], Callable[[Any], str]] = {
    ev.Trade: _trade,
    ev.Depth: _depth,
    ev.DepthSnapshot: _depth_snapshot,
    ev.BookTicker: _book_ticker,
    ev.Ticker: _ticker,
    ev.ExternalTicker: _ticker,
    ev.Kline: _kline,
    ev.MarkPrice: _mark_price,
    ev.OpenInterest: _open_interest,
    ev.Liquidation: _liquidation,
    ev.StockPrice: _stock_price,
    ev.StockIndicativeQuote: _stock_quote,
    ev.OrderUpdate: _order,
    ev.PositionUpdate: _position,
    ev.BalanceUpdate: _balance,
    ev.RfqUpdate: _rfq,
    ev.UnknownEvent: lambda event: f"unknown event {_fields(event)}",
    ev.OrdersSnapshot: _rows("open order", "orders"),
    ev.PositionsSnapshot: _rows("position", "positions"),
    ev.BalancesSnapshot: _rows("balance", "balances"),
    ev.Gap: _gap,
    ev.GapRecord: _gap_record,
    ev.Quarantined: _quarantined,
}
