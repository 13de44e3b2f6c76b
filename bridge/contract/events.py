"""Every event of the contract, in two spellings: the exchange's letters in, our names out.

One class serves both sides. `validate_python(data)` reads the exchange's letters (aliases); an
entry read back from Redis is validated by name (see `entry.py`). Events are frozen. Prices and
quantities stay the exchange's own decimal strings, checked by pattern and bounded, never a float.
Times carry their unit in the name. Fields that the exchange adds and that are not named here are
kept (`extra`).

Source of each field, its type on the wire and what may be absent or null: the exchange's Streams
documentation, corrected by captured frames where the two differ.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    StringConstraints,
)
from pydantic_core import core_schema

CONTRACT_VERSION = 1

U64_MAX = 2**64 - 1


class WholeNumber:
    """A whole number, or its digits as a string: the wire has been seen to use either.

    Strict otherwise: neither `true` nor `1.0` is a whole number.
    """

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        number = core_schema.int_schema(strict=True, ge=0, le=U64_MAX)
        digits = core_schema.chain_schema(
            [
                core_schema.str_schema(strict=True, pattern=r"^[0-9]{1,20}$"),
                core_schema.int_schema(ge=0, le=U64_MAX),
            ]
        )
        return core_schema.union_schema(
            [number, digits],
            mode="left_to_right",
            custom_error_type="whole_number",
            custom_error_message="should be a whole number from 0 to 2^64-1, or its digits",
        )


def _digits(value: object) -> object:
    return str(value) if type(value) is int else value


_MAX_DIGITS = 64  # 28 decimals have been seen; nothing real is longer

Whole = Annotated[int, WholeNumber()]
Flag = Annotated[bool, Strict()]
Unsigned = Annotated[
    str, StringConstraints(strict=True, max_length=_MAX_DIGITS, pattern=r"^[0-9]+(\.[0-9]+)?$")
]
Signed = Annotated[
    str, StringConstraints(strict=True, max_length=_MAX_DIGITS, pattern=r"^-?[0-9]+(\.[0-9]+)?$")
]
# Printed as JSON numbers by the documentation, or never captured: either form is taken.
LooseSigned = Annotated[Signed, BeforeValidator(_digits)]
LooseUnsigned = Annotated[Unsigned, BeforeValidator(_digits)]
Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]
Id = Annotated[Text, BeforeValidator(_digits)]  # a string of digits, or the integer itself
IsoTime = Annotated[
    str,
    StringConstraints(
        strict=True, pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}$"
    ),
]
Side = Literal["Bid", "Ask"]
Level = tuple[Unsigned, Unsigned]  # price, quantity
Levels = Annotated[list[Level], Field(max_length=20_000)]
Rows = list[dict[str, Any]]


class Event(BaseModel):
    """What every event has. Subclasses put their own fields between `symbol` and the times.

    `received_us` is this side's wall clock when the frame was read, microseconds since 1970.
    `event_us` is the exchange's `E` (when its WebSocket server emitted), `engine_us` its `T`
    (matching engine); either is None where the type has none.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    numbers_as_text: ClassVar[bool] = False  # JSON numbers are accepted in decimal fields
    type: str

    @property
    def extra(self) -> dict[str, Any]:
        """Fields of the exchange that the contract does not name yet."""
        return self.__pydantic_extra__ or {}


class Trade(Event):
    """One trade. `trade_id` is sequential per symbol; `buyer_is_maker` true: the taker sold.

    `source` is `rest` when the row was fetched from history: it then has neither order ids nor
    microseconds.
    """

    type: Literal["trade"] = Field(alias="e")
    symbol: Text = Field(alias="s")
    price: Unsigned = Field(alias="p")
    quantity: Unsigned = Field(alias="q")
    trade_id: Whole = Field(alias="t")
    buyer_order_id: Id | None = Field(alias="b", default=None)
    seller_order_id: Id | None = Field(alias="a", default=None)
    buyer_is_maker: Flag = Field(alias="m")
    source: Literal["rest"] | None = None
    event_us: Whole | None = Field(alias="E")
    engine_us: Whole | None = Field(alias="T")
    received_us: Whole


class Depth(Event):
    """A change of the book: absolute new quantities by price; zero deletes the level.

    Update ids `first_update_id..last_update_id` are covered; the next begins at last + 1.
    """

    type: Literal["depth"] = Field(alias="e")
    symbol: Text = Field(alias="s")
    first_update_id: Whole = Field(alias="U")
    last_update_id: Whole = Field(alias="u")
    bids: Levels = Field(alias="b")
    asks: Levels = Field(alias="a")
    event_us: Whole = Field(alias="E")
    engine_us: Whole = Field(alias="T")
    received_us: Whole


