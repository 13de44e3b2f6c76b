"""Stream selection: names, patterns, or groups meaning every type times every market.

Checks names with the contract; whether the exchange has such a market is not known here.
"""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from bridge.contract.stream_types import STREAM_SPECS, Listing
from bridge.contract.streams import BadStreamName, StreamType, parse_stream
from bridge.runtime.config_section import Section
from bridge.runtime.nearest import nearest
from bridge.runtime.patterns import is_pattern, parse_pattern

SPOT = ("BTC_USDC", "ETH_USDC", "SOL_USDC")
PERP = ("BTC_USDC_PERP", "SOL_USDC_PERP")
MOST_OF_A_GROUP = 100_000  # streams; two hundred markets and all types make some 4,000


def checked_stream(name: str) -> str:
    """The name or pattern, if the exchange could serve it. Raises ValueError with the nearest
    valid name.
    """
    try:
        if is_pattern(name):
            return parse_pattern(name).name
        return parse_stream(name).name
    except BadStreamName as error:
        raise ValueError(_stream_mistake(name, error)) from error


def _stream_mistake(name: str, error: BadStreamName) -> str:
    parts = name.split(".")
    head = ".".join(parts[:2]) if parts[0] == "account" else parts[0]
    hits = nearest(head, StreamType, limit=1)
    if not hits or hits[0] == head:
        return str(error)
    return f"{name!r} is not a stream; did you mean {hits[0] + name[len(head) :]}?"


class StreamGroup(Section):
    """Every type times every market. A type may carry an interval or window: `kline.1m`."""

    types: Annotated[tuple[str, ...], Field(min_length=1)]
    markets: Annotated[tuple[str, ...], Field(min_length=1)]

    def names(self) -> Iterator[str]:
        return (f"{kind}.{market}" for market in self.markets for kind in self.types)

    @model_validator(mode="after")
    def _all_are_streams(self) -> Self:
        if (count := len(self.types) * len(self.markets)) > MOST_OF_A_GROUP:
            raise ValueError(f"means {count:,} streams, and at most {MOST_OF_A_GROUP:,} are taken")
        for name in self.names():
            checked_stream(name)
        return self


def _item_kind(item: object) -> str:
    return "name" if isinstance(item, str) else "group"


StreamItem = Annotated[
    Annotated[str, AfterValidator(checked_stream), Tag("name")]
    | Annotated[StreamGroup, Tag("group")],
    Discriminator(_item_kind),
]


def at_least_one(items: tuple[StreamItem, ...]) -> tuple[StreamItem, ...]:
    """Refuse an empty list; pydantic's length limit would also count invalid items as missing."""
    if not items:
        raise ValueError("is empty: name at least one, such as trade.SOL_USDC")
    return items


def default_streams() -> tuple[StreamItem, ...]:
    """The streams of an empty configuration: the default form of each type."""

    def forms(listing: Listing) -> tuple[str, ...]:
        rows = (row for row in STREAM_SPECS.values() if row.listing is listing)
        return tuple(row.default_form for row in rows if row.default_form)

    return (
        StreamGroup(types=forms(Listing.ALL), markets=SPOT + PERP),
        StreamGroup(types=forms(Listing.DERIVATIVES), markets=PERP),
    )
