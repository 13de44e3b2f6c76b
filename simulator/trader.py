"""The model trader of one account: uses every kind of order of the exchange.

Actions are drawn from a shuffled deck, so that each occurs regularly and in no fixed order. Decides
only; `accounts` executes. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from simulator.accounts import Accounts
from simulator.book import Side
from simulator.listing import MarketType
from simulator.market import Market
from simulator.orders import Order, TimeInForce
from simulator.rfq import RfqTalk
from simulator.tape import Tape

MOST_OPEN_ORDERS = 16
FIRST_CLIENT_ID = 1_000_000


class Trader:
    """Trades for one account. `act` does the next action; one that is impossible now is skipped."""

    def __init__(self, key: str, accounts: Accounts, draw: random.Random) -> None:
        self.key = key
        self._accounts = accounts
        self._account = accounts.by_key[key]
        self._draw = draw
        self._client_id = FIRST_CLIENT_ID
        markets = accounts.markets.values()
        self._spots = [m for m in markets if m.listing.market_type is MarketType.SPOT]
        self._perps = [m for m in markets if m.listing.market_type is MarketType.PERP]
        self._tradable = self._spots + self._perps
        self._talk = RfqTalk(key, accounts, draw)
        self._deck: list[Callable[[Tape], None]] = []

    def act(self, tape: Tape) -> None:
        """Draw and do the next action."""
        if not self._tradable:
            return
        if not self._deck:
            self._deck = self._shuffled()
        if len(self._account.orders) > MOST_OPEN_ORDERS:
            self._cancel(tape)
            return
        self._deck.pop()(tape)

    def delist_market(self, market: Market) -> None:
        """Stop trading in a delisted market."""
        for markets in (self._spots, self._perps, self._tradable):
            if market in markets:
                markets.remove(market)
        self._talk.delist_market(market)

    def _shuffled(self) -> list[Callable[[Tape], None]]:
        deck: list[Callable[[Tape], None]] = [
            *[self._rest_at_touch] * 6,
            *[self._rest_behind] * 3,
            *[self._cancel] * 4,
            *[self._take] * 3,
            *[self._talk.advance] * 5,
            *[self._stop] * 2,
            *[self._reduce] * 2,
            self._take_more_than_there_is,
            self._demand_all_or_nothing,
            self._cross_post_only,
            self._failing_stop,
            self._close,
        ]
        self._draw.shuffle(deck)
        return deck

    # Actions --------------------------------------------------------------------------------------

    def _rest_at_touch(self, tape: Tape) -> None:
        """Rest an order at the touch, where takers will hit it soon, mostly in several fills."""
        market, side = self._any_market(), self._any_side()
        price = market.book.ladder(side).best
        if price is not None:
            self._place(tape, market, side, price=price, post_only=True)

    def _rest_behind(self, tape: Tape) -> None:
        market, side = self._any_market(), self._any_side()
        ladder = market.book.ladder(side)
        if ladder.prices:
            self._place(tape, market, side, price=ladder.at_depth(self._draw.randrange(2, 12)))

    def _cancel(self, tape: Tape) -> None:
        """Cancel an open order, mostly the oldest."""
        orders = list(self._account.orders.values())
        if orders:
            place = int(len(orders) * self._draw.random() ** 3)
            self._accounts.cancel(tape, orders[place])

    def _take(self, tape: Tape) -> None:
        self._place(tape, self._any_market(), self._any_side(), tif=TimeInForce.IOC)

    def _take_more_than_there_is(self, tape: Tape) -> None:
        """An IOC order at the best price for more than rests there: partly filled, the rest
        expires.
        """
        market, side = self._any_market(), self._any_side()
        facing = market.book.ladder(side.other)
        if (best := facing.best) is not None:
            quantity = facing.quantities[best] + self._size(market)
            self._place(tape, market, side, price=best, quantity=quantity, tif=TimeInForce.IOC)

    def _demand_all_or_nothing(self, tape: Tape) -> None:
        market, side = self._any_market(), self._any_side()
        facing = market.book.ladder(side.other)
        if (best := facing.best) is not None:
            quantity = facing.quantities[best] + 1
            self._place(tape, market, side, price=best, quantity=quantity, tif=TimeInForce.FOK)

    def _cross_post_only(self, tape: Tape) -> None:
        market, side = self._any_market(), self._any_side()
        facing = market.book.ladder(side.other).best
        if facing is not None:
            self._place(tape, market, side, price=facing, post_only=True)

    def _stop(self, tape: Tape) -> None:
        """A conditional market order that the price will probably reach soon."""
        self._place_trigger(tape, self._any_market(), reduce_only=False)

    def _failing_stop(self, tape: Tape) -> None:
        """A reduce-only stop without a position to reduce: it fails when triggered."""
        flat = [m for m in self._perps if m.listing.symbol not in self._account.positions]
        if flat:
            self._place_trigger(tape, self._draw.choice(flat), reduce_only=True)

    def _reduce(self, tape: Tape) -> None:
        """Rest a reduce-only order for a whole position, then sell part of it: the engine reduces
        the order.
        """
        for symbol, held in self._account.positions.items():
            if abs(held.quantity) < 4 or self._has_reduce_only(symbol):
                continue
            market = self._accounts.markets[symbol]
            side = Side.ASK if held.quantity > 0 else Side.BID
            ladder = market.book.ladder(side)
            if not ladder.prices:
                continue
            size, part = abs(held.quantity), max(1, abs(held.quantity) // 3)
            far = ladder.at_depth(20)
            self._place(tape, market, side, price=far, quantity=size, reduce_only=True)
            self._place(tape, market, side, quantity=part, tif=TimeInForce.IOC)
            return

    def _close(self, tape: Tape) -> None:
        """Close the oldest position completely."""
        for symbol, held in self._account.positions.items():
            side = Side.ASK if held.quantity > 0 else Side.BID
            market = self._accounts.markets[symbol]
            self._place(
                tape,
                market,
                side,
                quantity=abs(held.quantity),
                tif=TimeInForce.IOC,
                reduce_only=True,
            )
            return

    # Helpers --------------------------------------------------------------------------------------

    def _place(
        self,
        tape: Tape,
        market: Market,
        side: Side,
        *,
        price: int | None = None,
        quantity: int | None = None,
        tif: TimeInForce = TimeInForce.GTC,
        post_only: bool = False,
        reduce_only: bool = False,
    ) -> None:
        order = Order(
            market.new_order_id(),
            self.key,
            market.listing,
            side,
            quantity or self._size(market),
            price,
            tif,
            post_only=post_only,
            reduce_only=reduce_only,
            client_id=self._next_client_id(),
        )
        self._accounts.place(tape, order)

    def _place_trigger(self, tape: Tape, market: Market, *, reduce_only: bool) -> None:
        side = self._any_side()
        distance = 1 + self._draw.randrange(3 * market.listing.gap)
        above = side is Side.BID
        trigger = market.last_price + distance if above else market.last_price - distance
        order = Order(
            market.new_order_id(),
            self.key,
            market.listing,
            side,
            self._size(market),
            None,
            reduce_only=reduce_only,
            trigger_price=max(1, trigger),
            trigger_above=above,
        )
        self._accounts.place(tape, order)

    def _has_reduce_only(self, symbol: str) -> bool:
        return any(
            order.reduce_only and order.listing.symbol == symbol
            for order in self._account.orders.values()
        )

    def _next_client_id(self) -> int | None:
        """The next client order id; None for every third order, as some clients set none."""
        self._client_id += 1
        return self._client_id if self._client_id % 3 else None

    def _any_market(self) -> Market:
        return self._draw.choice(self._tradable)

    def _any_side(self) -> Side:
        return Side.BID if self._draw.random() < 0.5 else Side.ASK

    def _size(self, market: Market) -> int:
        return 2 + int(self._draw.expovariate(8 / market.listing.typical_quantity))
