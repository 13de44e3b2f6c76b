"""Events and slots for tests of queues, made from the exchange's own field names."""

from bridge.contract.events import Depth, DepthSnapshot, OrderUpdate, Ticker, Trade
from bridge.contract.streams import parse_stream
from bridge.core.entries import (
    Answer,
    Entry,
    Slot,
    content_entry,
    fill_from_history,
    sequenced_entry,
    slot_of,
    snapshot_entry,
)
from bridge.core.queue import Batch

NOW_US = 1_790_915_531_000_000
SECOND_US = 1_000_000
TRADES = parse_stream("trade.SOL_USDC")
DEPTH = parse_stream("depth.SOL_USDC")
ORDERS = parse_stream("account.orderUpdate")
TICKERS = parse_stream("ticker.SOL_USDC")


def trade_event(number: int, engine_us: int = NOW_US) -> Trade:
    return Trade.model_validate(
        {"e": "trade", "s": "SOL_USDC", "p": "98.97", "q": "1", "t": number, "m": False,
         "E": engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip


def trade(number: int, engine_us: int = NOW_US, *, position: int = 0) -> Slot:
    """A trade, received at the engine's time."""
    entry = sequenced_entry(trade_event(number, engine_us), engine_us, 1, engine_us)
    return slot_of(entry, position, engine_us)


def delta_event(
    first: int, last: int, bids: object = (), asks: object = (), engine_us: int = NOW_US
) -> Depth:
    return Depth.model_validate(
        {"e": "depth", "s": "SOL_USDC", "U": first, "u": last, "b": list(bids), "a": list(asks),
         "E": engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip


def delta(first: int, last: int, engine_us: int = NOW_US, *, position: int = 0) -> Slot:
    entry = sequenced_entry(delta_event(first, last, engine_us=engine_us), engine_us, 1, engine_us)
    return slot_of(entry, position, engine_us)


def snapshot(update_id: int, *, position: int = 0) -> Slot:
    event = DepthSnapshot(
        symbol="SOL_USDC", update_id=update_id, bids=[], asks=[], received_us=NOW_US
    )
    return slot_of(snapshot_entry(event, NOW_US // 1000), position, NOW_US)


def order_event(order_id: str = "9", engine_us: int = NOW_US, event_us: int = 0) -> OrderUpdate:
    return OrderUpdate.model_validate(
        {"e": "orderAccepted", "s": "SOL_USDC", "i": order_id, "S": "Bid", "o": "LIMIT",
         "X": "New", "E": event_us or engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip


def order(
    order_id: str = "9", engine_us: int = NOW_US, received_us: int = 0, *, position: int = 0
) -> Slot:
    received_us = received_us or engine_us
    entry = content_entry(order_event(order_id, engine_us), received_us)
    return slot_of(entry, position, received_us)


def fill(trade_id: int, engine_us: int = NOW_US, *, source: str | None = None) -> Slot:
    """A fill; with `source` "rest" as read from history."""
    event = OrderUpdate.model_validate(
        {"e": "orderFill", "s": "SOL_USDC", "i": "9", "S": "Bid", "o": "LIMIT", "X": "Filled",
         "t": trade_id, "L": "98.97", "l": "1", "m": False, "n": "0.1", "N": "USDC",
         "source": source, "E": engine_us, "T": engine_us, "received_us": engine_us}
    )  # fmt: skip
    entry = fill_from_history(event) if source else content_entry(event, engine_us)
    return slot_of(entry, 0, engine_us)


def ticker(event_us: int, last_price: str = "98.97", *, position: int = 0) -> Slot:
    event = Ticker.model_validate(
        {"e": "ticker", "s": "SOL_USDC", "o": "1", "c": last_price, "h": "1", "l": "1", "v": "1",
         "V": "1", "n": 1, "E": event_us, "received_us": event_us}
    )  # fmt: skip
    return slot_of(content_entry(event, event_us), position, event_us)


def answer(status: str, last: str, signs: str = "") -> Answer:
    return Answer(status, len(signs), last, signs)


def fields(slot: Slot | Entry) -> dict[str, str]:
    return (slot.entry if isinstance(slot, Slot) else slot).fields()


def places(batch: Batch | None) -> list[tuple[str, int]]:
    """The batch's entries: operation and number of each."""
    if batch is None:
        return []
    return [(str(slot.entry.op), slot.entry.number) for slot in batch.slots]
