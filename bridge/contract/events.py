"""Every event of the contract; each field has two names: the exchange's letter and ours (pure).

One class serves both sides. A frame is validated by the exchange's letters (aliases), an entry read
from Redis by our names (see `entry.py`); in code an event is made by name: `Trade(price="1.5", …)`.
Events are frozen. Prices and quantities stay the exchange's own decimal strings, checked by pattern
and length, never floats. Names of times have their unit. Fields that the exchange adds and that are
not named here are kept (`extra`). The descriptions of fields are used in docs and schemas.

The source of each field, its type on the wire and whether it may be absent or null: the exchange's
Streams documentation, corrected by captured frames where the two differ.
"""

from typing import Literal

from pydantic import Field

from bridge.contract.fields import (
    KIND,
    MARKET,
    MATCHED,
    OCCURRENCE,
    OURS,
    READ,
    SENT,
    U64_MAX,
    Event,
    Flag,
    Id,
    IsoTime,
    Level,
    Levels,
    LooseSigned,
    LooseUnsigned,
    Rows,
    Side,
    Signed,
    Text,
    Unsigned,
    Whole,
    WholeNumber,
)
from bridge.contract.own import (
    BalancesSnapshot,
    DepthSnapshot,
    Gap,
    GapRecord,
    OrdersSnapshot,
    Own,
    PositionsSnapshot,
    Quarantined,
)

__all__ = [  # besides the events defined here: other names of the contract about events
    "U64_MAX",
    "BalancesSnapshot",
    "DepthSnapshot",
    "Event",
    "Flag",
    "Gap",
    "GapRecord",
    "Id",
    "IsoTime",
    "Level",
    "Levels",
    "LooseSigned",
    "LooseUnsigned",
    "OrdersSnapshot",
    "Own",
    "PositionsSnapshot",
    "Quarantined",
    "Rows",
    "Side",
    "Signed",
    "Text",
    "Unsigned",
    "Whole",
    "WholeNumber",
]

CONTRACT_VERSION = 1


