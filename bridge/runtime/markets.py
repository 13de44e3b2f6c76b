"""The exchange's list of markets, and which stream types each market has (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.contract.json_text import parsed
from bridge.contract.stream_types import STREAM_SPECS, Listing, StreamType
from bridge.contract.streams import Stream, is_symbol
from bridge.runtime.nearest import nearest

PATH = "/api/v1/markets"
MOST = 2_000  # the exchange lists some two hundred; each pattern is tested against each market


@dataclass(frozen=True, slots=True)
class Market:
    """One market of the list, with the fields that are used here."""

    symbol: str
    kind: str = ""
    book_state: str = ""

    @property
    def is_closed(self) -> bool:
        return self.book_state == "Closed"

    def has(self, kind: StreamType) -> bool:
        """Whether this market has streams of the type."""
        return self.kind != "SPOT" or STREAM_SPECS[kind].listing is not Listing.DERIVATIVES


Markets = Mapping[str, Market]


def read_markets(body: bytes) -> dict[str, Market]:
    """The markets by symbol, without those whose symbols are invalid. Raises ValueError where the
    body is not a list of markets, or is empty.
    """
    listing = parsed(body)
    if not isinstance(listing, list) or not listing:
        raise ValueError("the reply is no list of markets")
    if len(listing) > MOST:
        raise ValueError(f"the reply lists {len(listing):,} markets, and at most {MOST:,} are read")
    markets = [_market(each) for each in listing if isinstance(each, dict)]
    named = {market.symbol: market for market in markets if is_symbol(market.symbol)}
    if not named:
        raise ValueError("the reply lists no market")
    return named


def is_listed_type(stream: Stream) -> bool:
    """Whether the list can confirm that this stream's market exists."""
    is_unlisted = stream.spec.listing is Listing.NONE or stream.symbol.endswith("_RFQ")
    return bool(stream.symbol) and not is_unlisted


def unlisted(stream: Stream, markets: Markets) -> str:
    """Why the list says that this stream will be silent; empty where it will not."""
    if not is_listed_type(stream):
        return ""
    market = markets.get(stream.symbol)
    if market is None:
        near = nearest(stream.symbol, markets)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{stream.symbol} is not listed by the exchange{hint}"
    if not market.has(stream.type):
        return f"{stream.symbol} is a spot market, without {stream.type.value}"
    return f"{stream.symbol} is closed for trading" if market.is_closed else ""


def _market(listed: Mapping[str, object]) -> Market:
    fields = (listed.get(name) for name in ("symbol", "marketType", "orderBookState"))
    return Market(*(value if isinstance(value, str) else "" for value in fields))
