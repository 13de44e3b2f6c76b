"""The end of a stream that is told by content, and what it says of what waits (pure)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.contract.entry import BadEntry, decode, decode_within, encode
from bridge.contract.events import Gap
from bridge.contract.identity import EntryId, believable_us, event_key, order_value
from bridge.contract.streams import Stream
from bridge.core.entries import Entry
from bridge.core.numbering import NONE_YET, Numbering, begins_anew

TAIL_MS = 10_000  # how far before the oldest waiting message the tail is read
NEWEST_STATES = 100  # entries that tell how far another bridge is with a stream of states


class Edge(NamedTuple):
    """The first or the last entry that a stream keeps: its ID, when it was received, and the time
    it goes by (µs). An ID never has less than that time: it is raised to the stream's own. A gap
    counts as received when it begins; `written_us` is when it ended.
    """

    id: EntryId
    received_us: int
    moment_us: int
    written_us: int


class Known(NamedTuple):
    """A stored entry, as far as it tells whether a message is there: its key, its order among
    states, and the time it goes by (ms).
    """

    key: tuple[object, ...]
    order: int
    ms: int


class Stored(NamedTuple):
    """What a tail told: the keys of its entries, and of states their order too, the newest state
    among them, and the first entry of a stream that once had older ones.
    """

    keys: frozenset[tuple[object, ...]]
    states: frozenset[tuple[int, tuple[object, ...]]]
    newest: Numbering
    first: Edge | None = None

    def overtakes(self, state: Entry) -> bool:
        """Is this state there already, or a newer one?

        Where the exchange's numbers began anew, those before are higher: only the state itself
        tells that it is there.
        """
        if (state.order, state.key) in self.states:
            return True
        if begins_anew(state.order, state.ms, self.newest):
            return False
        return state.order < self.newest.number

    def has(self, event: Entry) -> bool:
        """Is this event there, or was it before retention took it?

        What was there before the first had a lower ID, so no higher time, and was received no
        later. Either alone could be said of something new: times step back, the exchange's and
        ours.
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
        """The same of an event that was sent before, by the bridge that wrote the first: where that
        is a gap, it stands behind all that was received before it was written.
        """
        first = self.first
        return (
            first is not None
            and event.received_us < first.written_us
            and EntryId(event.ms, event.number) < first.id
        )


NOTHING_STORED = Stored(frozenset(), frozenset(), NONE_YET)


class Tail(NamedTuple):
    """What the stream holds at its end: last ID (of all times), and the entries from a point on,
    oldest first. `first`: its first entry, if there were older ones; `newest`: its last.
    """

    last: str
    known: Sequence[Known]
    first: Edge | None = None
    newest: Edge | None = None

    def stored(self) -> Stored:
        """The same, for looking things up."""
        newest = NONE_YET
        for each in self.known:
            if each.order > newest.number or begins_anew(each.order, each.ms, newest):
                newest = Numbering(each.order, each.ms)
        keys = frozenset(each.key for each in self.known)
        states = frozenset((each.order, each.key) for each in self.known)
        return Stored(keys, states, newest, self.first)


class TailWanted(NamedTuple):
    """Which part of a stream's end must be read: from a time on, at most so many entries."""

    from_ms: int
    at_most: int | None = None


def identify(stream: Stream, fields: Mapping[str, str]) -> Known | None:
    """An entry of a stream as `Known`; None where it is not of the contract."""
    try:
        event = decode_within(stream.spec, fields)
    except BadEntry:
        return None
    event_us = believable_us(event, int(fields["received_us"]))
    return Known(event_key(event, encode(event)), order_value(event, event_us), event_us // 1000)


def edge(entry_id: str, fields: Mapping[str, str]) -> Edge | None:
    """A stored entry as an edge; None where it is not of the contract."""
    try:
        event = decode(fields)
    except BadEntry:
        return None
    received_us = written_us = int(fields["received_us"])
    if isinstance(event, Gap):
        received_us = min(received_us, event.from_us or 0)
    moment_us = believable_us(event, received_us) or received_us
    return Edge(EntryId.parse(entry_id), received_us, moment_us, written_us)