class Trade(Event):
    """One trade. `trade_id` is sequential per symbol; `buyer_is_maker` true: the taker sold.

    `source` is `rest` if the trade was fetched from history: it then has no order ids, and its time
    only milliseconds.
    """

    type: Literal["trade"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    price: Unsigned = Field(validation_alias="p", description="price in the quote asset")
    quantity: Unsigned = Field(validation_alias="q", description="quantity in the base asset")
    trade_id: Whole = Field(
        validation_alias="t",
        description="the market's running number: the next trade's is one higher",
    )
    buyer_order_id: Id | None = Field(
        validation_alias="b",
        default=None,
        description="order id of the buyer; empty where `source` is `rest`",
    )
    seller_order_id: Id | None = Field(
        validation_alias="a",
        default=None,
        description="order id of the seller; empty where `source` is `rest`",
    )
    buyer_is_maker: Flag = Field(
        validation_alias="m", description="`true`: the buyer's order rested, so the taker sold"
    )
    source: Literal["rest"] | None = Field(
        validation_alias=OURS + "source",
        default=None,
        description="empty: received; `rest`: missed, and fetched over REST afterwards",
    )
    event_us: Whole | None = Field(validation_alias="E", description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class Depth(Event):
    """A change of the book: absolute new quantities by price; zero deletes the level.

    Update ids `first_update_id..last_update_id` are covered; the next begins at last + 1.
    """

    type: Literal["depth"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    first_update_id: Whole = Field(
        validation_alias="U", description="first update id that this change covers"
    )
    last_update_id: Whole = Field(
        validation_alias="u",
        description="last update id that it covers: the book's position after it",
    )
    bids: Levels = Field(
        validation_alias="b",
        description="JSON array of changed [price, quantity]: absolute; zero deletes the level",
    )
    asks: Levels = Field(
        validation_alias="a",
        description="JSON array of changed [price, quantity]: absolute; zero deletes the level",
    )
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class BookTicker(Event):
    """Best prices and sizes; None for an empty side of the book."""

    type: Literal["bookTicker"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    bid_price: Unsigned | None = Field(
        validation_alias="b", description="best bid; empty where there is none"
    )
    bid_quantity: Unsigned | None = Field(
        validation_alias="B", description="quantity at the best bid"
    )
    ask_price: Unsigned | None = Field(
        validation_alias="a", description="best ask; empty where there is none"
    )
    ask_quantity: Unsigned | None = Field(
        validation_alias="A", description="quantity at the best ask"
    )
    update_id: Whole = Field(
        validation_alias="u", description="the depth stream's numbering; rises, not by one"
    )
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class _RollingTicker(Event):
    """Rolling 24 hours, every second even if unchanged."""

    symbol: Text = Field(validation_alias="s", description=MARKET)
    first_price: Unsigned | None = Field(validation_alias="o", description="price 24 hours ago")
    last_price: Unsigned | None = Field(validation_alias="c", description="price of the last trade")
    high_price: Unsigned | None = Field(validation_alias="h", description="highest price")
    low_price: Unsigned | None = Field(validation_alias="l", description="lowest price")
    base_volume: Unsigned | None = Field(
        validation_alias="v", description="volume in the base asset"
    )
    quote_volume: Unsigned | None = Field(
        validation_alias="V", description="volume in the quote asset"
    )
    trades: Whole | None = Field(validation_alias="n", description="number of trades")
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", default=None, description=MATCHED)
    received_us: Whole = Field(description=READ)


class Ticker(_RollingTicker):
    """The market's own rolling ticker."""

    type: Literal["ticker"] = Field(validation_alias="e", description=KIND)


class ExternalTicker(_RollingTicker):
    """A rolling ticker from an outside provider."""

    type: Literal["externalTicker"] = Field(validation_alias="e", description=KIND)


class Kline(Event):
    """A candle; prices and volume are None while it has no trades. Times are UTC."""

    type: Literal["kline"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    start_utc: IsoTime = Field(validation_alias="t", description="start of the candle, included")
    end_utc: IsoTime = Field(validation_alias="T", description="end of the candle, not included")
    open_price: Unsigned | None = Field(
        validation_alias="o", description="price of the first trade; empty while there was none"
    )
    high_price: Unsigned | None = Field(
        validation_alias="h", description="highest price; empty while there was no trade"
    )
    low_price: Unsigned | None = Field(
        validation_alias="l", description="lowest price; empty while there was no trade"
    )
    close_price: Unsigned | None = Field(
        validation_alias="c", description="price of the last trade; empty while there was none"
    )
    base_volume: Unsigned | None = Field(
        validation_alias="v", description="volume in the base asset; empty while there was no trade"
    )
    trades: Whole = Field(validation_alias="n", description="number of trades")
    closed: Flag = Field(validation_alias="X", description="`true` on the candle's last entry")
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole | None = Field(
        validation_alias=OURS + "engine_us",
        default=None,
        description="always empty: the exchange sends no engine time with candles",
    )
    received_us: Whole = Field(description=READ)


class MarkPrice(Event):
    """Mark price each second; prediction markets have neither funding nor index."""

    type: Literal["markPrice"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    mark_price: Signed = Field(validation_alias="p", description="mark price")
    index_price: Signed | None = Field(
        validation_alias="i", default=None, description="index price; empty on prediction markets"
    )
    funding_rate: Signed | None = Field(
        validation_alias="f",
        default=None,
        description="estimated funding rate; empty on prediction markets",
    )
    next_funding_ms: Whole | None = Field(
        validation_alias="n",
        default=None,
        description="time of the next funding, ms since 1970; empty on prediction markets",
    )
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class OpenInterest(Event):
    """Open interest in contracts, each minute."""

    type: Literal["openInterest"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    open_interest: Unsigned = Field(validation_alias="o", description="open interest in contracts")
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", default=None, description=MATCHED)
    received_us: Whole = Field(description=READ)


class Liquidation(Event):
    """One liquidation. `occurrence` counts equal messages before this one."""

    type: Literal["liquidation"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    side: Side = Field(validation_alias="S", description="`Bid` (buy) or `Ask` (sell)")
    price: Unsigned = Field(validation_alias="p", description="price of the liquidation")
    quantity: Unsigned = Field(
        validation_alias="q", description="quantity liquidated, in the base asset"
    )
    occurrence: Whole | None = Field(
        validation_alias=OURS + "occurrence", default=None, description=OCCURRENCE
    )
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class StockPrice(Event):
    """A provider's quote of a stock; `source_ms` is the provider's time."""

    numbers_as_text = True
    type: Literal["stockPrice"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(description="the stock's ticker (`NVDA`, `BRK.B`)")
    bid: LooseUnsigned | None = Field(default=None, description="bid price")
    ask: LooseUnsigned | None = Field(default=None, description="ask price")
    mid: LooseUnsigned | None = Field(default=None, description="mid price")
    session: Text | None = Field(
        default=None, description="the stock market's session, as the provider spells it"
    )
    source_ms: Whole = Field(
        validation_alias="timestamp", description="the provider's time of the quote, ms since 1970"
    )
    event_us: Whole | None = Field(validation_alias="E", default=None, description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", default=None, description=MATCHED)
    received_us: Whole = Field(description=READ)


class StockIndicativeQuote(Event):
    """Indicative quote of a stock, both sides once a second."""

    numbers_as_text = True
    type: Literal["stockIndicativeQuote"] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(description="the stock's ticker (`NVDA`, `BRK.B`)")
    bid: LooseUnsigned | None = Field(default=None, description="bid price")
    ask: LooseUnsigned | None = Field(default=None, description="ask price")
    estimated_bid: LooseUnsigned | None = Field(
        validation_alias="estimatedBid", default=None, description="estimated bid price"
    )
    estimated_ask: LooseUnsigned | None = Field(
        validation_alias="estimatedAsk", default=None, description="estimated ask price"
    )
    session: Text | None = Field(
        default=None, description="the stock market's session, as the provider spells it"
    )
    source_ms: Whole = Field(
        validation_alias="timestamp", description="the provider's time of the quote, ms since 1970"
    )
    event_us: Whole | None = Field(validation_alias="E", default=None, description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", default=None, description=MATCHED)
    received_us: Whole = Field(description=READ)


OrderEvent = Literal[
    "orderAccepted",
    "orderFill",
    "orderCancelled",
    "orderExpired",
    "orderModified",
    "triggerPlaced",
    "triggerFailed",
]


class OrderUpdate(Event):
    """A change of an order. Fill fields are set on `orderFill` only.

    `source` is `rest` for a fill that was missed and fetched from history: it has no data of the
    order itself. `fee` may be negative (a rebate). `trigger_quantity` is a quantity or a percentage
    (`80%`).
    """

    type: OrderEvent = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    order_id: Id = Field(validation_alias="i", description="the exchange's id of the order")
    client_order_id: Id | None = Field(
        validation_alias="c", default=None, description="the id the client gave"
    )
    side: Side = Field(validation_alias="S", description="`Bid` (buy) or `Ask` (sell)")
    order_type: Text | None = Field(validation_alias="o", description="`LIMIT` or `MARKET`")
    time_in_force: Text | None = Field(
        validation_alias="f", default=None, description="`GTC`, `IOC` or `FOK`"
    )
    status: Text | None = Field(
        validation_alias="X", description="status after this event, as the exchange spells it"
    )
    price: Unsigned | None = Field(
        validation_alias="p", default=None, description="limit price; empty on market orders"
    )
    quantity: Unsigned | None = Field(
        validation_alias="q", default=None, description="ordered quantity in the base asset"
    )
    quote_quantity: Unsigned | None = Field(
        validation_alias="Q", default=None, description="ordered quantity in the quote asset"
    )
    executed_quantity: Unsigned | None = Field(
        validation_alias="z", default=None, description="executed so far, base asset"
    )
    executed_quote_quantity: Unsigned | None = Field(
        validation_alias="Z", default=None, description="executed so far, quote asset"
    )
    trade_id: Whole | None = Field(
        validation_alias="t", default=None, description="`orderFill` only: the trade"
    )
    fill_price: Unsigned | None = Field(
        validation_alias="L", default=None, description="`orderFill` only: price of this fill"
    )
    fill_quantity: Unsigned | None = Field(
        validation_alias="l", default=None, description="`orderFill` only: quantity of this fill"
    )
    is_maker: Flag | None = Field(
        validation_alias="m",
        default=None,
        description="`orderFill` only: `true` where this order rested",
    )
    fee: Signed | None = Field(
        validation_alias="n",
        default=None,
        description="`orderFill` only: the fee; negative is a rebate",
    )
    fee_asset: Text | None = Field(
        validation_alias="N", default=None, description="`orderFill` only: the asset of the fee"
    )
    expiry_reason: Text | None = Field(
        validation_alias="R", default=None, description="`orderExpired` only: why"
    )
    self_trade_prevention: Text | None = Field(
        validation_alias="V",
        default=None,
        description="what happens where the order would meet an own one",
    )
    origin: Text | None = Field(
        validation_alias="O",
        default=None,
        description="who placed it: `USER`, or which mechanism of the exchange",
    )
    reduce_only: Flag | None = Field(
        validation_alias="r", default=None, description="whether it may only reduce a position"
    )
    post_only: Flag | None = Field(
        validation_alias="y", default=None, description="whether it may only rest"
    )
    trigger_price: Unsigned | None = Field(
        validation_alias="P", default=None, description="trigger orders: the price that sets it off"
    )
    trigger_by: Text | None = Field(
        validation_alias="B", default=None, description="trigger orders: the price that is watched"
    )
    trigger_quantity: Text | None = Field(
        validation_alias="Y",
        default=None,
        description="trigger orders: a quantity, or a percentage such as `80%`",
    )
    take_profit_trigger_price: Unsigned | None = Field(
        validation_alias="a", default=None, description="take profit: trigger price"
    )
    take_profit_trigger_by: Text | None = Field(
        validation_alias="d", default=None, description="take profit: the price that is watched"
    )
    take_profit_limit_price: Unsigned | None = Field(
        validation_alias="j", default=None, description="take profit: limit price"
    )
    stop_loss_trigger_price: Unsigned | None = Field(
        validation_alias="b", default=None, description="stop loss: trigger price"
    )
    stop_loss_trigger_by: Text | None = Field(
        validation_alias="g", default=None, description="stop loss: the price that is watched"
    )
    stop_loss_limit_price: Unsigned | None = Field(
        validation_alias="k", default=None, description="stop loss: limit price"
    )
    related_order_id: Id | None = Field(
        validation_alias="I", default=None, description="the order that this one belongs to"
    )
    strategy_id: Id | None = Field(
        validation_alias="H", default=None, description="the strategy that this order belongs to"
    )
    source: Literal["rest"] | None = Field(
        validation_alias=OURS + "source",
        default=None,
        description="empty: received; `rest`: missed, and fetched over REST afterwards",
    )
    occurrence: Whole | None = Field(
        validation_alias=OURS + "occurrence", default=None, description=OCCURRENCE
    )
    event_us: Whole | None = Field(validation_alias="E", description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class PositionUpdate(Event):
    """A position. The frames that the exchange sends on subscription have no event name and
    become type `position`: the current position.

    `net_quantity` is signed, negative when short.
    """

    numbers_as_text = True
    type: Literal["positionOpened", "positionAdjusted", "positionClosed", "position"] = Field(
        validation_alias="e", default="position", description=KIND
    )
    symbol: Text = Field(validation_alias="s", description=MARKET)
    position_id: Id | None = Field(
        validation_alias="i", default=None, description="the exchange's id of the position"
    )
    net_quantity: LooseSigned = Field(
        validation_alias="q", description="the position, base asset; negative is short"
    )
    net_exposure_quantity: LooseSigned | None = Field(
        validation_alias="Q", default=None, description="position and open orders, base asset"
    )
    net_exposure_notional: LooseSigned | None = Field(
        validation_alias="n", default=None, description="the exposure's value in the quote asset"
    )
    entry_price: LooseSigned | None = Field(
        validation_alias="B", default=None, description="average entry price"
    )
    break_even_price: LooseSigned | None = Field(
        validation_alias="b", default=None, description="price at which closing breaks even"
    )
    mark_price: LooseSigned | None = Field(
        validation_alias="M", default=None, description="mark price"
    )
    initial_margin_fraction: LooseSigned | None = Field(
        validation_alias="f", default=None, description="initial margin fraction"
    )
    maintenance_margin_fraction: LooseSigned | None = Field(
        validation_alias="m", default=None, description="maintenance margin fraction"
    )
    realized_pnl: LooseSigned | None = Field(
        validation_alias="p", default=None, description="realized profit and loss"
    )
    unrealized_pnl: LooseSigned | None = Field(
        validation_alias="P", default=None, description="unrealized profit and loss"
    )
    liquidation_price: LooseSigned | None = Field(
        validation_alias="l", default=None, description="`0` since September 2025; not to be used"
    )
    occurrence: Whole | None = Field(
        validation_alias=OURS + "occurrence", default=None, description=OCCURRENCE
    )
    event_us: Whole | None = Field(validation_alias="E", default=None, description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", default=None, description=MATCHED)
    received_us: Whole = Field(description=READ)


class BalanceUpdate(Event):
    """An asset's balance, absolute; `symbol` is always None here."""

    type: Literal["balanceUpdate"] = Field(validation_alias="e", description=KIND)
    symbol: Text | None = Field(
        validation_alias="s",
        default=None,
        description="always empty: a balance belongs to no market",
    )
    asset: Text = Field(validation_alias="a", description="the asset")
    available: Signed = Field(validation_alias="A", description="free to use")
    locked: Signed = Field(validation_alias="L", description="held by open orders")
    staked: Signed = Field(validation_alias="S", description="staked")
    occurrence: Whole | None = Field(
        validation_alias=OURS + "occurrence", default=None, description=OCCURRENCE
    )
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class RfqUpdate(Event):
    """A change of a request for quote, or of a quote on it. Ids exceed 2^53."""

    type: Literal[
        "rfqActive",
        "rfqAccepted",
        "rfqRefreshed",
        "rfqCancelled",
        "rfqCancelRequested",
        "rfqCandidate",
        "rfqAcceptedBinding",
        "rfqFilled",
        "quoteAccepted",
        "quoteCancelled",
    ] = Field(validation_alias="e", description=KIND)
    symbol: Text = Field(validation_alias="s", description=MARKET)
    rfq_id: Whole = Field(
        validation_alias="R", description="id of the request for quote; may be above 2^53"
    )
    quote_id: Whole | None = Field(
        validation_alias="u", default=None, description="id of the quote; may be above 2^53"
    )
    client_id: Id | None = Field(
        validation_alias="C", default=None, description="the id the client gave"
    )
    side: Side | None = Field(
        validation_alias="S", default=None, description="`Bid` (buy) or `Ask` (sell)"
    )
    quantity: Unsigned | None = Field(
        validation_alias="q",
        default=None,
        description="quantity in the base asset, where it is set so",
    )
    quote_quantity: Unsigned | None = Field(
        validation_alias="Q",
        default=None,
        description="quantity in the quote asset, where it is set so",
    )
    price: Unsigned | None = Field(
        validation_alias="p", default=None, description="price, where one is known"
    )
    status: Text = Field(
        validation_alias="X", description="status after this event, as the exchange spells it"
    )
    submission_ms: Whole | None = Field(
        validation_alias="w", default=None, description="end of the time for quotes, ms since 1970"
    )
    expiry_ms: Whole | None = Field(
        validation_alias="W", default=None, description="end of the request, ms since 1970"
    )
    order_expiry_ms: Whole | None = Field(
        validation_alias="O", default=None, description="end of the order itself, ms since 1970"
    )
    executed_quantity: Unsigned | None = Field(
        validation_alias="z", default=None, description="executed so far, in the base asset"
    )
    executed_quote_quantity: Unsigned | None = Field(
        validation_alias="Z", default=None, description="executed so far, in the quote asset"
    )
    fill_quantity: Unsigned | None = Field(
        validation_alias="l", default=None, description="quantity of this fill, in the base asset"
    )
    fill_quote_quantity: Unsigned | None = Field(
        validation_alias="L", default=None, description="quantity of this fill, in the quote asset"
    )
    system_order_type: Text | None = Field(
        validation_alias="o",
        default=None,
        description="the exchange's own kind of order, if it is one",
    )
    occurrence: Whole | None = Field(
        validation_alias=OURS + "occurrence", default=None, description=OCCURRENCE
    )
    event_us: Whole = Field(validation_alias="E", description=SENT)
    engine_us: Whole = Field(validation_alias="T", description=MATCHED)
    received_us: Whole = Field(description=READ)


class UnknownEvent(Event):
    """An account event that the contract does not name yet, or one with a known name that is
    invalid as such: its values are in `extra`, by the exchange's letters.
    """

    type: Literal["unknown_event"] = Field(
        validation_alias=OURS + "type", default="unknown_event", description=KIND
    )
    event: Text | None = Field(
        validation_alias="e",
        default=None,
        description="the exchange's name of the event; empty where it has none",
    )
    symbol: Text | None = Field(validation_alias="s", default=None, description=MARKET)
    occurrence: Whole | None = Field(
        validation_alias=OURS + "occurrence", default=None, description=OCCURRENCE
    )
    event_us: Whole | None = Field(validation_alias="E", default=None, description=SENT)
    engine_us: Whole | None = Field(validation_alias="T", default=None, description=MATCHED)
    received_us: Whole = Field(description=READ)
