"""Parses the exchange's REST bodies (pure): depth, history, snapshots of the account.

Rows of account snapshots use the contract's names (those of OrderUpdate, PositionUpdate and
BalanceUpdate), so that a reader applies both in the same way. Fields without a name there keep the
exchange's.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from bridge.contract.entry import complaint
from bridge.contract.events import (
    BalancesSnapshot,
    Event,
    Flag,
    Id,
    Level,
    Levels,
    OrdersSnapshot,
    OrderUpdate,
    PositionsSnapshot,
    Side,
    Signed,
    Text,
    Trade,
    Unsigned,
    Whole,
)
from bridge.contract.fields import has_fraction, plain_decimal
from bridge.contract.json_text import parsed
from bridge.contract.streams import Stream
from bridge.protocol.envelope import MAX_COMPLAINT

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST_ROWS = 10_000  # of a page of history; the exchange sends 1,000


class BadBody(ValueError):
    """The body is not a valid response of this endpoint; the message has the reason."""


class DepthBody(BaseModel):
    """`GET /api/v1/depth`: bids ascending (best last), asks ascending (best first)."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    last_update_id: Whole = Field(alias="lastUpdateId")  # a string of digits
    timestamp: Whole = 0  # µs (the documentation's example shows ms)
    bids: Levels
    asks: Levels


def depth_body(text: bytes) -> DepthBody:
    """Parse a depth body. Raises BadBody."""
    try:
        return DepthBody.model_validate_json(text)
    except ValidationError as error:
        raise BadBody(f"depth: {complaint(error)}") from None


class TradeRow(BaseModel):
    """A row of `GET /api/v1/trades/history`, newest first; `timestamp` is in ms."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: Whole
    is_buyer_maker: Flag = Field(alias="isBuyerMaker")
    price: Unsigned
    quantity: Unsigned
    timestamp: Whole


_TRADE_ROWS: TypeAdapter[list[TradeRow]] = TypeAdapter(
    Annotated[list[TradeRow], Field(max_length=MOST_ROWS)]
)


def trades_page(symbol: str, text: bytes, received_us: int) -> list[Trade]:
    """The trades of a page of history. Raises BadBody."""
    try:
        rows = _TRADE_ROWS.validate_json(text)
        # id 0 once marked backstop fills: without a number they have no place
        return [_trade(symbol, row, received_us) for row in rows if row.id]
    except ValidationError as error:  # an invalid row, or a time that no event can have
        raise BadBody(f"trades: {complaint(error)}") from None


def _trade(symbol: str, row: TradeRow, received_us: int) -> Trade:
    return Trade(
        type="trade",
        symbol=symbol,
        price=row.price,
        quantity=row.quantity,
        trade_id=row.id,
        buyer_is_maker=row.is_buyer_maker,
        source="rest",
        event_us=None,
        engine_us=row.timestamp * 1000,
        received_us=received_us,
    )


class FillRow(BaseModel):
    """A row of `GET /wapi/v1/history/fills`; `timestamp` is UTC, without an offset."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    symbol: Text
    order_id: Id = Field(alias="orderId")
    client_id: Id | None = Field(alias="clientId", default=None)
    trade_id: Whole | None = Field(alias="tradeId", default=None)
    side: Side
    price: Unsigned
    quantity: Unsigned
    fee: Signed
    fee_symbol: Text = Field(alias="feeSymbol")
    is_maker: Flag = Field(alias="isMaker")
    timestamp: datetime


_FILL_ROWS: TypeAdapter[list[FillRow]] = TypeAdapter(
    Annotated[list[FillRow], Field(max_length=MOST_ROWS)]
)


def fills_page(text: bytes, received_us: int) -> list[OrderUpdate]:
    """The fills of a page of history that have a trade id. Raises BadBody."""
    try:
        rows = _FILL_ROWS.validate_json(text)
        return [_fill(row, received_us) for row in rows if row.trade_id is not None]
    except ValidationError as error:  # an invalid row, or a time that no event can have
        raise BadBody(f"fills: {complaint(error)}") from None


def _fill(row: FillRow, received_us: int) -> OrderUpdate:
    moment = row.timestamp.replace(tzinfo=row.timestamp.tzinfo or UTC)
    return OrderUpdate(
        type="orderFill",
        symbol=row.symbol,
        order_id=row.order_id,
        client_order_id=row.client_id,
        side=row.side,
        order_type=None,
        status=None,
        trade_id=row.trade_id,
        fill_price=row.price,
        fill_quantity=row.quantity,
        is_maker=row.is_maker,
        fee=row.fee,
        fee_asset=row.fee_symbol,
        source="rest",
        event_us=None,
        engine_us=(moment - EPOCH) // timedelta(microseconds=1),
        received_us=received_us,
    )


