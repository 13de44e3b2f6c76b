"""Orders, fills and positions: the mutable order of the model, and the frozen views in messages.
Knows neither why an order was placed nor its effect on balances.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from simulator.book import Side
from simulator.decimals import padded
from simulator.listing import Listing


class Status(StrEnum):
    NEW = "New"
    PARTIALLY_FILLED = "PartiallyFilled"
    FILLED = "Filled"
    CANCELLED = "Cancelled"
    EXPIRED = "Expired"
    TRIGGER_PENDING = "TriggerPending"
    TRIGGER_FAILED = "TriggerFailed"


class TimeInForce(StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class OrderView(NamedTuple):
    """An order in messages: decimal strings, absent members None. Q is `quote_quantity`."""

    order_id: str
    symbol: str
    side: str
    order_type: str
    time_in_force: str
    status: str
    executed: str
    executed_quote: str
    self_trade_prevention: str = "RejectTaker"
    quantity: str | None = None
    quote_quantity: str | None = None
    price: str | None = None
    origin: str | None = None
    reduce_only: bool | None = None
    post_only: bool | None = None
    client_id: int | None = None
    trigger_price: str | None = None
    trigger_by: str | None = None
    trigger_quantity: str | None = None


class Fill(NamedTuple):
    """One fill of one order, equal to the public trade of the same id."""

    trade_id: int
    price: str
    quantity: str
    fee: str
    fee_asset: str
    maker: bool


class PositionView(NamedTuple):
    """A position in messages: decimal strings, signed quantity."""

    symbol: str
    position_id: int
    quantity: str
    exposure_quantity: str
    exposure_notional: str
    entry_price: str
    break_even_price: str
    mark_price: str
    initial_margin: str
    maintenance_margin: str
    realised: str
    unrealised: str


@dataclass(slots=True)
class Order:
    """A live order. Prices in ticks, quantities in steps; `price` None means a market order."""

    order_id: str
    account: str
    listing: Listing
    side: Side
    quantity: int
    price: int | None
    time_in_force: TimeInForce = TimeInForce.GTC
    status: Status = Status.NEW
    executed: int = 0
    executed_quote: int = 0
    post_only: bool = False
    reduce_only: bool = False
    client_id: int | None = None
    trigger_price: int | None = None
    trigger_above: bool = False
    created_us: int = 0
    expiry_reason: str | None = None

    @property
    def remaining(self) -> int:
        return self.quantity - self.executed

    @property
    def is_conditional(self) -> bool:
        return self.trigger_price is not None

    def fill(self, price: int, quantity: int) -> None:
        self.executed += quantity
        self.executed_quote += price * quantity
        self.status = Status.PARTIALLY_FILLED if self.remaining else Status.FILLED

    def view(self) -> OrderView:
        """The order's current state, in the exchange's strings."""
        places, steps = self.listing.price_places, self.listing.quantity_places
        pending = self.status in (Status.TRIGGER_PENDING, Status.TRIGGER_FAILED)
        view = OrderView(
            order_id=self.order_id,
            symbol=self.listing.symbol,
            side=self.side,
            order_type="MARKET" if self.price is None else "LIMIT",
            time_in_force=self.time_in_force,
            status=self.status,
            executed=padded(self.executed, steps) if self.executed else "0",
            executed_quote=self._quote(self.executed_quote),
            quantity="0" if pending else padded(self.quantity, steps),
            origin="USER",
            reduce_only=self.reduce_only,
            post_only=self.post_only,
            client_id=self.client_id,
        )
        if self.price is not None:
            view = view._replace(
                price=padded(self.price, places),
                quote_quantity=self._quote(self.price * self.quantity),
            )
        if self.trigger_price is not None:
            view = view._replace(
                trigger_price=padded(self.trigger_price, places),
                trigger_by="LastPrice",
                trigger_quantity=padded(self.quantity, steps),
            )
        return view

    def _quote(self, units: int) -> str:
        if not units:
            return "0"
        return padded(units, self.listing.price_places + self.listing.quantity_places)
