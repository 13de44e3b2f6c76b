"""Sample: the current state of the account: open orders, positions, balances.

Made of snapshots and updates; each private stream carries one of the three. A snapshot (the bridge
requests one each time it subscribes) replaces all rows, of one market or of all; an update changes
one row. Updates are absolute, so a duplicate changes nothing. An order is open until its status
ends it, and stays closed after that; a position is open until its quantity is zero.

Ordered: an order's events must be handled in order.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from consumers import (
    BalancesSnapshot,
    BalanceUpdate,
    Consumer,
    Delivery,
    Event,
    Gap,
    OrdersSnapshot,
    OrderUpdate,
    PositionsSnapshot,
    PositionUpdate,
    Results,
    UnknownEvent,
)

# Any other status, also one that the exchange may add, counts as open: the order keeps its row.
_ENDED = frozenset({"Filled", "Cancelled", "Expired", "TriggerFailed"})
_ENDS = frozenset({"orderCancelled", "orderExpired", "triggerFailed"})
_NOT_OF_A_ROW = {"type", "occurrence", "source", "event_us", "received_us", "extra"}
_OF_ONE_FILL = {"trade_id", "fill_price", "fill_quantity", "is_maker", "fee", "fee_asset"}

Row = dict[str, Any]


def order_row(event: OrderUpdate) -> Row | None:
    """The row of an order; None if it is no longer open."""
    if event.status in _ENDED or event.type in _ENDS:
        return None
    return _row(event, _NOT_OF_A_ROW | _OF_ONE_FILL)


def position_row(event: PositionUpdate) -> Row | None:
    """The row of a position; None if it is closed."""
    if event.type == "positionClosed" or is_zero(event.net_quantity):
        return None
    return _row(event, _NOT_OF_A_ROW)


def balance_row(event: BalanceUpdate) -> Row:
    """The row of a balance; an empty balance keeps its row, with zeros."""
    return _row(event, _NOT_OF_A_ROW | {"symbol"})


def is_zero(quantity: str) -> bool:
    return not quantity.strip("-0.")


def _row(event: Event, without: set[str]) -> Row:
    return event.model_dump(mode="json", exclude=without, exclude_none=True, by_alias=False)


class Orders(Consumer):
    """Keeps open orders, positions and balances of the account in Redis hashes."""

    name = "orders"
    mode = "ordered"
    streams = ("account.orderUpdate*", "account.positionUpdate*", "account.balanceUpdate")

    def __init__(self) -> None:
        self._changed: dict[str, None] = {}
        self._all_changed = False
        self._sure = False  # whether there was a snapshot, and no gap since

    def load(self) -> None:
        """Restore `sure`; the rows are the state itself, one field per row, by their key."""
        self._sure = bool(self.state.get(_SURE, False))
        self._all_changed = True

    def on_orders_snapshot(self, delivery: Delivery[OrdersSnapshot]) -> None:
        self._replace("order_id", delivery.event.orders, delivery.event.symbol, _is_open_row)

    def on_positions_snapshot(self, delivery: Delivery[PositionsSnapshot]) -> None:
        self._replace("symbol", delivery.event.positions, delivery.event.symbol, _is_held_row)

    def on_balances_snapshot(self, delivery: Delivery[BalancesSnapshot]) -> None:
        self._replace("asset", delivery.event.balances, None, lambda row: True)

    def on_order_update(self, delivery: Delivery[OrderUpdate]) -> None:
        if delivery.event.source == "rest":
            return  # a backfilled fill: the snapshot after it has the order's current state
        order_id, row = delivery.event.order_id, order_row(delivery.event)
        closed = self._closed()
        if row is None and order_id not in closed:
            self.state[_CLOSED] = [*closed, order_id][-_CLOSED_KEPT:]
        self._put(order_id, None if order_id in closed else row)

    def on_position_update(self, delivery: Delivery[PositionUpdate]) -> None:
        self._put(delivery.event.symbol, position_row(delivery.event))

    def on_balance_update(self, delivery: Delivery[BalanceUpdate]) -> None:
        self._put(delivery.event.asset, balance_row(delivery.event))

    def on_gap(self, delivery: Delivery[Gap]) -> None:
        """Mark the state as unsure until the next snapshot, which the bridge requests at once."""
        if not delivery.event.recovered:
            self._sure = False

    def on_unknown_event(self, delivery: Delivery[UnknownEvent]) -> None:
        """Mark the state as unsure: the effect of an unknown event cannot be read."""
        self._sure = False

    def write(self, results: Results) -> None:
        """Write the changed rows, once per batch."""
        self.state[_SURE] = self._sure
        part = _part(self.stream)
        if self._all_changed:
            results.replace_hash(part, {key: _text(row) for key, row in self._rows().items()})
        else:
            there = [key for key in self._changed if key in self.state]
            results.hset(part, {key: _text(self.state[key]) for key in there})
            results.hdel(part, [key for key in self._changed if key not in self.state])
        sure = "true" if self._sure else "false"
        results.hset("", {part: str(len(self._rows())), "sure": sure})
        self._changed, self._all_changed = {}, False

    def made(self) -> str:
        return f"{len(self._rows())} {_part(self.stream)}" + ("" if self._sure else ", not sure")

    def _put(self, key: str, row: Row | None) -> None:
        if row is None:
            self.state.pop(key, None)
        else:
            self.state[key] = row
        self._changed[key] = None

    def _replace(
        self,
        key_field: str,
        rows: list[Row],
        symbol: str | None,
        is_there: Callable[[Row], bool],
    ) -> None:
        """Replace our rows by the snapshot's: all, or those of its market."""
        for key, row in self._rows().items():
            if symbol is None or row.get("symbol") == symbol:
                del self.state[key]
        closed = self._closed()
        named = [row for row in rows if key_field in row]
        for row in named:
            key = str(row[key_field])
            if is_there(row) and key not in closed:
                self.state[key] = row
        # rows have the exchange's own format: one without its key field cannot be assigned
        self._all_changed, self._sure = True, len(named) == len(rows)

    def _closed(self) -> list[str]:
        closed: list[str] = self.state.get(_CLOSED, [])
        return closed

    def _rows(self) -> Mapping[str, Row]:
        return {key: row for key, row in self.state.items() if key not in (_SURE, _CLOSED)}


# Not valid as a name of an order, market or asset.
_SURE, _CLOSED = "(sure)", "(closed)"
_CLOSED_KEPT = 500  # a REST snapshot may be slightly older than updates received before it


def _is_open_row(row: Row) -> bool:
    return str(row.get("status")) not in _ENDED


def _is_held_row(row: Row) -> bool:
    return not is_zero(str(row.get("net_quantity", "1")))


def _part(stream: str) -> str:
    """The result part of a stream: `open`, `positions` or `balances`."""
    kind = stream.split(".")[1]
    return {"orderUpdate": "open", "positionUpdate": "positions"}.get(kind, "balances")


def _text(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"))
