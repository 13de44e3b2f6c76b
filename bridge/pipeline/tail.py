"""The end of a stream without numbers, and what it says of that which waits (pure)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.contract.entry import BadEntry, decode, encode
from bridge.contract.identity import event_key, order_value
from bridge.pipeline.items import Item

TAIL_MS = 10_000  # how far before the oldest waiting message the tail is read
NEWEST_STATES = 100  # entries that tell how far another bridge is with a stream of states


class Stored(NamedTuple):
    """What a tail told: keys of its entries, and the newest order value among them."""

    keys: frozenset[tuple[str, ...]]
    newest: int

    def overtakes(self, state: Item) -> bool:
        """Is this state there already, or a newer one?"""
        return state.order < self.newest or (state.order == self.newest and state.key in self.keys)


NOTHING_STORED = Stored(frozenset(), 0)


class Tail(NamedTuple):
    """What the stream holds at its end: last ID (of all times), and key and order value of the
    entries from a point on (`identify`).
    """

    last: str
    known: Sequence[tuple[tuple[str, ...], int]]

    def stored(self) -> Stored:
        """The same, for looking things up."""
        return Stored(
            frozenset(key for key, _ in self.known),
            max((order for _, order in self.known), default=0),
        )


class TailWanted(NamedTuple):
    """Which part of a stream's end must be read: from a time on, at most so many entries."""

    from_ms: int
    at_most: int | None = None


def identify(fields: Mapping[str, str]) -> tuple[tuple[str, ...], int] | None:
    """Key and order value of a stored entry; None where it is not of the contract."""
    try:
        event = decode(fields)
    except BadEntry:
        return None
    return event_key(event, encode(event)), order_value(event, int(fields["received_us"]))
