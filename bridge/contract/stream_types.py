"""The exchange's stream types (pure): one row for each, with all that differs between types.

The rest of the bridge works by the row of a type: how its names are parsed, which model validates
its messages, how a missing message is detected and recovered, how long its streams are kept, and
its schema. A new stream type is a row here, a model in `events` and, if REST is a source of it, a
parser of its body in `protocol.rest`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import get_args

from bridge.contract import events
from bridge.contract.events import Event

SECOND_US = 1_000_000
SKEW_US = 300_000  # the most by which a message's times over two connections differ


class StreamType(StrEnum):
    """The exchange's stream types, spelled as on the wire."""

    TRADE = "trade"
    DEPTH = "depth"
    BOOK_TICKER = "bookTicker"
    TICKER = "ticker"
    KLINE = "kline"
    MARK_PRICE = "markPrice"
    OPEN_INTEREST = "openInterest"
    LIQUIDATION = "liquidation"
    EXTERNAL_TICKER = "externalTicker"
    STOCK_PRICE = "stockPrice"
    STOCK_INDICATIVE_QUOTE = "stockIndicativeQuote"
    ORDER_UPDATE = "account.orderUpdate"
    POSITION_UPDATE = "account.positionUpdate"
    BALANCE_UPDATE = "account.balanceUpdate"
    RFQ_UPDATE = "account.rfqUpdate"

    __hash__ = str.__hash__  # Enum's is slow Python code, and each message is looked up by it


class Identity(StrEnum):
    """How messages of a stream are identified."""

    SEQUENCED = "sequenced"  # the exchange numbers them without gaps; Redis compares positions
    EVENTS = "events"  # every message counts; identified by content
    STATES = "states"  # the newest message counts; ordered by update id or time


class Scope(StrEnum):
    """What a stream of the type covers, which determines the form of its name."""

    MARKET = "market"  # one market: `trade.<symbol>`
    TICKER = "ticker"  # one stock, by its ticker: `stockPrice.<ticker>`
    ALL_OR_MARKET = "all or market"  # all markets, or one: `liquidation`, `liquidation.<symbol>`
    ACCOUNT = "account"  # the account as a whole: `account.balanceUpdate`


class Qualifier(StrEnum):
    """The part of a name between its type and its symbol."""

    NONE = ""
    INTERVAL = "interval"  # always: `kline.1m.<symbol>`
    WINDOW = "window"  # optional: `depth.200ms.<symbol>`, `depth.<symbol>`


class Listing(StrEnum):
    """Which symbols in the exchange's list of markets have a stream of this type."""

    ALL = "all"  # each listed market
    DERIVATIVES = "derivatives"  # each listed market except spot markets
    NONE = "none"  # symbols that the list does not have (RFQ only, tickers of stocks)


class Staleness(StrEnum):
    """How it is decided that a stream is stale."""

    PERIOD = "period"  # it sends each `period_s`, even if nothing changes
    BOOK = "book"  # by the longest time for which its market's book did not change
    TRADES = "trades"  # by the longest time without a trade in its market
    CANDLE = "candle"  # a candle's last message is always sent
    CANNOT = "cannot"  # never: it sends only when something happens, so silence proves nothing


class Probe(StrEnum):
    """What is fetched over REST to check whether a silent stream had something to send."""

    LAST_TRADE = "last trade"
    UPDATE_ID = "update id"
    BEST_PRICES = "best prices"


class Ordering(StrEnum):
    """The order of the states of a stream: a larger value is newer."""

    TIME = "time"  # engine time, else the time of sending
    UPDATE_ID = "update id"
    PROVIDER_TIME = "provider time"  # as TIME, else the provider's time of the quote


class Recovery(StrEnum):
    """What REST offers after messages were missed; spelled as in a gap record's `how`."""

    HISTORY = "history"  # the missing messages, put in their places
    FILLS = "fills"  # the missing messages that were fills
    SNAPSHOT = "snapshot"  # the present state


@dataclass(frozen=True, slots=True)
class RestSource:
    """What is fetched over REST when a stream begins or has missed messages.

    `instruction`: the name in a signed request; empty: the endpoint is public. `snapshot`: the
    model of the entry that is made of a body (Recovery.SNAPSHOT).
    """

    recovery: Recovery
    path: str
    instruction: str = ""
    snapshot: type[Event] | None = None


