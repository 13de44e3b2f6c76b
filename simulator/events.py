"""The events of the simulated exchange, one frozen type for each kind of message.

Values are already the exchange's (decimal strings, microseconds); `frames` writes them to the wire
format. `streams` names every stream the event belongs to; `account` is the owner's key on private
events.
"""

from __future__ import annotations

from typing import NamedTuple

from simulator.orders import Fill, OrderView, PositionView

Levels = list[tuple[str, str]]


class Trade(NamedTuple):
    streams: tuple[str, ...]
    event_us: int
    engine_us: int
    symbol: str
    price: str
    quantity: str
    buyer_order: str
    seller_order: str
    trade_id: int
    buyer_is_maker: bool


class Depth(NamedTuple):
    streams: tuple[str, ...]
    event_us: int
    engine_us: int
    symbol: str
    first_id: int
    last_id: int
    asks: Levels
    bids: Levels


class BookTicker(NamedTuple):
    streams: tuple[str, ...]
    event_us: int
    engine_us: int
    symbol: str
    update_id: int
    ask: str | None
    ask_quantity: str | None
    bid: str | None
    bid_quantity: str | None


class Ticker(NamedTuple):
    """A rolling day. `name`: `ticker`, or `externalTicker` for a provider's data."""

    streams: tuple[str, ...]
    event_us: int
    name: str
    symbol: str
    first: str
    last: str
    high: str
    low: str
    volume: str
    quote_volume: str
    trades: int


class Kline(NamedTuple):
    """One candle; open, high, low, close and volume are None without trades."""

    streams: tuple[str, ...]
    event_us: int
    symbol: str
    start: str
    close_time: str
    open: str | None
    high: str | None
    low: str | None
    close: str | None
    volume: str | None
    trades: int
    closed: bool


class MarkPrice(NamedTuple):
    """`funding_rate`, `index_price` and `next_funding_ms` are None on prediction markets."""

    streams: tuple[str, ...]
    event_us: int
    engine_us: int
    symbol: str
    price: str
    funding_rate: str | None
    index_price: str | None
    next_funding_ms: int | None


class OpenInterest(NamedTuple):
    streams: tuple[str, ...]
    event_us: int
    symbol: str
    open_interest: str


class Liquidation(NamedTuple):
    streams: tuple[str, ...]
    event_us: int
    engine_us: int
    symbol: str
    side: str
    price: str
    quantity: str


class StockPrice(NamedTuple):
    streams: tuple[str, ...]
    event_us: int
    symbol: str
    bid: str | None
    ask: str | None
    mid: str
    source_ms: int
    session: str


class StockIndicativeQuote(NamedTuple):
    streams: tuple[str, ...]
    event_us: int
    symbol: str
    bid: str | None
    ask: str | None
    estimated_bid: str | None
    estimated_ask: str | None
    source_ms: int
    session: str


class OrderUpdate(NamedTuple):
    """`order` as of after the event; `fill` on orderFill, `reason` on orderExpired."""

    streams: tuple[str, ...]
    account: str
    event_us: int
    engine_us: int
    name: str
    order: OrderView
    fill: Fill | None
    reason: str | None


class PositionUpdate(NamedTuple):
    """`name` is None in the frames sent at subscription."""

    streams: tuple[str, ...]
    account: str
    event_us: int
    engine_us: int
    name: str | None
    position: PositionView


class BalanceUpdate(NamedTuple):
    streams: tuple[str, ...]
    account: str
    event_us: int
    engine_us: int
    asset: str
    available: str
    locked: str
    staked: str


class RfqUpdate(NamedTuple):
    """`fields` holds further members by their wire names, which differ from event to event."""

    streams: tuple[str, ...]
    account: str
    event_us: int
    engine_us: int
    name: str
    fields: dict[str, str | int]


PublicEvent = (
    Trade
    | Depth
    | BookTicker
    | Ticker
    | Kline
    | MarkPrice
    | OpenInterest
    | Liquidation
    | StockPrice
    | StockIndicativeQuote
)
PrivateEvent = OrderUpdate | PositionUpdate | BalanceUpdate | RfqUpdate
Event = PublicEvent | PrivateEvent
