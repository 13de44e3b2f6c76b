"""Consumers: workers that process the exchange's streams in Redis, and the kit to write your own.

    from backpack_bridge import Consumer, Delivery, Results, Trade, consumes, read

Import these names from `backpack_bridge`, which re-exports them: a user's own folder may be called
`consumers`. The package exports everything that a consumer needs: base class and decorators
(`Consumer`, `consumes`, `every`), arguments of handlers (`Delivery`, `Tick`, the events), outputs
(`Results`, `State`), reading for research (`read`), and effects that happen once (`Once`,
`put_once`).
`consumers.testing` tests a consumer without a server; `consumers.handlers` has samples to run and
to copy. `consumers.kit` is private and may change without notice.

A worker connects to Redis only, never to the exchange.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.contract.events import (
        BalancesSnapshot,
        BalanceUpdate,
        BookTicker,
        Depth,
        DepthSnapshot,
        Event,
        ExternalTicker,
        Gap,
        GapRecord,
        Kline,
        Level,
        Liquidation,
        MarkPrice,
        OpenInterest,
        OrdersSnapshot,
        OrderUpdate,
        PositionsSnapshot,
        PositionUpdate,
        Quarantined,
        RfqUpdate,
        StockIndicativeQuote,
        StockPrice,
        Ticker,
        Trade,
        UnknownEvent,
    )
    from bridge.contract.identity import EntryId
    from bridge.contract.streams import KLINE_INTERVALS, StreamType
    from bridge.errors import BridgeError, ConfigError
    from bridge.runtime.secret import secret
    from bridge.runtime.terminal import printable
    from consumers.kit.api.consumer import Consumer, Delivery, Missed, StopWorker
    from consumers.kit.api.function import consumes
    from consumers.kit.api.results import Results, State
    from consumers.kit.api.timers import Tick, every
    from consumers.kit.effects.files import put_once, remove_unfinished
    from consumers.kit.effects.sql import Once
    from consumers.kit.order_book import Best, OrderBook
    from consumers.kit.reading.columns import Column, ColumnKind, columns_of, row_of
    from consumers.kit.reading.range_scan import TrimmedAway
    from consumers.kit.reading.read import NotUnderstood, Reading, read

__all__ = [
    "KLINE_INTERVALS",
    "BalanceUpdate",
    "BalancesSnapshot",
    "Best",
    "BookTicker",
    "BridgeError",
    "Column",
    "ColumnKind",
    "ConfigError",
    "Consumer",
    "Delivery",
    "Depth",
    "DepthSnapshot",
    "EntryId",
    "Event",
    "ExternalTicker",
    "Gap",
    "GapRecord",
    "Kline",
    "Level",
    "Liquidation",
    "MarkPrice",
    "Missed",
    "NotUnderstood",
    "Once",
    "OpenInterest",
    "OrderBook",
    "OrderUpdate",
    "OrdersSnapshot",
    "PositionUpdate",
    "PositionsSnapshot",
    "Quarantined",
    "Reading",
    "Results",
    "RfqUpdate",
    "State",
    "StockIndicativeQuote",
    "StockPrice",
    "StopWorker",
    "StreamType",
    "Tick",
    "Ticker",
    "Trade",
    "TrimmedAway",
    "UnknownEvent",
    "columns_of",
    "consumes",
    "every",
    "printable",
    "put_once",
    "read",
    "remove_unfinished",
    "row_of",
    "secret",
]

# The module that defines each name, for the import on first use. All other names are event classes.
_MODULES = {
    "bridge.contract.identity": ("EntryId",),
    "bridge.contract.streams": ("KLINE_INTERVALS", "StreamType"),
    "bridge.errors": ("BridgeError", "ConfigError"),
    "bridge.runtime.secret": ("secret",),
    "bridge.runtime.terminal": ("printable",),
    "consumers.kit.api.consumer": ("Consumer", "Delivery", "Missed", "StopWorker"),
    "consumers.kit.api.function": ("consumes",),
    "consumers.kit.api.results": ("Results", "State"),
    "consumers.kit.api.timers": ("Tick", "every"),
    "consumers.kit.effects.files": ("put_once", "remove_unfinished"),
    "consumers.kit.effects.sql": ("Once",),
    "consumers.kit.order_book": ("Best", "OrderBook"),
    "consumers.kit.reading.columns": ("Column", "ColumnKind", "columns_of", "row_of"),
    "consumers.kit.reading.range_scan": ("TrimmedAway",),
    "consumers.kit.reading.read": ("NotUnderstood", "Reading", "read"),
}
_EVENTS = "bridge.contract.events"


def __getattr__(name: str) -> object:
    """Import a public name on first use. Raises AttributeError for any other name.

    `python -m consumers` imports this package before it can install its signal handlers, so the
    package itself must import neither the kit nor the redis client (together some 0.3 s).
    """
    if name not in __all__:
        raise AttributeError(f"module 'consumers' has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), _EVENTS)
    value: object = getattr(import_module(module), name)
    globals()[name] = value  # later uses bypass this function
    return value


def __dir__() -> list[str]:
    """All public names, including those not imported yet."""
    return sorted({*globals(), *__all__})