class BookTicker(Event):
    """Best prices and sizes; a side of an empty book is None."""

    type: Literal["bookTicker"] = Field(alias="e")
    symbol: Text = Field(alias="s")
    bid_price: Unsigned | None = Field(alias="b")
    bid_quantity: Unsigned | None = Field(alias="B")
    ask_price: Unsigned | None = Field(alias="a")
    ask_quantity: Unsigned | None = Field(alias="A")
    update_id: Whole = Field(alias="u")
    event_us: Whole = Field(alias="E")
    engine_us: Whole = Field(alias="T")
    received_us: Whole


class _RollingTicker(Event):
    """Rolling 24 hours, every second even if unchanged."""

    symbol: Text = Field(alias="s")
    first_price: Unsigned | None = Field(alias="o")
    last_price: Unsigned | None = Field(alias="c")
    high_price: Unsigned | None = Field(alias="h")
    low_price: Unsigned | None = Field(alias="l")
    base_volume: Unsigned | None = Field(alias="v")
    quote_volume: Unsigned | None = Field(alias="V")
    trades: Whole | None = Field(alias="n")
    event_us: Whole = Field(alias="E")
    engine_us: Whole | None = Field(alias="T", default=None)
    received_us: Whole


class Ticker(_RollingTicker):
    """The market's own rolling ticker."""

    type: Literal["ticker"] = Field(alias="e")


class ExternalTicker(_RollingTicker):
    """The same, from an outside provider."""

    type: Literal["externalTicker"] = Field(alias="e")


class Kline(Event):
    """A candle; prices and volume are None while it has no trades. Times are UTC."""

    type: Literal["kline"] = Field(alias="e")
    symbol: Text = Field(alias="s")
    start_utc: IsoTime = Field(alias="t")
    end_utc: IsoTime = Field(alias="T")
    open_price: Unsigned | None = Field(alias="o")
    high_price: Unsigned | None = Field(alias="h")
    low_price: Unsigned | None = Field(alias="l")
    close_price: Unsigned | None = Field(alias="c")
    base_volume: Unsigned | None = Field(alias="v")
    trades: Whole = Field(alias="n")
    closed: Flag = Field(alias="X")
    event_us: Whole = Field(alias="E")
    engine_us: Whole | None = Field(alias="engine_us", default=None)
    received_us: Whole


class MarkPrice(Event):
    """Mark price each second; prediction markets have neither funding nor index."""

    type: Literal["markPrice"] = Field(alias="e")
    symbol: Text = Field(alias="s")
    mark_price: Signed = Field(alias="p")
    index_price: Signed | None = Field(alias="i", default=None)
    funding_rate: Signed | None = Field(alias="f", default=None)
    next_funding_ms: Whole | None = Field(alias="n", default=None)
    event_us: Whole = Field(alias="E")
    engine_us: Whole = Field(alias="T")
    received_us: Whole


class OpenInterest(Event):
    """Open interest in contracts, each minute."""

    type: Literal["openInterest"] = Field(alias="e")
    symbol: Text = Field(alias="s")
    open_interest: Unsigned = Field(alias="o")
    event_us: Whole = Field(alias="E")
    engine_us: Whole | None = Field(alias="T", default=None)
    received_us: Whole


class Liquidation(Event):
    """One liquidation. `twin` counts equal messages before this one."""

    type: Literal["liquidation"] = Field(alias="e")
    symbol: Text = Field(alias="s")
    side: Side = Field(alias="S")
    price: Unsigned = Field(alias="p")
    quantity: Unsigned = Field(alias="q")
    twin: Whole | None = None
    event_us: Whole = Field(alias="E")
    engine_us: Whole = Field(alias="T")
    received_us: Whole


class StockPrice(Event):
    """A provider's quote of a stock; `source_ms` is the provider's time."""

    numbers_as_text = True
    type: Literal["stockPrice"] = Field(alias="e")
    symbol: Text
    bid: LooseUnsigned | None = None
    ask: LooseUnsigned | None = None
    mid: LooseUnsigned | None = None
    session: Text | None = None
    source_ms: Whole = Field(alias="timestamp")
    event_us: Whole | None = Field(alias="E", default=None)
    engine_us: Whole | None = Field(alias="T", default=None)
    received_us: Whole