@dataclass(frozen=True)
class StreamSpec:
    """One stream type.

    `means`: its description in schemas and docs. `default_form`: what a bridge without
    configuration subscribes to for its markets (`kline.1m`; empty: nothing). `retention_entries`:
    entries that a stream keeps by default; `bytes_per_entry`: an estimate for a long stream
    (stream-node-max-bytes 8192). `period_s`: it sends that often, even if nothing changes.
    `has_engine_time` false: servers of the exchange take samples at their own moments, so the same
    sample has two times over two connections, up to `skew_us` apart. `rest`: in order of requests.
    """

    stream_type: StreamType
    model: type[Event]
    means: str
    identity: Identity
    retention_entries: int
    bytes_per_entry: int
    scope: Scope = Scope.MARKET
    qualifier: Qualifier = Qualifier.NONE
    listing: Listing = Listing.ALL
    default_form: str = ""
    period_s: int | None = None
    staleness: Staleness = Staleness.CANNOT
    probe: Probe | None = None
    has_engine_time: bool = True
    skew_us: int = SKEW_US
    ordering: Ordering = Ordering.TIME
    rest: Sequence[RestSource] = ()

    @cached_property
    def is_private(self) -> bool:
        """Whether it is of an account: subscribing needs a signature."""
        return self.stream_type.startswith("account.")

    @cached_property
    def event_names(self) -> frozenset[str]:
        """The event names of the type's messages (the wire's `e`)."""
        return frozenset(get_args(self.model.model_fields["type"].annotation))

    def model_of(self, event_name: object) -> type[Event]:
        """The model that validates a message with this event name. New features of the exchange
        bring new account events: they are published as `UnknownEvent`.
        """
        is_name = isinstance(event_name, str)  # a JSON value of any other kind may be there
        if not (self.is_private and is_name) or event_name in self.event_names:
            return self.model
        return events.UnknownEvent

    @cached_property
    def models(self) -> tuple[type[Event], ...]:
        """The models of the entries of a stream of this type."""
        unknown = (events.UnknownEvent,) if self.is_private else ()
        return (self.model, *unknown, *((self.snapshot,) if self.snapshot else ()), events.Gap)

    @cached_property
    def has_unscoped_name(self) -> bool:
        """Whether the type alone is the name of a stream."""
        return self.scope in (Scope.ALL_OR_MARKET, Scope.ACCOUNT)

    @cached_property
    def proves_life(self) -> bool:
        """Whether it sends each second, so that its silence proves its connection dead."""
        return self.staleness is Staleness.PERIOD and self.period_s == 1

    @cached_property
    def is_regular(self) -> bool:
        """Whether it sends so regularly that its silence shows a loss: a broken connection covered
        it only up to its last message.
        """
        return self.identity is Identity.STATES and self.staleness is not Staleness.CANNOT

    @cached_property
    def sampled_every_us(self) -> int | None:
        """The period of samples without an engine time; None: its messages are no such samples."""
        return None if self.has_engine_time or not self.period_s else self.period_s * SECOND_US

    @cached_property
    def follows_gap(self) -> str:
        """What follows a gap that is not recovered, as in a gap record's `how`; empty: nothing."""
        kinds = (source.recovery for source in self.rest)
        return ", ".join(kind for kind in kinds if kind is not Recovery.HISTORY)

    @cached_property
    def snapshot(self) -> type[Event] | None:
        """The model of the bridge's own snapshot entries in a stream of this type."""
        return next((source.snapshot for source in self.rest if source.snapshot), None)

    def source(self, recovery: Recovery) -> RestSource | None:
        """The REST source of this recovery, or None."""
        return next((source for source in self.rest if source.recovery is recovery), None)


