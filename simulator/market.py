"""One market: its book, its numbering, and the effects of trading. Pure.

Every change of the book gets the next update id and is written to the tape as a depth event,
together with the bookTicker when the touch changed; every match is a trade with the next trade id,
followed by the depth change it causes. The book is never crossed. Knows neither who trades nor why:
see `crowd` and `accounts`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from simulator.book import Book, Change, Side, Top
from simulator.candles import Candles
from simulator.decimals import padded
from simulator.events import BookTicker, Depth, Trade
from simulator.listing import Listing
from simulator.orders import Order
from simulator.tape import Tape
from simulator.windows import Windows

TRADES_KEPT = 10_000
BEFORE_DEPTH_SHARE = 0.85


class Execution(NamedTuple):
    """One match. `maker` is the account order that was hit, or None for an anonymous one."""

    trade_id: int
    price: int
    quantity: int
    maker: Order | None


class TradeRow(NamedTuple):
    """A past trade in ticks and steps, for REST and candles."""

    trade_id: int
    at_ms: int
    price: int
    quantity: int
    buyer_is_maker: bool


class Market:
    """The state of one market at the current engine time."""

    def __init__(self, listing: Listing, draw: random.Random) -> None:
        self.listing = listing
        self.book = Book()
        self.update_id = listing.first_update_id
        self.trade_id = listing.first_trade_id
        self.last_price = listing.opening_price
        self.updated_us = 0
        self.trades: deque[TradeRow] = deque(maxlen=TRADES_KEPT)
        self.candles = Candles()
        self.windows = Windows(listing)
        self.core_events = 0
        self._draw = draw
        self._owned: dict[tuple[Side, int], list[Order]] = {}
        self._top = self.book.top()
        self._depth_streams = (f"depth.{listing.symbol}",)
        self._trade_streams = (f"trade.{listing.symbol}",)
        self._top_streams = (f"bookTicker.{listing.symbol}",)

    def open_with(self, changes: Sequence[Change]) -> None:
        """Fill the book silently: the state before the first update."""
        for change in changes:
            self.book.put(change)
        self._top = self.book.top()

    def owned(self, side: Side, price: int) -> int:
        """The quantity of a level that belongs to account orders."""
        orders = self._owned.get((side, price))
        return sum(order.remaining for order in orders) if orders else 0

    def fits(self, side: Side, price: int) -> bool:
        """Whether an order may rest at this price: within bounds, not crossing the other side."""
        if not 1 <= price <= self.listing.highest_price:
            return False
        facing = self.book.ladder(side.other).best
        if facing is None:
            return True
        return price < facing if side is Side.BID else price > facing

    def change(self, tape: Tape, changes: Sequence[Change]) -> None:
        """Set levels to new quantities in one update; the accounts' part stays."""
        asks: list[tuple[str, str]] = []
        bids: list[tuple[str, str]] = []
        listing = self.listing
        for side, price, quantity in changes:
            kept = max(quantity, self.owned(side, price))
            self.book.ladder(side).put(price, kept)
            row = (padded(price, listing.price_places), padded(kept, listing.quantity_places))
            (bids if side is Side.BID else asks).append(row)
        self._emit(tape, asks, bids)

    def take(
        self, tape: Tape, side: Side, quantity: int, limit: int | None, taker_id: str
    ) -> list[Execution]:
        """Match a taker of `side` against the best levels, up to a quantity and a limit price."""
        facing = self.book.ladder(side.other)
        done: list[Execution] = []
        while quantity and (price := facing.best) is not None:
            if limit is not None and (price > limit if side is Side.BID else price < limit):
                break
            maker = self._first_owner(side.other, price)
            present = maker.remaining if maker else facing.quantities[price]
            matched = min(quantity, present)
            done.append(self._match(tape, side, price, matched, maker, taker_id))
            quantity -= matched
        return done

    def available(self, side: Side, limit: int | None) -> int:
        """The quantity that a taker of `side` could get within the limit."""
        facing = self.book.ladder(side.other)
        return sum(
            quantity
            for price, quantity in facing.quantities.items()
            if limit is None or (price <= limit if side is Side.BID else price >= limit)
        )

    def rest(self, tape: Tape, order: Order) -> None:
        """Put an account's order into the book. It must fit."""
        price = order.price
        assert price is not None
        assert self.fits(order.side, price)
        self._owned.setdefault((order.side, price), []).append(order)
        present = self.book.ladder(order.side).quantities.get(price, 0)
        self.change(tape, [Change(order.side, price, present + order.remaining)])

    def withdraw(self, tape: Tape, order: Order) -> None:
        """Take an account's order out of the book."""
        price = order.price
        assert price is not None
        present = self.book.ladder(order.side).quantities[price]
        self._disown(order)
        self.change(tape, [Change(order.side, price, present - order.remaining)])

    def lower(self, tape: Tape, order: Order, quantity: int) -> None:
        """Reduce the quantity of a resting order."""
        assert order.price is not None
        assert order.executed < quantity < order.quantity
        present = self.book.ladder(order.side).quantities[order.price]
        less = order.quantity - quantity
        order.quantity = quantity
        self.change(tape, [Change(order.side, order.price, present - less)])

    def new_order_id(self) -> str:
        """A new order id. They are not ordered by time: the exchange stopped that in June 2025."""
        return str(self._draw.randrange(52_000_000_000, 67_000_000_000))

    def _match(
        self,
        tape: Tape,
        side: Side,
        price: int,
        quantity: int,
        maker: Order | None,
        taker_id: str,
    ) -> Execution:
        self.trade_id += 1
        buyer_is_maker = side is Side.ASK
        at_ms = tape.engine_us // 1000
        self.trades.append(TradeRow(self.trade_id, at_ms, price, quantity, buyer_is_maker))
        self.candles.add(at_ms, price, quantity)
        self.last_price = price
        self._emit_trade(tape, self.trades[-1], maker, taker_id)
        present = self.book.ladder(side.other).quantities[price]
        if maker is not None:
            maker.fill(price, quantity)
            if not maker.remaining:
                self._disown(maker)
        self.change(tape, [Change(side.other, price, present - quantity)])
        return Execution(self.trade_id, price, quantity, maker)

    def _emit_trade(self, tape: Tape, row: TradeRow, maker: Order | None, taker_id: str) -> None:
        maker_id = maker.order_id if maker else self.new_order_id()
        buyer, seller = (maker_id, taker_id) if row.buyer_is_maker else (taker_id, maker_id)
        trade = Trade(
            self._trade_streams,
            tape.stamp(),
            row.at_ms * 1000,  # trade times are whole milliseconds, as in REST
            self.listing.symbol,
            padded(row.price, self.listing.price_places),
            padded(row.quantity, self.listing.quantity_places),
            buyer,
            seller,
            row.trade_id,
            row.buyer_is_maker,
        )
        tape.write(trade)
        self.core_events += 1

    def _emit(self, tape: Tape, asks: list[tuple[str, str]], bids: list[tuple[str, str]]) -> None:
        """Number the last change and emit it, with the touch if that changed."""
        self.update_id += 1
        self.updated_us = tape.engine_us
        self.windows.note(tape.engine_us, self.update_id, asks, bids)
        top = self.book.top()
        touched = top != self._top
        self._top = top
        touch_first = touched and self._draw.random() < BEFORE_DEPTH_SHARE
        if touch_first:
            self._emit_top(tape, top)
        depth = Depth(
            self._depth_streams,
            tape.stamp(),
            tape.engine_us,
            self.listing.symbol,
            self.update_id,
            self.update_id,
            asks,
            bids,
        )
        tape.write(depth)
        self.core_events += 1
        if touched and not touch_first:
            self._emit_top(tape, top)

    def _emit_top(self, tape: Tape, top: Top) -> None:
        places, steps = self.listing.price_places, self.listing.quantity_places
        ticker = BookTicker(
            self._top_streams,
            tape.stamp(),
            tape.engine_us,
            self.listing.symbol,
            self.update_id,
            None if top.ask is None else padded(top.ask, places),
            None if top.ask_quantity is None else padded(top.ask_quantity, steps),
            None if top.bid is None else padded(top.bid, places),
            None if top.bid_quantity is None else padded(top.bid_quantity, steps),
        )
        tape.write(ticker)
        self.core_events += 1

    def _first_owner(self, side: Side, price: int) -> Order | None:
        orders = self._owned.get((side, price))
        return orders[0] if orders else None

    def _disown(self, order: Order) -> None:
        assert order.price is not None
        place = (order.side, order.price)
        self._owned[place].remove(order)
        if not self._owned[place]:
            del self._owned[place]
