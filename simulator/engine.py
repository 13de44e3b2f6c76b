"""The whole exchange on one virtual schedule: the events, each at its engine microsecond.

`advance(until_us)` plays everything due until then and yields each step's events. The result
depends on the seed, the start and the options alone, never on subscribers or on the pace of calls.
Pure: no clock, no I/O.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simulator.accounts import Accounts
from simulator.crowd import Crowd
from simulator.decimals import trimmed
from simulator.events import Event, Liquidation
from simulator.listing import Listing, MarketType
from simulator.market import Market
from simulator.quotes import Stocks
from simulator.statistics import Statistics
from simulator.tape import Tape
from simulator.trader import Trader
from simulator.windows import WINDOWS_MS

SECOND_US = 1_000_000
# Phases inside the second. The last update of a running candle is emitted before its close and the
# final one half a second after it, so that the candles of an interval never interleave.
MARK_PRICE_PHASE_US = 846_000
TICKER_PHASE_US = 87_000
KLINE_PHASE_US = 750_000
KLINE_FINAL_PHASE_US = 500_000
STOCK_PHASE_US = 310_000
FIRST_OPEN_INTEREST_US = 5 * SECOND_US
OPEN_INTEREST_EVERY_US = 60 * SECOND_US
LIQUIDATION_EVERY_US = 8 * SECOND_US
TRADER_ACTIONS_PER_SECOND = 4.0
LARGEST_TRADER_SHARE = 0.25
FRAMES_PER_STEP = 2.0
# Most core events of one step; near the end of a limited run, steps emit single ones only.
LARGEST_STEP = 60
AFTER_THE_LAST_US = SECOND_US + 1


@dataclass(frozen=True, slots=True)
class Plan:
    """All inputs of a run. `rate` is core events a second; `events` ends it after that many."""

    listings: tuple[Listing, ...]
    seed: int
    start_us: int
    rate: float
    accounts: tuple[str, ...] = ()
    events: int | None = None


class Engine:
    """The exchange without its servers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.played_us = plan.start_us
        self._draw = random.Random(plan.seed)
        self._tape = Tape(self._draw)
        self.markets = {item.symbol: Market(item, self._draw) for item in plan.listings}
        self._crowds = {name: Crowd(market, self._draw) for name, market in self.markets.items()}
        self._order = list(self._crowds)
        self.statistics = Statistics(self.markets, self._crowds, self._draw)
        self._stocks = Stocks(self._draw)
        self.accounts = Accounts(self.markets, plan.accounts)
        self._traders = [Trader(key, self.accounts, self._draw) for key in plan.accounts]
        self._trader_share = _trader_share(plan.rate)
        self.stopped_us: int | None = None
        self.skew_us = 0
        self._removed_events = 0  # of delisted markets
        self._rate = plan.rate
        self._stepping = 0  # the number of the active chain of steps
        self._count = 0
        self._queue: list[tuple[int, int, Callable[[int], None]]] = []
        self._schedule()

    @property
    def core_events(self) -> int:
        """Trades, realtime depth and bookTickers so far."""
        return self._removed_events + sum(market.core_events for market in self.markets.values())

    @property
    def next_us(self) -> int | None:
        """The time of the next event; None when there is none left."""
        if not self._queue:
            return None
        return self._queue[0][0]

    @property
    def clock_us(self) -> int:
        """The exchange's clock at the event played last; differs from engine time by `skew_us`."""
        return self.played_us + self.skew_us

    def advance(self, until_us: int) -> Iterator[list[Event]]:
        """Play all steps due up to a moment, yielding the events of each."""
        while self._queue and self._queue[0][0] <= until_us:
            at_us, _, act = heapq.heappop(self._queue)
            if self.stopped_us is not None and at_us > self.stopped_us:
                self._queue.clear()
                return
            self.played_us = at_us
            self._tape.begin(self.clock_us)
            act(at_us)
            yield self._tape.take()

    # Orders of faults -----------------------------------------------------------------------------

    def skip(self, kind: str, symbol: str, ids: int) -> tuple[int, int] | None:
        """Skip trade or update ids of a market. Returns the first and the last skipped id, or None
        where the market is delisted.
        """
        market = self.markets.get(symbol)
        if market is None:
            return None
        if kind == "trade":
            market.trade_id += ids
            return market.trade_id - ids + 1, market.trade_id
        market.update_id += ids
        return market.update_id - ids + 1, market.update_id

    def set_rate(self, rate: float) -> None:
        """Set the rate of core events a second; 0 stops them."""
        self._rate = rate
        self._trader_share = _trader_share(rate)
        self._stepping += 1
        if rate > 0 and self.markets and self.stopped_us is None:
            self._at(self.played_us + 1, self._stepper())

    def set_skew(self, skew_us: int) -> None:
        """Set the offset of the exchange's clock."""
        self.skew_us = skew_us
        self._tape.reset()

    def list_market(self, item: Listing) -> None:
        """Open a new market."""
        draw = random.Random(f"{self.plan.seed} {item.symbol} {self.played_us}")
        market = self.markets[item.symbol] = Market(item, draw)
        self._crowds[item.symbol] = Crowd(market, draw)
        self._order.append(item.symbol)
        self.accounts.list_market(item)
        self.statistics.list_market(item.symbol)
        if len(self._order) == 1:
            self.set_rate(self._rate)  # without a market nothing was scheduled

    def delist_market(self, symbol: str) -> None:
        """Close a market: open orders in it are cancelled, positions are settled, and it is
        removed.
        """
        self._tape.begin(self.clock_us)
        self.accounts.delist_market(self._tape, symbol)
        taken = self._tape.take()
        self._at(self.played_us, lambda at_us: self._tape.events.extend(taken))
        self.statistics.delist_market(symbol)
        for trader in self._traders:
            trader.delist_market(self.markets[symbol])
        self._removed_events += self.markets[symbol].core_events
        del self.markets[symbol], self._crowds[symbol]
        self._order.remove(symbol)

    # Timers ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        start = self.plan.start_us
        if self.plan.rate > 0 and self.markets:
            self._at(start, self._stepper())
        for phase, act in (
            (TICKER_PHASE_US, self._emit_tickers),
            (MARK_PRICE_PHASE_US, self._emit_mark_prices),
            (KLINE_PHASE_US, self._emit_klines),
            (KLINE_FINAL_PHASE_US, self._close_klines),
            (STOCK_PHASE_US, self._emit_stocks),
        ):
            self._every(_first_after(start, SECOND_US, phase), SECOND_US, act)
        for window_ms in WINDOWS_MS:
            every_us = window_ms * 1000
            self._every(_first_after(start, every_us, 0), every_us, self._cutter(window_ms))
        self._every(start + FIRST_OPEN_INTEREST_US, OPEN_INTEREST_EVERY_US, self._emit_interest)
        self._every(start + LIQUIDATION_EVERY_US, LIQUIDATION_EVERY_US, self._liquidate)

    def _at(self, at_us: int, act: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at_us, self._count, act))

    def _every(self, first_us: int, every_us: int, act: Callable[[int], None]) -> None:
        def again(at_us: int) -> None:
            act(at_us)
            self._at(at_us + every_us, again)

        self._at(first_us, again)

    def _cutter(self, window_ms: int) -> Callable[[int], None]:
        def cut(at_us: int) -> None:
            for market in self.markets.values():
                if (event := market.windows.cut(window_ms, self._tape.stamp())) is not None:
                    self._tape.write(event)

        return cut

    # Steps ----------------------------------------------------------------------------------------

    def _stepper(self) -> Callable[[int], None]:
        """A chain of steps that ends when another rate is set."""
        chain = self._stepping

        def step(at_us: int) -> None:
            if chain == self._stepping and self._order and (pause_us := self._step(at_us)):
                self._at(at_us + pause_us, step)

        return step

    def _step(self, at_us: int) -> int | None:
        """Perform one action in one market. Returns the pause that keeps the rate, in µs, or None
        after the last one.
        """
        before = self.core_events
        left = None if self.plan.events is None else self.plan.events - before
        if left is not None and left <= LARGEST_STEP:
            if left > 0:
                self._any_crowd().fidget(self._tape)
        elif self._traders and self._draw.random() < self._trader_share:
            self._traders[self._draw.randrange(len(self._traders))].act(self._tape)
        else:
            crowd = self._any_crowd()
            self.accounts.settle(self._tape, crowd.market, crowd.stir(self._tape))
        made = self.core_events - before
        if left is not None and made >= left:
            self.stopped_us = at_us + AFTER_THE_LAST_US
            return None
        pause_us = self._draw.expovariate(1.0) * max(made, 1) / self._rate * SECOND_US
        return 1 + int(pause_us)

    def _any_crowd(self) -> Crowd:
        """A random market's crowd; the first markets listed are the busiest."""
        place = int(len(self._order) * self._draw.random() ** 1.5)
        return self._crowds[self._order[place]]

    def _liquidate(self, at_us: int) -> None:
        """Liquidate an anonymous perpetual position at market: a trade, and a liquidation event."""
        perps = [
            crowd
            for crowd in self._crowds.values()
            if crowd.market.listing.market_type is MarketType.PERP
        ]
        if not perps or self._limited():
            return
        crowd = perps[self._draw.randrange(len(perps))]
        side = crowd.any_side()
        matches = crowd.trade(self._tape, side)
        self.accounts.settle(self._tape, crowd.market, matches)
        if not matches:
            return
        listing = crowd.market.listing
        self._tape.write(
            Liquidation(
                (f"liquidation.{listing.symbol}", "liquidation"),
                self._tape.stamp(),
                self._tape.engine_us,
                listing.symbol,
                side,
                trimmed(matches[-1].price, listing.price_places),
                trimmed(sum(match.quantity for match in matches), listing.quantity_places),
            )
        )

    def _limited(self) -> bool:
        """Whether the end of a limited run is near, where only `_step` may emit core events."""
        limit = self.plan.events
        return limit is not None and limit - self.core_events <= LARGEST_STEP

    def _emit_tickers(self, at_us: int) -> None:
        self.statistics.emit_tickers(self._tape)

    def _emit_mark_prices(self, at_us: int) -> None:
        self.statistics.emit_mark_prices(self._tape)
        self.accounts.marks.update(self.statistics.marks)

    def _emit_klines(self, at_us: int) -> None:
        self.statistics.emit_klines(self._tape)

    def _close_klines(self, at_us: int) -> None:
        closed_us = self._tape.engine_us - KLINE_FINAL_PHASE_US
        self.statistics.close_klines(self._tape, closed_us - closed_us % SECOND_US)

    def _emit_interest(self, at_us: int) -> None:
        self.statistics.emit_open_interest(self._tape)

    def _emit_stocks(self, at_us: int) -> None:
        self._stocks.emit(self._tape)


def _trader_share(rate: float) -> float:
    """The share of steps done by accounts: a few a second, whatever the rate."""
    steps_per_second = rate / FRAMES_PER_STEP
    return min(LARGEST_TRADER_SHARE, TRADER_ACTIONS_PER_SECOND / max(steps_per_second, 1e-9))


def _first_after(start_us: int, every_us: int, phase_us: int) -> int:
    """The first moment after the start at this phase of a period."""
    return start_us + every_us - (start_us - phase_us) % every_us
