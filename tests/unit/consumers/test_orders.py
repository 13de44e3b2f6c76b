"""The orders sample: the account's current state, from snapshots and updates."""

import json
from typing import Any

import pytest

from bridge.contract.events import OrdersSnapshot, OrderUpdate
from consumers.handlers.orders import Orders
from consumers.kit.api.results import Results, State
from consumers.testing import EventFactory, Trial
from tests.support.consumer_entries import (
    Fields,
    balance_update,
    balances_snapshot,
    delivery,
    gap,
    order_update,
    orders_snapshot,
    position_update,
    positions_snapshot,
)

ORDERS, POSITIONS, BALANCES = (
    "account.orderUpdate",
    "account.positionUpdate",
    "account.balanceUpdate",
)


def consumer(stream: str, saved: dict[str, str] | None = None) -> Orders:
    orders = Orders()
    orders.stream, orders.state = stream, State(saved)
    orders.load()
    return orders


HANDLERS = {
    "gap": "on_gap",
    "unknown_event": "on_unknown_event",
    "orders_snapshot": "on_orders_snapshot",
    "positions_snapshot": "on_positions_snapshot",
    "balances_snapshot": "on_balances_snapshot",
    "balanceUpdate": "on_balance_update",
}


def feed(orders: Orders, *entries: Fields) -> None:
    for fields in entries:
        kind = fields["type"]
        default = "on_position_update" if kind.startswith("position") else "on_order_update"
        getattr(orders, HANDLERS.get(kind, default))(delivery(fields, stream=orders.stream))


