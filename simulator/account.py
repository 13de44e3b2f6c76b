"""One account: its assets, open orders, positions and past fills. Pure arithmetic, exact.

The locked amount is always what the open spot orders need; nothing is counted twice. Knows no
books, matching or messages: `accounts` acts, this module keeps the state.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from simulator.book import Side
from simulator.decimals import exact, plain
from simulator.listing import IMF_FUNCTION, MMF_FUNCTION, Listing, MarketType
from simulator.orders import Order, PositionView, Status

QUOTE_FUNDS = Decimal(1_000_000)
BASE_FUNDS_WORTH = 200_000
# Fee rates as (maker, taker).
SPOT_FEES = (Decimal("0.0008"), Decimal("0.001"))
PERP_FEES = (Decimal("0.0002"), Decimal("0.0005"))
INITIAL_MARGIN = IMF_FUNCTION["base"]
MAINTENANCE_MARGIN = MMF_FUNCTION["base"]
ORDERS_KEPT = 10_000
EXTRA_PLACES = 4
ZERO = Decimal(0)


class Balance(NamedTuple):
    available: Decimal
    locked: Decimal


class FillRow(NamedTuple):
    """A fill as history shows it."""

    at_ms: int
    symbol: str
    order_id: str
    client_id: int | None
    side: Side
    trade_id: int
    price: str
    quantity: str
    fee: str
    fee_asset: str
    maker: bool


@dataclass(slots=True)
class OpenRfq:
    """The account's request for a quote, held as an order that never reaches a book."""

    rfq_id: int
    symbol: str
    terms: Order
    submitted_ms: int
    expires_ms: int
    quote_id: int | None = None
    quoted_ms: int = 0


@dataclass(slots=True)
class Position:
    """A net position in one perpetual: signed quantity in steps, prices as decimals."""

    listing: Listing
    position_id: int
    quantity: int = 0
    entry: Decimal = ZERO
    fees: Decimal = ZERO
    realised: Decimal = ZERO

    @property
    def size(self) -> Decimal:
        return exact(self.quantity, self.listing.quantity_places)

    def add(self, signed: int, price: Decimal) -> Decimal:
        """Trade a signed quantity that does not flip the position. Returns the realised PnL."""
        amount = exact(signed, self.listing.quantity_places)
        if self.quantity == 0 or (self.quantity > 0) == (signed > 0):
            total = self.size + amount
            self.entry = self._rounded((self.size * self.entry + amount * price) / total)
            self.quantity += signed
            return ZERO
        realised = -amount * (price - self.entry)
        self.quantity += signed
        self.realised += realised
        return realised

    def view(self, mark: Decimal, exposure: int) -> PositionView:
        """The position as messages show it, at a mark price and with its open orders' exposure."""
        exposed = exact(exposure, self.listing.quantity_places)
        extra = self.fees / self.size if self.quantity else ZERO
        return PositionView(
            self.listing.symbol,
            self.position_id,
            plain(self.size),
            plain(exposed),
            plain(exposed * mark),
            plain(self.entry),
            plain(self._rounded(self.entry + extra)),
            plain(mark),
            INITIAL_MARGIN,
            MAINTENANCE_MARGIN,
            plain(self.realised),
            plain(self.size * (mark - self.entry)),
        )

    def _rounded(self, value: Decimal) -> Decimal:
        return value.quantize(Decimal(1).scaleb(-self.listing.price_places - EXTRA_PLACES))


class Account:
    """The exchange's state for one key."""

    def __init__(self, key: str, listings: list[Listing]) -> None:
        self.key = key
        self.funds: dict[str, Decimal] = {}
        self.orders: dict[str, Order] = {}
        self.positions: dict[str, Position] = {}
        self.fills: list[FillRow] = []
        self.placed: deque[Order] = deque(maxlen=ORDERS_KEPT)  # all orders, oldest first
        self.rfqs: dict[int, OpenRfq] = {}
        self.emitted: dict[str, Balance] = {}
        for item in listings:
            self.funds[item.quote] = QUOTE_FUNDS
        for item in listings:
            self.fund(item)

    def fund(self, item: Listing) -> None:
        """Credit the assets of a market. Sends no event."""
        self.funds.setdefault(item.quote, QUOTE_FUNDS)
        if item.market_type is MarketType.SPOT:
            price = exact(item.opening_price, item.price_places)
            self.funds.setdefault(item.base, Decimal(int(BASE_FUNDS_WORTH / price) + 1))
        self.emitted.update(self.balances())

    def balances(self) -> dict[str, Balance]:
        """The available and the locked amount of each asset."""
        locked = dict.fromkeys(self.funds, ZERO)
        for order in self.orders.values():
            asset, amount = lock(order)
            if amount:
                locked[asset] += amount
        return {
            asset: Balance(total - locked[asset], locked[asset])
            for asset, total in self.funds.items()
        }

    def affords(self, order: Order, limit: int) -> bool:
        """Whether a spot order can be paid for, at worst at a limit price. True for perpetuals,
        which are always margined.
        """
        listing = order.listing
        if listing.market_type is not MarketType.SPOT:
            return True
        quantity = exact(order.remaining, listing.quantity_places)
        balances = self.balances()
        if order.side is Side.ASK:
            return quantity <= balances[listing.base].available
        return quantity * exact(limit, listing.price_places) <= balances[listing.quote].available

    def exposure(self, listing: Listing) -> int:
        """The largest position that the open orders could lead to, in steps."""
        held = self.positions[listing.symbol].quantity if listing.symbol in self.positions else 0
        buys = sells = 0
        for order in self.orders.values():
            if order.listing is not listing or order.reduce_only or is_pending(order):
                continue
            if order.side is Side.BID:
                buys += order.remaining
            else:
                sells += order.remaining
        return max(abs(held + buys), abs(held - sells))

    def pay(self, order: Order, price: int, quantity: int, *, maker: bool) -> tuple[Decimal, str]:
        """Transfer the money of a spot fill. Returns fee and its asset: base for a buy, else
        quote.
        """
        listing = order.listing
        amount = exact(quantity, listing.quantity_places)
        cost = amount * exact(price, listing.price_places)
        rate = SPOT_FEES[0 if maker else 1]
        if order.side is Side.BID:
            fee = amount * rate
            self.funds[listing.quote] -= cost
            self.funds[listing.base] += amount - fee
            return fee, listing.base
        fee = cost * rate
        self.funds[listing.base] -= amount
        self.funds[listing.quote] += cost - fee
        return fee, listing.quote


def lock(order: Order) -> tuple[str, Decimal]:
    """The asset and amount that an open order locks."""
    listing = order.listing
    if listing.market_type is not MarketType.SPOT or order.price is None or is_pending(order):
        return listing.quote, ZERO
    quantity = exact(order.remaining, listing.quantity_places)
    if order.side is Side.ASK:
        return listing.base, quantity
    return listing.quote, quantity * exact(order.price, listing.price_places)


def is_pending(order: Order) -> bool:
    """Whether an order waits for its trigger."""
    return order.status is Status.TRIGGER_PENDING