class StockIndicativeQuote(Event):
    """Indicative quote of a stock, both sides once a second."""

    numbers_as_text = True
    type: Literal["stockIndicativeQuote"] = Field(alias="e")
    symbol: Text
    bid: LooseUnsigned | None = None
    ask: LooseUnsigned | None = None
    estimated_bid: LooseUnsigned | None = Field(alias="estimatedBid", default=None)
    estimated_ask: LooseUnsigned | None = Field(alias="estimatedAsk", default=None)
    session: Text | None = None
    source_ms: Whole = Field(alias="timestamp")
    event_us: Whole | None = Field(alias="E", default=None)
    engine_us: Whole | None = Field(alias="T", default=None)
    received_us: Whole


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
    """What happened to an order. Fill fields are set on `orderFill` only.

    `source` is `rest` when it is a fill that was missed and fetched from history: it says nothing
    of the order itself. `fee` may be negative (a rebate). `trigger_quantity` is a quantity or a
    percentage (`80%`).
    """

    type: OrderEvent = Field(alias="e")
    symbol: Text = Field(alias="s")
    order_id: Id = Field(alias="i")
    client_order_id: Id | None = Field(alias="c", default=None)
    side: Side = Field(alias="S")
    order_type: Text | None = Field(alias="o")
    time_in_force: Text | None = Field(alias="f", default=None)
    status: Text | None = Field(alias="X")
    price: Unsigned | None = Field(alias="p", default=None)
    quantity: Unsigned | None = Field(alias="q", default=None)
    quote_quantity: Unsigned | None = Field(alias="Q", default=None)
    executed_quantity: Unsigned | None = Field(alias="z", default=None)
    executed_quote_quantity: Unsigned | None = Field(alias="Z", default=None)
    trade_id: Whole | None = Field(alias="t", default=None)
    fill_price: Unsigned | None = Field(alias="L", default=None)
    fill_quantity: Unsigned | None = Field(alias="l", default=None)
    is_maker: Flag | None = Field(alias="m", default=None)
    fee: Signed | None = Field(alias="n", default=None)
    fee_asset: Text | None = Field(alias="N", default=None)
    expiry_reason: Text | None = Field(alias="R", default=None)
    self_trade_prevention: Text | None = Field(alias="V", default=None)
    origin: Text | None = Field(alias="O", default=None)
    reduce_only: Flag | None = Field(alias="r", default=None)
    post_only: Flag | None = Field(alias="y", default=None)
    trigger_price: Unsigned | None = Field(alias="P", default=None)
    trigger_by: Text | None = Field(alias="B", default=None)
    trigger_quantity: Text | None = Field(alias="Y", default=None)
    take_profit_trigger_price: Unsigned | None = Field(alias="a", default=None)
    take_profit_trigger_by: Text | None = Field(alias="d", default=None)
    take_profit_limit_price: Unsigned | None = Field(alias="j", default=None)
    stop_loss_trigger_price: Unsigned | None = Field(alias="b", default=None)
    stop_loss_trigger_by: Text | None = Field(alias="g", default=None)
    stop_loss_limit_price: Unsigned | None = Field(alias="k", default=None)
    related_order_id: Id | None = Field(alias="I", default=None)
    strategy_id: Id | None = Field(alias="H", default=None)
    source: Literal["rest"] | None = None
    twin: Whole | None = None
    event_us: Whole | None = Field(alias="E")
    engine_us: Whole | None = Field(alias="T")
    received_us: Whole


class PositionUpdate(Event):
    """A position. The frames that the exchange sends on subscription have no event name and
    become type `position`: the position as it stands.

    `net_quantity` is signed, negative when short.
    """

    numbers_as_text = True
    type: Literal["positionOpened", "positionAdjusted", "positionClosed", "position"] = Field(
        alias="e", default="position"
    )
    symbol: Text = Field(alias="s")
    position_id: Id | None = Field(alias="i", default=None)
    net_quantity: LooseSigned = Field(alias="q")
    net_exposure_quantity: LooseSigned | None = Field(alias="Q", default=None)
    net_exposure_notional: LooseSigned | None = Field(alias="n", default=None)
    entry_price: LooseSigned | None = Field(alias="B", default=None)
    break_even_price: LooseSigned | None = Field(alias="b", default=None)
    mark_price: LooseSigned | None = Field(alias="M", default=None)
    initial_margin_fraction: LooseSigned | None = Field(alias="f", default=None)
    maintenance_margin_fraction: LooseSigned | None = Field(alias="m", default=None)
    realized_pnl: LooseSigned | None = Field(alias="p", default=None)
    unrealized_pnl: LooseSigned | None = Field(alias="P", default=None)
    liquidation_price: LooseSigned | None = Field(alias="l", default=None)
    twin: Whole | None = None
    event_us: Whole | None = Field(alias="E", default=None)
    engine_us: Whole | None = Field(alias="T", default=None)
    received_us: Whole


class BalanceUpdate(Event):
    """An asset's balance, absolute; `symbol` is always None here."""

    type: Literal["balanceUpdate"] = Field(alias="e")
    symbol: Text | None = Field(alias="s", default=None)
    asset: Text = Field(alias="a")
    available: Signed = Field(alias="A")
    locked: Signed = Field(alias="L")
    staked: Signed = Field(alias="S")
    twin: Whole | None = None
    event_us: Whole = Field(alias="E")
    engine_us: Whole = Field(alias="T")
    received_us: Whole


