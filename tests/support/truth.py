"""The expected entry of an exchange frame in Redis, without the project's own models.

This repeats the contract independently: one-letter keys and the names of entries. `compare`
describes the differences between the simulator's ledger and the entries in Redis.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_TIMES = {"E": "event_us", "T": "engine_us"}
_TICKER = {
    "e": "type", "s": "symbol", "o": "first_price", "c": "last_price", "h": "high_price",
    "l": "low_price", "v": "base_volume", "V": "quote_volume", "n": "trades", **_TIMES,
}  # fmt: skip
LETTERS: Mapping[str, Mapping[str, str]] = {
    "trade": {
        "e": "type", "s": "symbol", "p": "price", "q": "quantity", "t": "trade_id",
        "b": "buyer_order_id", "a": "seller_order_id", "m": "buyer_is_maker", **_TIMES,
    },
    "depth": {
        "e": "type", "s": "symbol", "U": "first_update_id", "u": "last_update_id", "b": "bids",
        "a": "asks", **_TIMES,
    },
    "bookTicker": {
        "e": "type", "s": "symbol", "b": "bid_price", "B": "bid_quantity", "a": "ask_price",
        "A": "ask_quantity", "u": "update_id", **_TIMES,
    },
    "ticker": _TICKER,
    "externalTicker": _TICKER,
    "kline": {
        "e": "type", "s": "symbol", "t": "start_utc", "T": "end_utc", "o": "open_price",
        "h": "high_price", "l": "low_price", "c": "close_price", "v": "base_volume", "n": "trades",
        "X": "closed", "E": "event_us",
    },
    "markPrice": {
        "e": "type", "s": "symbol", "p": "mark_price", "i": "index_price", "f": "funding_rate",
        "n": "next_funding_ms", **_TIMES,
    },
    "openInterest": {"e": "type", "s": "symbol", "o": "open_interest", **_TIMES},
    "liquidation": {
        "e": "type", "s": "symbol", "S": "side", "p": "price", "q": "quantity", **_TIMES,
    },
    "stockPrice": {
        "e": "type", "symbol": "symbol", "bid": "bid", "ask": "ask", "mid": "mid",
        "session": "session", "timestamp": "source_ms",
    },
    "stockIndicativeQuote": {
        "e": "type", "symbol": "symbol", "bid": "bid", "ask": "ask",
        "estimatedBid": "estimated_bid", "estimatedAsk": "estimated_ask", "session": "session",
        "timestamp": "source_ms",
    },
    "account.orderUpdate": {
        "e": "type", "s": "symbol", "i": "order_id", "c": "client_order_id", "S": "side",
        "o": "order_type", "f": "time_in_force", "X": "status", "p": "price", "q": "quantity",
        "Q": "quote_quantity", "z": "executed_quantity", "Z": "executed_quote_quantity",
        "t": "trade_id", "L": "fill_price", "l": "fill_quantity", "m": "is_maker", "n": "fee",
        "N": "fee_asset", "R": "expiry_reason", "V": "self_trade_prevention", "O": "origin",
        "r": "reduce_only", "y": "post_only", "P": "trigger_price", "B": "trigger_by",
        "Y": "trigger_quantity", "a": "take_profit_trigger_price", "d": "take_profit_trigger_by",
        "j": "take_profit_limit_price", "b": "stop_loss_trigger_price",
        "g": "stop_loss_trigger_by", "k": "stop_loss_limit_price", "I": "related_order_id",
        "H": "strategy_id", **_TIMES,
    },
    "account.positionUpdate": {
        "e": "type", "s": "symbol", "i": "position_id", "q": "net_quantity",
        "Q": "net_exposure_quantity", "n": "net_exposure_notional", "B": "entry_price",
        "b": "break_even_price", "M": "mark_price", "f": "initial_margin_fraction",
        "m": "maintenance_margin_fraction", "p": "realized_pnl", "P": "unrealized_pnl",
        "l": "liquidation_price", **_TIMES,
    },
    "account.balanceUpdate": {
        "e": "type", "a": "asset", "A": "available", "L": "locked", "S": "staked", **_TIMES,
    },
    "account.rfqUpdate": {
        "e": "type", "s": "symbol", "R": "rfq_id", "u": "quote_id", "C": "client_id", "S": "side",
        "q": "quantity", "Q": "quote_quantity", "p": "price", "X": "status",
        "w": "submission_ms", "W": "expiry_ms", "O": "order_expiry_ms", "z": "executed_quantity",
        "Z": "executed_quote_quantity", "l": "fill_quantity", "L": "fill_quote_quantity",
        "o": "system_order_type", **_TIMES,
    },
}  # fmt: skip
OWN_TYPES = frozenset(
    ["gap", "depth_snapshot", "orders_snapshot", "positions_snapshot", "balances_snapshot"]
)
# Fields that the bridge adds to a message; they are not compared.
_ADDED = frozenset(["received_us", "extra", "source", "occurrence"])

Entry = tuple[str, Mapping[str, str]]


def kind(stream: str) -> str:
    """The type of the stream."""
    head = stream.split(".")
    return ".".join(head[:2]) if head[0] == "account" else head[0]


def text(value: object) -> str:
    """A JSON value as an entry has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def expected_fields(stream: str, data: Mapping[str, Any]) -> dict[str, str]:
    """The fields of the entry for a frame's data; all other fields must be empty."""
    names = LETTERS[kind(stream)]
    fields = {names[letter]: text(value) for letter, value in data.items()}
    if kind(stream) == "account.positionUpdate" and "type" not in fields:
        fields["type"] = "position"
    return fields


def fault(stream: str, data: Mapping[str, Any], entry: Mapping[str, str]) -> str:
    """How an entry differs from its frame; empty if it does not."""
    expected = expected_fields(stream, data)
    for name, value in expected.items():
        if entry.get(name) != value:
            return f"{stream}: {name} is {entry.get(name)!r}, the frame says {value!r}: {data}"
    for name, value in entry.items():
        if name not in expected and name not in _ADDED and value != "":
            return f"{stream}: {name} is {value!r}, the frame has no such field: {data}"
    if entry.get("extra"):
        return f"{stream}: extra {entry['extra']} of {data}"
    return ""


def messages(entries: Iterable[Entry]) -> list[Mapping[str, str]]:
    """The exchange's messages among the entries, without the bridge's own."""
    return [fields for _, fields in entries if fields["type"] not in OWN_TYPES]


def compare(stream: str, sent: Sequence[Mapping[str, Any]], entries: Iterable[Entry]) -> list[str]:
    """The differences between all frames' data and all entries, in order; at most five texts."""
    stored = messages(entries)
    faults = [
        found
        for data, entry in zip(sent, stored, strict=False)
        if (found := fault(stream, data, entry))
    ]
    if len(sent) != len(stored):
        faults.append(f"{stream}: {len(sent)} frames were sent, {len(stored)} are in Redis")
    return faults[:5]


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The frames of the simulator's ledger, in the order of sending."""
    return [line for line in map(json.loads, whole_lines(path)) if "frame" in line]


def whole_lines(path: Path) -> list[str]:
    """The complete lines of a file that is being written."""
    whole, _, _ = path.read_text().rpartition("\n")
    return whole.splitlines()


def sent_by_stream(ledger: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The data of the frames that were sent to a client, by stream."""
    streams: dict[str, list[dict[str, Any]]] = {}
    for line in ledger:
        if line["sent"]:
            streams.setdefault(line["frame"]["stream"], []).append(line["frame"]["data"])
    return streams
