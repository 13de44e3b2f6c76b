"""Names of the exchange's streams, and their parts (pure).

A stream's name is also its Redis key (behind an optional prefix). Symbols contain dots, digits and
lower case (`AAPL.US_USDC_PERP`, `kSHIB_USDC_PERP`), so a name is parsed from the left: type, then
an interval or window if the type has one; the rest is the symbol.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from bridge.contract import keys
from bridge.contract.stream_types import (
    STREAM_SPECS,
    Identity,
    Qualifier,
    Scope,
    StreamSpec,
    StreamType,
)

__all__ = [
    "DEPTH_WINDOWS",
    "GAP_LOG",
    "KLINE_INTERVALS",
    "QUARANTINE",
    "BadStreamName",
    "Identity",
    "Stream",
    "StreamType",
    "is_private",
    "is_stream",
    "is_symbol",
    "parse_stream",
    "stream_named",
]


# fmt: off
KLINE_INTERVALS = (
    "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h",
    "1d", "3d", "1w", "1month",
)
# fmt: on
DEPTH_WINDOWS = ("200ms", "600ms", "1000ms")

_BY_NAME = {member.value: member for member in StreamType}


_NOT_IN_SYMBOLS = "*?[]{}/,;"


class BadStreamName(ValueError):
    """The name cannot be a stream of the exchange; the message has the reason and the form."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of the exchange.

    `symbol` is empty if the stream covers all markets (or all assets); `interval` is set for
    klines (`1m`), `window` for aggregated depth (`200ms`), both empty otherwise.
    """

    name: str
    type: StreamType
    symbol: str = ""
    interval: str = ""
    window: str = ""

    @property
    def spec(self) -> StreamSpec:
        return STREAM_SPECS[self.type]

    @property
    def is_private(self) -> bool:
        return is_private(self.name)

    @property
    def is_own(self) -> bool:
        """Whether it is the bridge's own: the gap log, the quarantine."""
        return self.name.startswith("bridge:")

    @property
    def identity(self) -> Identity:
        return STREAM_SPECS[self.type].identity


# The bridge's own streams are identified by content, as liquidations are.
GAP_LOG = Stream(keys.GAPS, StreamType.LIQUIDATION)
QUARANTINE = Stream(keys.QUARANTINE, StreamType.LIQUIDATION)


def is_private(name: str) -> bool:
    """Whether the stream is of an account: subscribing needs a signature."""
    return name.startswith("account.")


@lru_cache(maxsize=65_536)
def parse_stream(name: str) -> Stream:
    """Parse a stream name in the exchange's spelling. Raises BadStreamName."""
    kind, rest = _split_type(name)
    spec = STREAM_SPECS[kind]
    if not rest:
        if spec.has_unscoped_name:
            return Stream(name, kind)
        raise BadStreamName(f"{name!r} names no market: write {kind.value}.<symbol>")
    if spec.scope is Scope.ACCOUNT:
        raise BadStreamName(f"{name!r}: the whole account has one stream, {kind.value}")
    match spec.qualifier:
        case Qualifier.INTERVAL:
            return _with_interval(name, kind, rest)
        case Qualifier.WINDOW:
            return _with_window(name, kind, rest)
        case Qualifier.NONE:
            return Stream(name, kind, rest)


def is_stream(name: str) -> bool:
    """Whether it is a valid stream name. Names from other programs are used (in keys, in paths of
    files) only if so.
    """
    try:
        parse_stream(name)
    except BadStreamName:
        return False
    return True


def is_symbol(text: str) -> bool:
    """Whether it is valid as a symbol in a stream name."""
    try:
        return parse_stream(f"{StreamType.TRADE.value}.{text}").symbol == text
    except BadStreamName:
        return False


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


def _with_interval(name: str, kind: StreamType, rest: str) -> Stream:
    interval, _, symbol = rest.partition(".")
    if interval not in KLINE_INTERVALS or not symbol:
        raise BadStreamName(
            f"{name!r}: write {kind.value}.<interval>.<symbol>, "
            f"interval one of {_list(KLINE_INTERVALS)}"
        )
    return Stream(name, kind, symbol, interval=interval)


def _with_window(name: str, kind: StreamType, rest: str) -> Stream:
    head, _, tail = rest.partition(".")
    if tail and head in DEPTH_WINDOWS:
        return Stream(name, kind, tail, window=head)
    if head in DEPTH_WINDOWS or head.removesuffix("ms").isdigit():
        raise BadStreamName(
            f"{name!r}: write {kind.value}.<symbol> or {kind.value}.<window>.<symbol>, "
            f"window one of {_list(DEPTH_WINDOWS)}"
        )
    return Stream(name, kind, rest)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


@lru_cache(maxsize=4096)
def stream_named(name: str) -> Stream | None:
    """The stream of a name from a journal; None: the name is invalid."""
    try:
        return parse_stream(name)
    except BadStreamName:
        return None