_ORDER_NAMES: Mapping[str, str] = {
    "id": "order_id",
    "clientId": "client_order_id",
    "symbol": "symbol",
    "side": "side",
    "orderType": "order_type",
    "timeInForce": "time_in_force",
    "status": "status",
    "price": "price",
    "quantity": "quantity",
    "quoteQuantity": "quote_quantity",
    "executedQuantity": "executed_quantity",
    "executedQuoteQuantity": "executed_quote_quantity",
    "selfTradePrevention": "self_trade_prevention",
    "reduceOnly": "reduce_only",
    "postOnly": "post_only",
    "triggerPrice": "trigger_price",
    "triggerBy": "trigger_by",
    "triggerQuantity": "trigger_quantity",
    "takeProfitTriggerPrice": "take_profit_trigger_price",
    "takeProfitTriggerBy": "take_profit_trigger_by",
    "takeProfitLimitPrice": "take_profit_limit_price",
    "stopLossTriggerPrice": "stop_loss_trigger_price",
    "stopLossTriggerBy": "stop_loss_trigger_by",
    "stopLossLimitPrice": "stop_loss_limit_price",
    "relatedOrderId": "related_order_id",
    "strategyId": "strategy_id",
}
_POSITION_NAMES: Mapping[str, str] = {
    "symbol": "symbol",
    "positionId": "position_id",
    "netQuantity": "net_quantity",
    "netExposureQuantity": "net_exposure_quantity",
    "netExposureNotional": "net_exposure_notional",
    "entryPrice": "entry_price",
    "breakEvenPrice": "break_even_price",
    "markPrice": "mark_price",
    "imf": "initial_margin_fraction",
    "mmf": "maintenance_margin_fraction",
    "pnlRealized": "realized_pnl",
    "pnlUnrealized": "unrealized_pnl",
    "estLiquidationPrice": "liquidation_price",
}

_ROWS: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[dict[str, Any]])
_BALANCES: TypeAdapter[dict[str, dict[str, Any]]] = TypeAdapter(dict[str, dict[str, Any]])


def orders_rows(text: bytes) -> list[dict[str, Any]]:
    """The open orders of `GET /api/v1/orders`. Raises BadBody."""
    return _renamed(_rows(text, "orders"), _ORDER_NAMES)


def positions_rows(text: bytes) -> list[dict[str, Any]]:
    """The open positions of `GET /api/v1/position`. Raises BadBody."""
    return _renamed(_rows(text, "positions"), _POSITION_NAMES)


def balances_rows(text: bytes) -> list[dict[str, Any]]:
    """Rows of `GET /api/v1/capital`, a map asset → available, locked, staked. Raises BadBody."""
    try:
        balances = _BALANCES.validate_python(_json(text, "balances"))
    except ValidationError as error:
        raise BadBody(f"balances: {complaint(error)}") from None
    return [
        {"asset": asset} | amounts | {"asset": asset}  # first, and not overwritten by the amounts
        for asset, amounts in sorted(balances.items())
    ]


def account_event(stream: Stream, text: bytes, received_us: int) -> Event:
    """The snapshot event of a stream, from the body of an account endpoint. Raises BadBody."""
    snapshot = stream.spec.snapshot
    if snapshot is None or snapshot not in _ACCOUNT_ROWS:
        raise BadBody(f"{stream.name} has no snapshot over REST")
    field, rows_of = _ACCOUNT_ROWS[snapshot]
    facts = {"symbol": stream.symbol or None, "received_us": received_us}
    return snapshot.model_validate({field: rows_of(text), **facts})


_ACCOUNT_ROWS: Mapping[type[Event], tuple[str, Callable[[bytes], list[dict[str, Any]]]]] = {
    OrdersSnapshot: ("orders", orders_rows),
    PositionsSnapshot: ("positions", positions_rows),
    BalancesSnapshot: ("balances", balances_rows),
}


def row_count(text: bytes) -> int:
    """How many rows a page has. Raises BadBody."""
    return len(_rows(text, "page"))


def _rows(text: bytes, what: str) -> list[dict[str, Any]]:
    try:
        return _ROWS.validate_python(_json(text, what))
    except ValidationError as error:
        raise BadBody(f"{what}: {complaint(error)}") from None


def _json(text: bytes, what: str) -> Any:
    """The value of a body. Raises BadBody. Fractions that are JSON numbers become text, with the
    exchange's own digits: a float would round them, and may be invalid as JSON (1e999).
    """
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise BadBody(f"{what}: {str(error)[:MAX_COMPLAINT]}") from None
    return parsed(text, parse_float=plain_decimal) if has_fraction(value) else value


def _renamed(rows: Sequence[dict[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


def best_prices(text: bytes) -> tuple[Level | None, Level | None]:
    """The best bid and ask of a depth body. Raises BadBody."""
    body = depth_body(text)
    return (body.bids[-1] if body.bids else None, body.asks[0] if body.asks else None)
