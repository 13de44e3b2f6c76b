"""Places, matches, cancels and triggers account orders, and emits their events.

Each action on an account is written to the tape: the order update first, then the changed balances,
then the position. Pure. Knows neither why an order is placed (`trader`) nor the format of messages
(`frames`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from simulator.account import PERP_FEES, Account, FillRow, Position, is_pending
from simulator.book import Side
from simulator.decimals import exact, padded, plain, without_zeros
from simulator.events import BalanceUpdate, OrderUpdate, PositionUpdate
from simulator.listing import Listing, MarketType
from simulator.market import Execution, Market
from simulator.orders import Fill, Order, PositionView, Status, TimeInForce
from simulator.tape import Tape

FIRST_POSITION_ID = 5_411_399_049


class Accounts:
    """All accounts, and their interaction with the markets."""

    def __init__(self, markets: Mapping[str, Market], keys: Iterable[str]) -> None:
        self.markets = markets
        listings = [market.listing for market in markets.values()]
        self.by_key = {key: Account(key, listings) for key in keys}
        self.marks: dict[str, str] = {}
        self._position_id = FIRST_POSITION_ID
        self._pending: dict[str, list[Order]] = {name: [] for name in markets}

    # Markets --------------------------------------------------------------------------------------

    def list_market(self, item: Listing) -> None:
        """A market was listed: credit its assets to every account."""
        self._pending[item.symbol] = []
        for account in self.by_key.values():
            account.fund(item)

    def delist_market(self, tape: Tape, symbol: str) -> None:
        """A market was delisted: cancel its orders, settle its positions at the mark price."""
        for account in self.by_key.values():
            for order in list(account.orders.values()):
                if order.listing.symbol == symbol:
                    self.cancel(tape, order)
            held = account.positions.get(symbol)
            if held is not None:
                mark = self._mark(held.listing)
                account.funds[held.listing.quote] += held.add(-held.quantity, mark)
                self._emit_position(tape, account, "positionClosed", held)
                del account.positions[symbol]
                self._emit_balances(tape, account)
        self._pending[symbol] = []

    # Orders ---------------------------------------------------------------------------------------

    def place(self, tape: Tape, order: Order) -> None:
        """Process a new order: refuse, match, rest, or store it until its trigger."""
        order.created_us = tape.engine_us
        self.by_key[order.account].placed.append(order)
        if order.is_conditional:
            order.status = Status.TRIGGER_PENDING
            self.by_key[order.account].orders[order.order_id] = order
            self._pending[order.listing.symbol].append(order)
            self._emit(tape, "triggerPlaced", order)
            return
        self._execute(tape, order)

    def cancel(self, tape: Tape, order: Order) -> None:
        """Cancel an open order for its owner."""
        self._remove(tape, order)
        order.status = Status.CANCELLED
        self._emit(tape, "orderCancelled", order)
        self._emit_balances(tape, self.by_key[order.account])

    def settle(
        self, tape: Tape, market: Market, matches: list[Execution], taker: Order | None = None
    ) -> None:
        """Settle the matches of a taker for all parties, then fire the triggers it reached."""
        for match in matches:
            if taker is not None:
                taker.fill(match.price, match.quantity)
                self._settle_one(tape, taker, match, maker=False)
            if match.maker is not None:
                self._settle_one(tape, match.maker, match, maker=True)
        if matches:
            self._pull_triggers(tape, market)

    def _execute(self, tape: Tape, order: Order) -> None:
        """Process an order in the matching engine."""
        account = self.by_key[order.account]
        market = self.markets[order.listing.symbol]
        limit = self._limit(market, order)
        reason = self._refusal(account, market, order, limit)
        if reason is not None:
            self._expire(tape, order, reason)
            return
        order.status = Status.NEW
        account.orders[order.order_id] = order
        self._emit(tape, "orderAccepted", order)
        matches = market.take(tape, order.side, order.remaining, limit, order.order_id)
        resting = (
            order.quantity > sum(match.quantity for match in matches)
            and order.price is not None
            and order.time_in_force is TimeInForce.GTC
        )
        if not resting:
            # It leaves the open orders here, so that nothing is locked for it in the events of its
            # fills.
            account.orders.pop(order.order_id)
        self.settle(tape, market, matches, taker=order)
        if resting:
            market.rest(tape, order)
            self._emit_balances(tape, account)
        elif order.remaining:
            in_time = "ImmediateOrCancel" if order.price is not None else "InsufficientLiquidity"
            self._expire(tape, order, in_time)

    def _limit(self, market: Market, order: Order) -> int:
        """The worst price an order accepts; a market order takes three levels at most."""
        if order.price is not None:
            return order.price
        facing = market.book.ladder(order.side.other)
        return facing.at_depth(2) if facing.prices else market.last_price

    def _refusal(self, account: Account, market: Market, order: Order, limit: int) -> str | None:
        """Why the engine refuses an order, as the exchange's expiry reason; None if it accepts."""
        crosses = not market.fits(order.side, limit)
        if order.post_only and crosses:
            return "PostOnlyTaker"
        if not account.affords(order, limit):
            return "InsufficientFunds"
        if (
            order.time_in_force is TimeInForce.FOK
            and market.available(order.side, limit) < order.remaining
        ):
            return "FillOrKill"
        if crosses and self._meets_itself(account, order, limit):
            return "SelfTradePrevention"
        return None

    def _meets_itself(self, account: Account, order: Order, limit: int) -> bool:
        for other in account.orders.values():
            if other.listing is not order.listing or other.side is order.side or is_pending(other):
                continue
            if other.price is not None and (
                other.price <= limit if order.side is Side.BID else other.price >= limit
            ):
                return True
        return False

    def _expire(self, tape: Tape, order: Order, reason: str) -> None:
        order.status, order.expiry_reason = Status.EXPIRED, reason
        self.by_key[order.account].orders.pop(order.order_id, None)
        self._emit(tape, "orderExpired", order, reason=reason)
        self._emit_balances(tape, self.by_key[order.account])

    def _remove(self, tape: Tape, order: Order) -> None:
        """Remove an order from the open ones, in whatever state."""
        del self.by_key[order.account].orders[order.order_id]
        if is_pending(order):
            self._pending[order.listing.symbol].remove(order)
        else:
            self.markets[order.listing.symbol].withdraw(tape, order)

    # Triggers -------------------------------------------------------------------------------------

    def _pull_triggers(self, tape: Tape, market: Market) -> None:
        """Execute the conditional orders that the last price has triggered."""
        pending = self._pending[market.listing.symbol]
        for order in [item for item in pending if _reached(item, market.last_price)]:
            if order not in pending:
                continue
            pending.remove(order)
            self.by_key[order.account].orders.pop(order.order_id)
            if order.reduce_only and not self._reducible(order):
                order.status = Status.TRIGGER_FAILED
                self._emit(tape, "triggerFailed", order)
            else:
                self._execute(tape, order)

    def _reducible(self, order: Order) -> int:
        """How much of a position an order of its side could close, in steps."""
        position = self.by_key[order.account].positions.get(order.listing.symbol)
        if position is None or (position.quantity > 0) == (order.side is Side.BID):
            return 0
        return abs(position.quantity)

    # Fills ----------------------------------------------------------------------------------------

    def _settle_one(self, tape: Tape, order: Order, match: Execution, *, maker: bool) -> None:
        """Settle one side of a match: order, money, position, history."""
        account = self.by_key[order.account]
        listing = order.listing
        if maker and not order.remaining:
            account.orders.pop(order.order_id, None)
        is_spot = listing.market_type is MarketType.SPOT
        if is_spot:
            fee, asset = account.pay(order, match.price, match.quantity, maker=maker)
        else:
            price = exact(match.price, listing.price_places)
            amount = exact(match.quantity, listing.quantity_places)
            fee, asset = price * amount * PERP_FEES[0 if maker else 1], listing.quote
        fill = Fill(
            match.trade_id,
            padded(match.price, listing.price_places),
            padded(match.quantity, listing.quantity_places),
            plain(fee),
            asset,
            maker,
        )
        self._emit(tape, "orderFill", order, fill=fill)
        account.fills.append(_row(tape, order, listing.symbol, fill))
        if not is_spot:
            self._move_position(tape, account, order, match, fee)
        self._emit_balances(tape, account)
        if not is_spot:
            self._trim_reduce_only(tape, account, order)

    def settle_rfq(self, tape: Tape, terms: Order, trade_id: int) -> None:
        """Settle a filled RFQ: transfer its money and record it. The account pays as a taker."""
        account, listing = self.by_key[terms.account], terms.listing
        assert terms.price is not None
        fee, asset = account.pay(terms, terms.price, terms.quantity, maker=False)
        price = padded(terms.price, listing.price_places)
        quantity = padded(terms.quantity, listing.quantity_places)
        fill = Fill(trade_id, price, quantity, plain(fee), asset, maker=False)
        account.fills.append(_row(tape, terms, f"{listing.symbol}_RFQ", fill))
        self._emit_balances(tape, account)

    def _move_position(
        self, tape: Tape, account: Account, order: Order, match: Execution, fee: Decimal
    ) -> None:
        """Apply a perpetual fill to a position: close what it closes, open the remainder."""
        listing = order.listing
        signed = match.quantity if order.side is Side.BID else -match.quantity
        price = exact(match.price, listing.price_places)
        account.funds[listing.quote] -= fee
        held = account.positions.get(listing.symbol)
        if held is not None and held.quantity * signed < 0:
            closing = max(-abs(held.quantity), min(signed, abs(held.quantity)))
            account.funds[listing.quote] += held.add(closing, price)
            signed -= closing
            name = "positionAdjusted" if held.quantity else "positionClosed"
            if not held.quantity:
                del account.positions[listing.symbol]
            self._emit_position(tape, account, name, held)
        if not signed:
            return
        name = "positionAdjusted"
        held = account.positions.get(listing.symbol)
        if held is None:
            self._position_id += 1
            held = account.positions[listing.symbol] = Position(listing, self._position_id)
            name = "positionOpened"
        held.add(signed, price)
        held.fees += fee
        self._emit_position(tape, account, name, held)

    def _trim_reduce_only(self, tape: Tape, account: Account, cause: Order) -> None:
        """Reduce the resting reduce-only orders that exceed the position."""
        listing = cause.listing
        for order in list(account.orders.values()):
            if order.listing is not listing or not order.reduce_only or is_pending(order):
                continue
            if order is cause or order.remaining <= (left := self._reducible(order)):
                continue
            if left:
                self.markets[listing.symbol].lower(tape, order, order.executed + left)
                self._emit(tape, "orderModified", order)
            else:
                self._remove(tape, order)
                self._expire(tape, order, "ReduceOnlyNotReduced")

    # Events ---------------------------------------------------------------------------------------

    def position_views(self, key: str) -> list[PositionView]:
        """The open positions, for a new subscriber."""
        account = self.by_key[key]
        return [self._position_view(account, held) for held in account.positions.values()]

    def _emit(
        self,
        tape: Tape,
        name: str,
        order: Order,
        *,
        fill: Fill | None = None,
        reason: str | None = None,
    ) -> None:
        stream = "account.orderUpdate"
        tape.write(
            OrderUpdate(
                (stream, f"{stream}.{order.listing.symbol}"),
                order.account,
                tape.stamp(),
                tape.engine_us,
                name,
                order.view(),
                fill,
                reason,
            )
        )

    def _emit_balances(self, tape: Tape, account: Account) -> None:
        """Emit one event for each asset whose figures differ from those emitted last."""
        for asset, balance in account.balances().items():
            if account.emitted.get(asset) == balance:
                continue
            account.emitted[asset] = balance
            tape.write(
                BalanceUpdate(
                    ("account.balanceUpdate",),
                    account.key,
                    tape.stamp(),
                    tape.engine_us,
                    asset,
                    plain(balance.available),
                    plain(balance.locked),
                    "0",
                )
            )

    def _emit_position(self, tape: Tape, account: Account, name: str, held: Position) -> None:
        stream = "account.positionUpdate"
        tape.write(
            PositionUpdate(
                (stream, f"{stream}.{held.listing.symbol}"),
                account.key,
                tape.stamp(),
                tape.engine_us,
                name,
                self._position_view(account, held),
            )
        )

    def _position_view(self, account: Account, held: Position) -> PositionView:
        return held.view(self._mark(held.listing), account.exposure(held.listing))

    def _mark(self, listing: Listing) -> Decimal:
        """The mark price, or the last one before any mark price was emitted."""
        mark = self.marks.get(listing.symbol)
        last = self.markets[listing.symbol].last_price
        return Decimal(mark) if mark else exact(last, listing.price_places)


def _row(tape: Tape, order: Order, symbol: str, fill: Fill) -> FillRow:
    return FillRow(
        tape.engine_us // 1000,
        symbol,
        order.order_id,
        order.client_id,
        order.side,
        fill.trade_id,
        without_zeros(fill.price),
        without_zeros(fill.quantity),
        fill.fee,
        fill.fee_asset,
        fill.maker,
    )


def _reached(order: Order, last_price: int) -> bool:
    assert order.trigger_price is not None
    if order.trigger_above:
        return last_price >= order.trigger_price
    return last_price <= order.trigger_price
