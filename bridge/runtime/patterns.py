"""Patterns for streams: `trade.*_PERP` is one stream for each matching market (pure).

A pattern covers the markets that the exchange lists now: `*` is any part of a symbol, `?` one
character.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bridge.contract.streams import BadStreamName, Stream, StreamType, parse_stream
from bridge.runtime.markets import Markets, is_listed_type

SIGNS = "*?"


@dataclass(frozen=True, slots=True)
class Pattern:
    """`head` is the part before the symbol (`kline.1m.`), `symbol` the pattern itself."""

    name: str
    head: str
    symbol: str
    type: StreamType

    def fits(self, stream: Stream) -> bool:
        """Whether the pattern matches this stream."""
        return fnmatchcase(stream.symbol, self.symbol) and stream.name == self.head + stream.symbol

    def streams(self, markets: Markets) -> Iterable[Stream]:
        """One stream for each matching open market that has the type."""
        for symbol, market in markets.items():
            if fnmatchcase(symbol, self.symbol) and market.has(self.type) and not market.is_closed:
                yield parse_stream(self.head + symbol)


def is_pattern(name: str) -> bool:
    """Whether a configured name is a pattern, not the name of one stream."""
    return any(sign in name for sign in SIGNS)


def parse_pattern(name: str) -> Pattern:
    """Parse a pattern. Raises BadStreamName where no list of markets could match it."""
    stand_in = name.replace("*", "X").replace("?", "X")
    only_market = f"{name!r}: only the market may be a pattern, as in trade.*_PERP"
    try:
        example = parse_stream(stand_in)
    except BadStreamName as error:
        is_types = is_pattern(name.partition(".")[0])
        reason = only_market if is_types else str(error).replace(repr(stand_in), repr(name))
        raise BadStreamName(reason) from None
    symbol = name[len(name) - len(example.symbol) :]
    head = name[: len(name) - len(symbol)]
    if is_pattern(head) or example.is_private:
        raise BadStreamName(only_market)
    if not is_listed_type(example):
        raise BadStreamName(
            f"{name!r}: the exchange has no list of what {example.type.value} is there for; "
            "write the full names"
        )
    return Pattern(name, head, symbol, example.type)