_ROWS = (
    StreamSpec(
        StreamType.TRADE,
        events.Trade,
        "One trade.",
        Identity.SEQUENCED,
        default_form="trade",
        retention_entries=200_000,
        bytes_per_entry=130,
        staleness=Staleness.TRADES,
        probe=Probe.LAST_TRADE,
        rest=(RestSource(Recovery.HISTORY, "/api/v1/trades/history"),),
    ),
    StreamSpec(
        StreamType.DEPTH,
        events.Depth,
        "A change of the order book: new quantities by price.",
        Identity.SEQUENCED,
        qualifier=Qualifier.WINDOW,
        default_form="depth",
        retention_entries=200_000,
        bytes_per_entry=160,
        staleness=Staleness.BOOK,
        probe=Probe.UPDATE_ID,
        rest=(RestSource(Recovery.SNAPSHOT, "/api/v1/depth", snapshot=events.DepthSnapshot),),
    ),
    StreamSpec(
        StreamType.BOOK_TICKER,
        events.BookTicker,
        "Best bid and ask, at each change of price or size.",
        Identity.STATES,
        default_form="bookTicker",
        retention_entries=100_000,
        bytes_per_entry=120,
        staleness=Staleness.BOOK,
        probe=Probe.BEST_PRICES,
        ordering=Ordering.UPDATE_ID,
    ),
    StreamSpec(
        StreamType.TICKER,
        events.Ticker,
        "The market's last 24 hours, each second.",
        Identity.STATES,
        default_form="ticker",
        retention_entries=20_000,
        bytes_per_entry=200,
        period_s=1,
        staleness=Staleness.PERIOD,
        has_engine_time=False,
        skew_us=1_500_000,
    ),
    StreamSpec(
        StreamType.KLINE,
        events.Kline,
        "The present state of a candle, at most once a second; a last one when it closes.",
        Identity.STATES,
        qualifier=Qualifier.INTERVAL,
        default_form="kline.1m",
        retention_entries=50_000,
        bytes_per_entry=160,
        staleness=Staleness.CANDLE,
        probe=Probe.LAST_TRADE,
    ),
    StreamSpec(
        StreamType.MARK_PRICE,
        events.MarkPrice,
        "Mark price, index price and funding, each second.",
        Identity.STATES,
        listing=Listing.DERIVATIVES,
        default_form="markPrice",
        retention_entries=20_000,
        bytes_per_entry=150,
        period_s=1,
        staleness=Staleness.PERIOD,
    ),
    StreamSpec(
        StreamType.OPEN_INTEREST,
        events.OpenInterest,
        "Open interest, each minute.",
        Identity.STATES,
        listing=Listing.DERIVATIVES,
        default_form="openInterest",
        retention_entries=20_000,
        bytes_per_entry=110,
        period_s=60,
        staleness=Staleness.PERIOD,
        has_engine_time=False,
        skew_us=90_000_000,
    ),
    StreamSpec(
        StreamType.LIQUIDATION,
        events.Liquidation,
        "One liquidation.",
        Identity.EVENTS,
        scope=Scope.ALL_OR_MARKET,
        retention_entries=100_000,
        bytes_per_entry=130,
    ),
    StreamSpec(
        StreamType.EXTERNAL_TICKER,
        events.ExternalTicker,
        "The last 24 hours by an outside provider.",
        Identity.STATES,
        listing=Listing.NONE,
        retention_entries=20_000,
        bytes_per_entry=200,
        period_s=1,
        has_engine_time=False,
    ),
    StreamSpec(
        StreamType.STOCK_PRICE,
        events.StockPrice,
        "A provider's quote of a stock.",
        Identity.STATES,
        scope=Scope.TICKER,
        listing=Listing.NONE,
        retention_entries=20_000,
        bytes_per_entry=150,
        ordering=Ordering.PROVIDER_TIME,
    ),
    StreamSpec(
        StreamType.STOCK_INDICATIVE_QUOTE,
        events.StockIndicativeQuote,
        "Indicative quote of a stock, each second.",
        Identity.STATES,
        scope=Scope.TICKER,
        listing=Listing.NONE,
        retention_entries=20_000,
        bytes_per_entry=150,
        ordering=Ordering.PROVIDER_TIME,
    ),
    StreamSpec(
        StreamType.ORDER_UPDATE,
        events.OrderUpdate,
        "A change of an order of the account; `type` names the change.",
        Identity.EVENTS,
        scope=Scope.ALL_OR_MARKET,
        retention_entries=100_000,
        bytes_per_entry=400,
        rest=(
            RestSource(Recovery.FILLS, "/wapi/v1/history/fills", "fillHistoryQueryAll"),
            RestSource(Recovery.SNAPSHOT, "/api/v1/orders", "orderQueryAll", events.OrdersSnapshot),
        ),
    ),
    StreamSpec(
        StreamType.POSITION_UPDATE,
        events.PositionUpdate,
        "A position of the account. `position` is its state on subscribing.",
        Identity.EVENTS,
        scope=Scope.ALL_OR_MARKET,
        retention_entries=100_000,
        bytes_per_entry=400,
        rest=(
            RestSource(
                Recovery.SNAPSHOT, "/api/v1/position", "positionQuery", events.PositionsSnapshot
            ),
        ),
    ),
    StreamSpec(
        StreamType.BALANCE_UPDATE,
        events.BalanceUpdate,
        "An asset's balance after a change.",
        Identity.EVENTS,
        scope=Scope.ACCOUNT,
        retention_entries=100_000,
        bytes_per_entry=150,
        rest=(
            RestSource(
                Recovery.SNAPSHOT, "/api/v1/capital", "balanceQuery", events.BalancesSnapshot
            ),
        ),
    ),
    StreamSpec(
        StreamType.RFQ_UPDATE,
        events.RfqUpdate,
        "A change of a request for quote, or of a quote on it.",
        Identity.EVENTS,
        scope=Scope.ALL_OR_MARKET,
        listing=Listing.NONE,
        retention_entries=100_000,
        bytes_per_entry=300,
    ),
)

STREAM_SPECS: Mapping[StreamType, StreamSpec] = {row.stream_type: row for row in _ROWS}


@dataclass(frozen=True, slots=True)
class OwnStream:
    """A Redis Stream of the bridge's own; `name`: its name in settings."""

    name: str
    key: str
    model: type[Event]
    retention_entries: int
    bytes_per_entry: int


OWN_STREAMS = (
    OwnStream("gaps", "bridge:gaps", events.GapRecord, 10_000, 250),
    OwnStream("quarantine", "bridge:quarantine", events.Quarantined, 2_000, 600),
)
