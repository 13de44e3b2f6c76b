"""The end of a stream without numbers, and what it says of that which waits (pure)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.contract.entry import BadEntry, decode, encode
from bridge.contract.events import Gap
from bridge.contract.identity import EntryId, believable_us, event_key, order_value
from bridge.pipeline.items import Item

TAIL_MS = 10_000  # how far before the oldest waiting message the tail is read
NEWEST_STATES = 100  # entries that tell how far another bridge is with a stream of states


class Edge(NamedTuple):
    """The first or the last entry that a stream keeps: its ID, when it was heard, and the time it
    goes by (µs). An ID never has less than that time: it is raised to the stream's own. A gap
    counts as heard when it begins.
    """

    id: EntryId
    heard_us: int
    moment_us: int


class Stored(NamedTuple):
    """What a tail told: keys of its entries, and the newest order value among them; and the first
    entry of a stream that once had older ones.
    """

    keys: frozenset[tuple[str, ...]]
    newest: int
    first: Edge | None = None

    def overtakes(self, state: Item) -> bool:
        """Is this state there already, or a newer one?"""
        return state.order < self.newest or (state.order == self.newest and state.key in self.keys)

    def has(self, event: Item) -> bool:
        """Is this event there, or was it before retention took it?

        What was there before the first had a lower ID, so no higher time, and was heard no later.
        Either alone could be said of something new: times step back, the exchange's and ours.
        """
        if event.key in self.keys:
            return True
        first = self.first
        return (
            first is not None
            and event.heard_us <= first.heard_us
            and EntryId(event.ms, event.position) < first.id
        )


NOTHING_STORED = Stored(frozenset(), 0)


class Tail(NamedTuple):
    """What the stream holds at its end: last ID (of all times), and key and order value of the
    entries from a point on (`identify`). `first`: its first entry, if there were older ones;
    `newest`: its last.
    """

    last: str
    known: Sequence[tuple[tuple[str, ...], int]]
    first: Edge | None = None
    newest: Edge | None = None

    def stored(self) -> Stored:
        """The same, for looking things up."""
        return Stored(
            frozenset(key for key, _ in self.known),
            max((order for _, order in self.known), default=0),
            self.first,
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


def edge(entry_id: str, fields: Mapping[str, str]) -> Edge | None:
    """A stored entry as an edge; None where it is not of the contract."""
    try:
        event = decode(fields)
    except BadEntry:
        return None
    heard_us = int(fields["received_us"])
    if isinstance(event, Gap):
        heard_us = min(heard_us, event.from_us or 0)
    return Edge(EntryId.parse(entry_id), heard_us, believable_us(event, heard_us) or heard_us)