class RfqUpdate(Event):
    """What happened to a request for quote, or to a quote on it. Ids exceed 2^53."""

    type: Literal[
        "rfqActive",
        "rfqAccepted",
        "rfqRefreshed",
        "rfqCancelled",
        "rfqCandidate",
        "rfqAcceptedBinding",
        "rfqFilled",
        "quoteAccepted",
        "quoteCancelled",
    ] = Field(alias="e")
    symbol: Text = Field(alias="s")
    rfq_id: Whole = Field(alias="R")
    quote_id: Whole | None = Field(alias="u", default=None)
    client_id: Id | None = Field(alias="C", default=None)
    side: Side | None = Field(alias="S", default=None)
    quantity: Unsigned | None = Field(alias="q", default=None)
    quote_quantity: Unsigned | None = Field(alias="Q", default=None)
    price: Unsigned | None = Field(alias="p", default=None)
    status: Text = Field(alias="X")
    submission_ms: Whole | None = Field(alias="w", default=None)
    expiry_ms: Whole | None = Field(alias="W", default=None)
    system_order_type: Text | None = Field(alias="o", default=None)
    twin: Whole | None = None
    event_us: Whole = Field(alias="E")
    engine_us: Whole = Field(alias="T")
    received_us: Whole


class Own(Event):
    """An entry of the bridge's own: it never comes from the exchange's socket.

    A numbered gap carries the times of the message it stands before; the others have none of the
    exchange's.
    """

    model_config = ConfigDict(frozen=True, extra="allow", validate_by_name=True)


class DepthSnapshot(Own):
    """Replace your book by this one: it is exact at `update_id`. Best price first on both sides.

    `rest_update_id` is the REST body's `lastUpdateId`, carried forward to `update_id` with the
    deltas heard; None when the snapshot is of the bridge's own book.
    """

    type: Literal["depth_snapshot"] = "depth_snapshot"
    symbol: Text
    update_id: Whole
    rest_update_id: Whole | None = None
    bids: Levels
    asks: Levels
    event_us: Whole | None = None
    engine_us: Whole | None = None
    received_us: Whole


class OrdersSnapshot(Own):
    """All open orders as they stand (of `symbol`, or of every market where it is None)."""

    type: Literal["orders_snapshot"] = "orders_snapshot"
    symbol: Text | None = None
    orders: Rows
    twin: Whole | None = None
    event_us: Whole | None = None
    engine_us: Whole | None = None
    received_us: Whole


class PositionsSnapshot(Own):
    """All open positions as they stand (of `symbol`, or of every market where it is None)."""

    type: Literal["positions_snapshot"] = "positions_snapshot"
    symbol: Text | None = None
    positions: Rows
    twin: Whole | None = None
    event_us: Whole | None = None
    engine_us: Whole | None = None
    received_us: Whole


class BalancesSnapshot(Own):
    """All balances as they stand."""

    type: Literal["balances_snapshot"] = "balances_snapshot"
    symbol: Text | None = None
    balances: Rows
    twin: Whole | None = None
    event_us: Whole | None = None
    engine_us: Whole | None = None
    received_us: Whole


class Gap(Own):
    """Something may be missing here.

    Numbered streams: ids `from..to` are not in the stream (`from` is None at a stream's start).
    Unnumbered: nobody was listening from `from_us` to `to_us`; something may be missing.
    """

    type: Literal["gap"] = "gap"
    symbol: Text | None = None
    from_: Whole | None = Field(alias="from", default=None)
    to: Whole | None = None
    from_us: Whole | None = None
    to_us: Whole | None = None
    cause: Text
    repaired: Flag = False
    twin: Whole | None = None
    event_us: Whole | None = None
    engine_us: Whole | None = None
    received_us: Whole


class GapRecord(Own):
    """A line of the ledger `bridge:gaps`: one hole in one stream, mended or not.

    Ids `from..to` in numbered streams, times `from_us..to_us` in the others. `repaired` true:
    nothing of it is missing in the stream. `how` says what made it whole, or makes up for it.
    """

    type: Literal["gap_record"] = "gap_record"
    symbol: Text | None = None
    stream: Text
    from_: Whole | None = Field(alias="from", default=None)
    to: Whole | None = None
    from_us: Whole | None = None
    to_us: Whole | None = None
    cause: Text
    repaired: Flag
    how: Text | None = None
    twin: Whole | None = None
    event_us: Whole | None = None
    engine_us: Whole | None = None
    received_us: Whole


class Quarantined(Own):
    """A message that was refused: the reason, and the text exactly as it came."""

    type: Literal["quarantined"] = "quarantined"
    symbol: Text | None = None
    stream: str | None = None
    reason: str
    raw: str | None = None
    twin: Whole | None = None
    event_us: Whole | None = None
    engine_us: Whole | None = None
    received_us: Whole
