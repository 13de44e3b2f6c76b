"""Names of the exchange's streams: what they are made of and which law of identity they follow.

A stream's name is also its Redis key (behind an optional prefix). Symbols contain dots, digits and
lower case (`AAPL.US_USDC_PERP`, `kSHIB_USDC_PERP`), so a name is read from the left: type, then an
interval or window where the type has one; the rest is the symbol.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


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

    __hash__ = str.__hash__  # an enum's own is Python, and each message looks things up by it


class Identity(StrEnum):
    """How a message of a stream is told from another one."""

    NUMBERED = "numbered"  # the exchange numbers them without holes; Redis compares positions
    EVENTS = "events"  # every one counts; told apart by content
    STATES = "states"  # the newest counts; ordered by update id or time


# fmt: off
KLINE_INTERVALS = (
    "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h",
    "1d", "3d", "1w", "1month",
)
# fmt: on
DEPTH_WINDOWS = ("200ms", "600ms", "1000ms")

_IDENTITY = {
    StreamType.TRADE: Identity.NUMBERED,
    StreamType.DEPTH: Identity.NUMBERED,
    StreamType.LIQUIDATION: Identity.EVENTS,
    StreamType.ORDER_UPDATE: Identity.EVENTS,
    StreamType.POSITION_UPDATE: Identity.EVENTS,
    StreamType.BALANCE_UPDATE: Identity.EVENTS,
    StreamType.RFQ_UPDATE: Identity.EVENTS,
}
_WITHOUT_SYMBOL = {
    StreamType.LIQUIDATION,
    StreamType.ORDER_UPDATE,
    StreamType.POSITION_UPDATE,
    StreamType.BALANCE_UPDATE,
    StreamType.RFQ_UPDATE,
}
_BY_NAME = {member.value: member for member in StreamType}


_NOT_IN_SYMBOLS = "*?[]{}/,;"


class BadStreamName(ValueError):
    """The name is not one the exchange could serve; the message says why and what is near."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of the exchange.

    `symbol` is empty where the stream covers all markets (or all assets); `interval` is set for
    klines (`1m`), `window` for aggregated depth (`200ms`), both empty otherwise.
    """

    name: str
    type: StreamType
    symbol: str = ""
    interval: str = ""
    window: str = ""

    @property
    def is_private(self) -> bool:
        return is_private(self.name)

    @property
    def identity(self) -> Identity:
        return _IDENTITY.get(self.type, Identity.STATES)


def is_private(name: str) -> bool:
    """Does the stream belong to an account, so that subscribing needs a signature?"""
    return name.startswith("account.")


@lru_cache(maxsize=65_536)
def parse_stream(name: str) -> Stream:
    """Read a stream name as the exchange writes it, or raise BadStreamName."""
    kind, rest = _split_type(name)
    if not rest:
        if kind in _WITHOUT_SYMBOL:
            return Stream(name, kind)
        raise BadStreamName(f"{name!r} names no market: write {kind.value}.<symbol>")
    if kind is StreamType.KLINE:
        interval, _, symbol = rest.partition(".")
        if interval not in KLINE_INTERVALS or not symbol:
            raise BadStreamName(
                f"{name!r}: write kline.<interval>.<symbol>, "
                f"interval one of {_list(KLINE_INTERVALS)}"
            )
        return Stream(name, kind, symbol, interval=interval)
    if kind is StreamType.DEPTH:
        return _depth(name, rest)
    if kind is StreamType.BALANCE_UPDATE:
        raise BadStreamName(f"{name!r}: balances have one stream, account.balanceUpdate")
    return Stream(name, kind, rest)


def _split_type(name: str) -> tuple[StreamType, str]:
    head, _, rest = name.partition(".")
    if head == "account":
        part, _, rest = rest.partition(".")
        head = f"account.{part}"
    kind = _BY_NAME.get(head)
    if any(sign in rest for sign in _NOT_IN_SYMBOLS):
        raise BadStreamName(
            f"{name!r}: a market's symbol has none of {_NOT_IN_SYMBOLS} in it; "
            "patterns are no subscription"
        )
    if kind is None or not name.isprintable() or " " in name:
        raise BadStreamName(f"{name!r} is not a stream: types are {_list(_BY_NAME)}")
    return kind, rest


def _depth(name: str, rest: str) -> Stream:
    head, _, tail = rest.partition(".")
    if tail and head in DEPTH_WINDOWS:
        return Stream(name, StreamType.DEPTH, tail, window=head)
    if head in DEPTH_WINDOWS or head.removesuffix("ms").isdigit():
        raise BadStreamName(
            f"{name!r}: write depth.<symbol> or depth.<window>.<symbol>, "
            f"window one of {_list(DEPTH_WINDOWS)}"
        )
    return Stream(name, StreamType.DEPTH, rest)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
