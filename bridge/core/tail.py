"""The tail of a stream identified by content, to recognise entries that it has (pure)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.contract.entry import BadEntry, decode, decode_within, encode
from bridge.contract.events import Gap
from bridge.contract.identity import EntryId, believable_us, event_key, order_value
from bridge.contract.streams import Stream
from bridge.core.entries import Entry
from bridge.core.numbering import NONE_YET, Numbering, begins_anew

TAIL_MS = 10_000  # how far before the oldest waiting message the tail begins
NEWEST_STATES = 100  # entries read to find how far a peer is in a stream of states


class Edge(NamedTuple):
    """The first or the last entry of a stream: its ID, its receipt, and its moment (µs; see
    `Entry.moment_us`). An ID's time is never below the moment: it is raised to the stream's own. A
    gap counts as received when it begins; `written_us`: when it ended.
    """

    id: EntryId
    received_us: int
    moment_us: int
    written_us: int


class Known(NamedTuple):
    """What identifies a stored entry: its key, its order among states, and its time (ms)."""

    key: tuple[object, ...]
    order: int
    ms: int


class Stored(NamedTuple):
    """A tail for look-ups: the keys of its entries, states with their order, the newest state, and
    the stream's first entry if it once had older ones.
    """

    keys: frozenset[tuple[object, ...]]
    states: frozenset[tuple[int, tuple[object, ...]]]
    newest: Numbering
    first: Edge | None = None

    def overtakes(self, state: Entry) -> bool:
        """Whether this state or a newer one is stored.

        After a renumbering older numbers are higher, so only the state itself counts.
        """
        if (state.order, state.key) in self.states:
            return True
        if begins_anew(state.order, state.ms, self.newest):
            return False
        return state.order < self.newest.number

    def has(self, event: Entry) -> bool:
        """Whether this event is stored, or was stored until retention removed it.

        An entry before the first one had a lower ID, so no higher time, and was received no later.
        Both are required: either alone may be true of a new event, since the exchange's times and
        ours step back.
        """
        if event.key in self.keys:
            return True
        first = self.first
        return (
            first is not None
            and event.received_us <= first.received_us
            and EntryId(event.ms, event.number) < first.id
        )

    def had(self, event: Entry) -> bool:
        """The same for an event that was sent before, by the bridge that wrote the first entry: if
        that is a gap, it is behind all events received before it was written.
        """
        first = self.first
        return (
            first is not None
            and event.received_us < first.written_us
            and EntryId(event.ms, event.number) < first.id
        )


NOTHING_STORED = Stored(frozenset(), frozenset(), NONE_YET)


class Tail(NamedTuple):
    """The tail of a stream: its last ID (even of a deleted entry), and its entries from a point on,
    oldest first. `first`: the stream's first entry, if there were older ones; `newest`: its last.
    """

    last: str
    known: Sequence[Known]
    first: Edge | None = None
    newest: Edge | None = None

    def stored(self) -> Stored:
        """The same for look-ups."""
        newest = NONE_YET
        for each in self.known:
            if each.order > newest.number or begins_anew(each.order, each.ms, newest):
                newest = Numbering(each.order, each.ms)
        keys = frozenset(each.key for each in self.known)
        states = frozenset((each.order, each.key) for each in self.known)
        return Stored(keys, states, newest, self.first)


class TailWanted(NamedTuple):
    """The part of a stream's tail to read: from a time on, at most so many entries."""

    from_ms: int
    at_most: int | None = None


def identify(stream: Stream, fields: Mapping[str, str]) -> Known | None:
    """An entry of a stream as `Known`; None: it is not of the contract."""
    try:
        event = decode_within(stream.spec, fields)
    except BadEntry:
        return None
    event_us = believable_us(event, int(fields["received_us"]))
    return Known(event_key(event, encode(event)), order_value(event, event_us), event_us // 1000)


def edge(entry_id: str, fields: Mapping[str, str]) -> Edge | None:
    """A stored entry as an edge; None: it is not of the contract."""
    try:
        event = decode(fields)
    except BadEntry:
        return None
    received_us = written_us = int(fields["received_us"])
    if isinstance(event, Gap):
        received_us = min(received_us, event.from_us or 0)
    moment_us = believable_us(event, received_us) or received_us
    return Edge(EntryId.parse(entry_id), received_us, moment_us, written_us)
