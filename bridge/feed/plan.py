"""Which streams are to be received now (pure): names, expanded patterns, and substitutes.

The exchange's documents name the stream of liquidations in two ways, one for all markets and one
for each market; if one form is refused, the other is subscribed to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.contract.streams import Stream, StreamType, parse_stream
from bridge.runtime.markets import Markets, unlisted
from bridge.runtime.patterns import Pattern
from bridge.runtime.share import Share

ALL_LIQUIDATIONS = StreamType.LIQUIDATION.value


@dataclass(frozen=True, slots=True)
class SubscriptionPlan:
    """The configured names and patterns, the refused ones, and this bridge's share; None: all."""

    names: tuple[str, ...]
    patterns: tuple[Pattern, ...] = ()
    refused: frozenset[str] = frozenset()
    share: Share | None = None

    def streams(self, markets: Markets) -> dict[str, Stream]:
        """The streams that this bridge is to receive, by name, in order."""
        return {name: one for name, one in self.whole(markets).items() if self.is_mine(one)}

    def is_mine(self, stream: Stream) -> bool:
        return self.share is None or self.share.is_mine(stream)

    def whole(self, markets: Markets) -> dict[str, Stream]:
        """All streams that the fleet is to receive."""
        streams = [parse_stream(name) for name in self.names]
        streams += [each for pattern in self.patterns for each in pattern.streams(markets)]
        streams += self._substitutes(markets)
        return {stream.name: stream for stream in streams}

    def troubles(self, markets: Markets) -> Mapping[str, str]:
        """Configured names that will have no messages by the list of markets → the reason."""
        if not markets:
            return {}
        named = [stream for stream in map(parse_stream, self.names) if self.is_mine(stream)]
        reasons = {stream.name: unlisted(stream, markets) for stream in named}
        return {name: why for name, why in reasons.items() if why}

    def unknown(self, markets: Markets, why: str) -> Mapping[str, str]:
        """Patterns that are not expanded yet, since no list of markets was read → the reason;
        `why`: that of the last failed request.
        """
        if markets:
            return {}
        reason = f"the listed markets are not known yet: {why or 'the list of markets is awaited'}"
        return {pattern.name: reason for pattern in self.patterns}

    def _substitutes(self, markets: Markets) -> Iterable[Stream]:
        for name in self.refused & {*self.names, *self._from_patterns(markets)}:
            if name == ALL_LIQUIDATIONS:
                for market in markets.values():
                    if market.kind != "SPOT" and not market.is_closed:
                        yield parse_stream(f"{ALL_LIQUIDATIONS}.{market.symbol}")
            elif parse_stream(name).type is StreamType.LIQUIDATION:
                yield parse_stream(ALL_LIQUIDATIONS)

    def _from_patterns(self, markets: Markets) -> set[str]:
        return {each.name for pattern in self.patterns for each in pattern.streams(markets)}


def other_forms(name: str, names: Iterable[str]) -> Iterable[str]:
    """Those of the names that have the messages of this refused one."""
    if name == ALL_LIQUIDATIONS:
        return [other for other in names if other.startswith(f"{ALL_LIQUIDATIONS}.")]
    is_one = name.startswith(f"{ALL_LIQUIDATIONS}.")
    return [other for other in names if is_one and other == ALL_LIQUIDATIONS]