class Redis:
    """The hashes that result from a consumer's writes."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[str, str]] = {}

    def take(self, orders: Orders) -> "Redis":
        results = Results()
        orders.write(results)
        for command, part, arguments in [*results.writes, *orders.state.take_writes("state")]:
            one = self.hashes.setdefault(part, {})
            if command == "HSET":
                one |= dict(zip(arguments[::2], arguments[1::2], strict=True))
            elif command == "HDEL":
                self.hashes[part] = {k: v for k, v in one.items() if k not in arguments}
            else:
                self.hashes[part] = {}
        return self

    def rows(self, part: str) -> dict[str, Any]:
        return {key: json.loads(text) for key, text in self.hashes.get(part, {}).items()}


def test_an_accepted_order_is_open_until_it_is_filled() -> None:
    orders, redis = consumer(ORDERS), Redis()
    feed(orders, order_update("orderAccepted", "7", "New"))
    row = redis.take(orders).rows("open")["7"]
    assert row == {
        "symbol": "USDT_USDC",
        "order_id": "7",
        "side": "Ask",
        "order_type": "LIMIT",
        "time_in_force": "GTC",
        "status": "New",
        "price": "1.0076",
        "quantity": "20",
        "executed_quantity": "0",
        "engine_us": 1788368290062979,
    }
    feed(orders, order_update("orderFill", "7", "PartiallyFilled", executed_quantity="5"))
    assert redis.take(orders).rows("open")["7"]["executed_quantity"] == "5"
    feed(orders, order_update("orderFill", "7", "Filled", executed_quantity="20"))
    assert redis.take(orders).rows("open") == {}


def test_cancelled_and_expired_orders_are_removed_and_triggers_wait() -> None:
    orders = consumer(ORDERS)
    for order_id in ("7", "8", "9"):
        feed(orders, order_update("orderAccepted", order_id, "New"))
    feed(
        orders,
        order_update("orderCancelled", "7", "Cancelled"),
        order_update("orderExpired", "8", "Expired"),
        order_update("triggerPlaced", "10", "TriggerPending"),
        order_update("triggerFailed", "9", "TriggerFailed"),
    )
    assert set(Redis().take(orders).rows("open")) == {"10"}


def test_the_same_update_twice_changes_nothing() -> None:
    orders = consumer(ORDERS)
    feed(orders, order_update("orderAccepted", "7", "New"))
    once = Redis().take(orders).rows("open")
    feed(orders, order_update("orderAccepted", "7", "New"))
    assert Redis().take(consumer(ORDERS, {})).rows("open") == {}
    assert {k: orders.state[k] for k in once} == once


def test_a_snapshot_replaces_all_orders() -> None:
    orders, redis = consumer(ORDERS), Redis()
    feed(orders, order_update("orderAccepted", "7", "New"))
    redis.take(orders)
    row = {"order_id": "8", "symbol": "SOL_USDC", "side": "Bid", "status": "New", "quantity": "1"}
    feed(orders, orders_snapshot([row]))
    assert redis.take(orders).rows("open") == {"8": row}


def test_a_snapshot_of_one_market_leaves_the_others() -> None:
    orders = consumer(ORDERS)
    feed(
        orders,
        order_update("orderAccepted", "7", "New"),
        order_update("orderAccepted", "8", "New", symbol="SOL_USDC"),
        orders_snapshot([], symbol="SOL_USDC"),
    )
    assert set(Redis().take(orders).rows("open")) == {"7"}


def test_a_snapshot_from_a_moment_before_does_not_open_a_closed_order_again() -> None:
    orders = consumer(ORDERS)
    feed(
        orders,
        order_update("orderAccepted", "7", "New"),
        order_update("orderCancelled", "7", "Cancelled"),
        orders_snapshot([{"order_id": "7", "symbol": "USDT_USDC", "status": "New"}]),
    )
    assert Redis().take(orders).rows("open") == {}


def test_a_closed_order_stays_closed_after_any_late_update() -> None:
    orders = consumer(ORDERS)
    feed(
        orders,
        order_update("orderFill", "7", "Filled"),
        order_update("orderFill", "7", "PartiallyFilled", source="rest"),
    )
    assert Redis().take(orders).rows("open") == {}


def test_positions_open_change_and_close() -> None:
    positions, redis = consumer(POSITIONS), Redis()
    feed(
        positions,
        positions_snapshot([{"symbol": "SOL_USDC_PERP", "net_quantity": "2"}]),
        position_update("positionOpened", "ETH_USDC_PERP", "-0.0010"),
    )
    assert {k: r["net_quantity"] for k, r in redis.take(positions).rows("positions").items()} == {
        "SOL_USDC_PERP": "2",
        "ETH_USDC_PERP": "-0.0010",
    }
    feed(
        positions,
        position_update("positionAdjusted", "ETH_USDC_PERP", "0.0"),
        position_update("positionClosed", "SOL_USDC_PERP", "0"),
    )
    assert redis.take(positions).rows("positions") == {}
    feed(positions, position_update("positionOpened", "SOL_USDC_PERP", "1"))
    assert set(redis.take(positions).rows("positions")) == {"SOL_USDC_PERP"}


def test_balances_are_absolute_and_stay_at_zero() -> None:
    balances, redis = consumer(BALANCES), Redis()
    row = {"asset": "SOL", "available": "1", "locked": "0", "staked": "0"}
    feed(balances, balances_snapshot([row]), balance_update("USDT", "10", "20"))
    feed(balances, balance_update("USDT", "0", "0"))
    rows = redis.take(balances).rows("balances")
    assert rows["SOL"] == row
    assert (rows["USDT"]["available"], rows["USDT"]["locked"]) == ("0", "0")


def test_orders_are_not_sure_from_a_gap_until_the_next_snapshot() -> None:
    orders, redis = consumer(ORDERS), Redis()
    assert redis.take(orders).hashes[""] == {"open": "0", "sure": "false"}
    feed(orders, orders_snapshot([]))
    assert redis.take(orders).hashes[""]["sure"] == "true"
    feed(orders, gap(1))
    assert redis.take(orders).hashes[""]["sure"] == "false"
    assert orders.made() == "0 open, not sure"


def test_orders_are_not_sure_behind_an_event_that_cannot_be_read() -> None:
    orders, redis = consumer(ORDERS), Redis()
    unread = {"type": "unknown_event", "event": "orderSplit", "received_us": "1", "extra": ""}
    feed(orders, orders_snapshot([]), unread)
    assert redis.take(orders).hashes[""]["sure"] == "false"


@pytest.mark.parametrize("status", ["New", ["New"], None, 5])
def test_invalid_rows_of_a_snapshot_make_orders_not_sure_and_block_nothing(
    status: object,
) -> None:
    orders, redis = consumer(ORDERS), Redis()
    feed(orders, orders_snapshot([{"status": "New"}, {"order_id": "9", "status": status}]))
    made = redis.take(orders)
    assert made.hashes[""] == {"open": "1", "sure": "false"}


@pytest.mark.parametrize(("status", "is_open"), [("Suspended", True), ("Expired", False)])
def test_an_order_of_an_unknown_status_has_its_row(status: str, is_open: bool) -> None:
    orders, redis = consumer(ORDERS), Redis()
    feed(orders, order_update("orderModified", "7", status))
    assert ("7" in redis.take(orders).rows("open")) is is_open
    row = {"order_id": "8", "symbol": "SOL_USDC", "status": status}
    feed(orders, orders_snapshot([row]))
    assert ("8" in redis.take(orders).rows("open")) is is_open


def test_a_takeover_continues_with_the_rows_that_were_saved() -> None:
    first, redis = consumer(ORDERS), Redis()
    feed(first, orders_snapshot([]), order_update("orderAccepted", "7", "New"))
    redis.take(first)
    second = consumer(ORDERS, redis.hashes["state"])
    feed(second, order_update("orderAccepted", "8", "New"))
    assert set(redis.take(second).rows("open")) == {"7", "8"}
    assert redis.hashes[""] == {"open": "2", "sure": "true"}


@pytest.mark.parametrize("dies", [False, True])
def test_the_account_is_exact_through_a_workers_death(dies: bool) -> None:
    factory, trial = EventFactory("SOL_USDC"), Trial(Orders, "account.orderUpdate")
    open_row = {"order_id": "1", "symbol": "SOL_USDC", "status": "New"}
    trial.deliver(factory.event(OrdersSnapshot, symbol=None, orders=[open_row]))
    some = [
        factory.event(OrderUpdate, type="orderAccepted", order_id="2", status="New"),
        factory.event(OrderUpdate, type="orderFill", order_id="1", status="Filled"),
        factory.event(OrderUpdate, type="orderCancelled", order_id="2", status="Cancelled"),
        factory.event(OrderUpdate, type="orderAccepted", order_id="3", status="New"),
    ]
    (trial.crash_after if dies else trial.deliver)(*some)
    trial.take_over()
    trial.deliver(factory.event(OrderUpdate, type="orderAccepted", order_id="2", status="New"))
    assert set(trial.hash("open")) == {"3"}  # order 2 was closed: a late event must not reopen it
    assert trial.hash() == {"open": "1", "sure": "true"}
