"""The account is consistent: open orders, balances and positions agree with its messages."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal

from hypothesis import Phase, given
from hypothesis import strategies as st

from simulator import account_bodies
from simulator.account import Account
from simulator.engine import Engine
from simulator.events import (
    BalanceUpdate,
    Event,
    OrderUpdate,
    PositionUpdate,
    RfqUpdate,
    Trade,
)
from simulator.orders import OrderView
from simulator.signing import DEMO_KEYS
from tests.support.examples import examples
from tests.support.simulator_runs import plan, run

KEY = DEMO_KEYS[0]
OPEN_STATES = {"New", "PartiallyFilled", "TriggerPending"}
seeds = st.integers(min_value=0, max_value=2**32)
# no shrinking: a smaller seed does not make a simpler market
law = examples(2, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def of_account(events: list[Event], key: str = KEY) -> list[Event]:
    kinds = OrderUpdate | BalanceUpdate | PositionUpdate | RfqUpdate
    return [event for event in events if isinstance(event, kinds) and event.account == key]


def open_orders(events: list[Event]) -> dict[str, OrderView]:
    """The open orders that result from the order updates."""
    orders: dict[str, OrderView] = {}
    for event in events:
        if isinstance(event, OrderUpdate):
            orders[event.order.order_id] = event.order
    return {order_id: x for order_id, x in orders.items() if x.status in OPEN_STATES}


@law
@given(seeds)
def test_open_orders_are_the_sum_of_the_order_updates(seed: int) -> None:
    engine = Engine(plan(seed, rate=40))
    events = run(engine, 60)
    for key, account in engine.accounts.by_key.items():
        views = {order_id: order.view() for order_id, order in account.orders.items()}
        assert views == open_orders(of_account(events, key))


@law
@given(seeds)
def test_every_fill_equals_a_public_trade(seed: int) -> None:
    engine = Engine(plan(seed, rate=40))
    events = run(engine, 60)
    trades = {(x.symbol, x.trade_id): x for x in events if isinstance(x, Trade)}
    filled = [x for x in events if isinstance(x, OrderUpdate) and x.fill]
    assert len(filled) > 20
    for event in filled:
        assert event.fill is not None
        trade = trades[event.order.symbol, event.fill.trade_id]
        assert (trade.price, trade.quantity) == (event.fill.price, event.fill.quantity)
        own = trade.buyer_order if event.order.side == "Bid" else trade.seller_order
        assert own == event.order.order_id
        assert event.fill.maker == (trade.buyer_is_maker == (event.order.side == "Bid"))


@law
@given(seeds)
def test_an_order_s_executed_quantity_is_the_sum_of_its_fills(seed: int) -> None:
    executed: dict[str, Decimal] = defaultdict(Decimal)
    for event in run(Engine(plan(seed, rate=40)), 60):
        if isinstance(event, OrderUpdate) and event.fill:
            executed[event.order.order_id] += Decimal(event.fill.quantity)
            assert Decimal(event.order.executed) == executed[event.order.order_id]
            whole = Decimal(event.order.executed) == Decimal(event.order.quantity or "0")
            assert event.order.status == ("Filled" if whole else "PartiallyFilled")


@law
@given(seeds)
def test_balances_are_the_first_funds_moved_by_fills_and_locks(seed: int) -> None:
    engine = Engine(plan(seed, rate=40))
    listings = [market.listing for market in engine.markets.values()]
    expected = dict(Account(KEY, listings).funds)
    events = of_account(run(engine, 60))
    body = account_bodies.capital(Account(KEY, listings))
    for event in events:
        if isinstance(event, BalanceUpdate):
            body[event.asset] = {
                "available": event.available,
                "locked": event.locked,
                "staked": event.staked,
            }
    account = engine.accounts.by_key[KEY]
    realised = Decimal(0)
    for row in account.fills:
        base, _, suffix = row.symbol.partition("_USDC")
        amount = Decimal(row.quantity) * (1 if row.side == "Bid" else -1)
        expected[row.fee_asset] -= Decimal(row.fee)
        if suffix in ("", "_RFQ"):
            expected[base] += amount
            expected["USDC"] -= amount * Decimal(row.price)
    positions = [x.position for x in events if isinstance(x, PositionUpdate)]
    last = {x.position_id: x.realised for x in positions}
    realised = sum((Decimal(x) for x in last.values()), Decimal(0))
    expected["USDC"] += realised
    held = {
        asset: Decimal(x["available"]) + Decimal(x["locked"])
        for asset, x in account_bodies.capital(account).items()
    }
    assert held == expected
    assert body == account_bodies.capital(account)
    assert all(Decimal(x["available"]) >= 0 for x in body.values())


@law
@given(seeds)
def test_locks_are_what_open_spot_orders_need(seed: int) -> None:
    engine = Engine(plan(seed, rate=40))
    events = of_account(run(engine, 60))
    locked: dict[str, Decimal] = defaultdict(Decimal)
    for order in open_orders(events).values():
        if order.symbol.endswith("_PERP") or order.price is None:
            continue
        left = Decimal(order.quantity or "0") - Decimal(order.executed)
        base, quote = order.symbol.split("_")
        if order.side == "Ask":
            locked[base] += left
        else:
            locked[quote] += left * Decimal(order.price)
    balances = engine.accounts.by_key[KEY].balances()
    assert {asset: x.locked for asset, x in balances.items() if x.locked} == dict(locked)


@law
@given(seeds)
def test_positions_are_the_sum_of_perpetual_fills(seed: int) -> None:
    engine = Engine(plan(seed, rate=40))
    events = of_account(run(engine, 60))
    held: dict[str, Decimal] = defaultdict(Decimal)
    for event in events:
        if isinstance(event, OrderUpdate) and event.fill and event.order.symbol.endswith("_PERP"):
            sign = 1 if event.order.side == "Bid" else -1
            held[event.order.symbol] += sign * Decimal(event.fill.quantity)
    views = engine.accounts.position_views(KEY)
    assert {x.symbol: Decimal(x.quantity) for x in views} == {s: q for s, q in held.items() if q}
    quantities: dict[str, str] = {}
    for event in events:
        if isinstance(event, PositionUpdate):
            known = event.position.symbol in quantities
            assert known is (event.name != "positionOpened")
            quantities[event.position.symbol] = event.position.quantity
            if event.name == "positionClosed":
                assert quantities.pop(event.position.symbol) == "0"
    assert quantities == {x.symbol: x.quantity for x in views}


def test_every_kind_of_private_event_occurs_within_two_minutes() -> None:
    seen: Counter[str | None] = Counter()
    for event in of_account(run(Engine(plan(4, rate=40)), 120)):
        name = "balanceUpdate" if isinstance(event, BalanceUpdate) else getattr(event, "name", "")
        seen[name] += 1
    assert set(seen) == {
        "orderAccepted",
        "orderFill",
        "orderCancelled",
        "orderExpired",
        "orderModified",
        "triggerPlaced",
        "triggerFailed",
        "positionOpened",
        "positionAdjusted",
        "positionClosed",
        "balanceUpdate",
        "rfqActive",
        "rfqAccepted",
        "rfqRefreshed",
        "rfqCancelled",
        "rfqCandidate",
        "rfqAcceptedBinding",
        "rfqFilled",
        "quoteAccepted",
        "quoteCancelled",
    }


def test_expiries_name_their_reason_and_a_modified_order_gets_smaller() -> None:
    reasons: set[str | None] = set()
    quantities: dict[str, Decimal] = {}
    lowered = 0
    for event in run(Engine(plan(4, rate=40)), 180):
        if not isinstance(event, OrderUpdate):
            continue
        if event.name == "orderExpired":
            reasons.add(event.reason)
        else:
            assert event.reason is None
        quantity = Decimal(event.order.quantity or "0")
        if event.name == "orderModified":
            assert event.order.reduce_only
            assert quantity < quantities[event.order.order_id]
            lowered += 1
        quantities[event.order.order_id] = quantity
    assert lowered
    assert {"ImmediateOrCancel", "FillOrKill", "PostOnlyTaker", "ReduceOnlyNotReduced"} <= reasons


def test_a_trigger_order_is_triggered_when_the_last_price_reaches_it() -> None:
    placed: dict[str, OrderUpdate] = {}
    pulled = 0
    last: dict[str, Decimal] = {}
    for event in run(Engine(plan(4, rate=40)), 120):
        if isinstance(event, Trade):
            last[event.symbol] = Decimal(event.price)
        if not isinstance(event, OrderUpdate):
            continue
        if event.name == "triggerPlaced":
            assert (event.order.quantity, event.order.trigger_by) == ("0", "LastPrice")
            placed[event.order.order_id] = event
        elif event.order.order_id in placed and event.name in ("orderAccepted", "triggerFailed"):
            trigger = Decimal(placed.pop(event.order.order_id).order.trigger_price or "0")
            price = last[event.order.symbol]
            assert price >= trigger if event.order.side == "Bid" else price <= trigger
            pulled += 1
    assert pulled > 3
