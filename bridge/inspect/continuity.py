"""Checks the continuity of a stream: dense numbers, a consistent book, and gap entries where
messages are missing (pure). Entries must come in the order of their IDs.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.contract.entry import BadEntry
from bridge.contract.identity import EntryId
from bridge.contract.stream_types import Identity, StreamType
from bridge.contract.streams import Stream
from bridge.inspect.book import Book
from bridge.inspect.stored import OWN_TYPES, Stored

MOST_KEPT = 1000  # breaks that are listed


class Run(NamedTuple):
    """Numbers from `first` to `last`, both included."""

    first: int
    last: int


class Break(NamedTuple):
    """Numbers missing before the entry `entry_id`, without a gap entry."""

    entry_id: str
    run: Run


class Marked(NamedTuple):
    """A gap entry. `run`: its numbers in a sequenced stream; `span_us`: its time in other streams
    (an unknown start is 0)."""

    entry_id: str
    cause: str
    run: Run | None
    span_us: tuple[int, int] | None


@dataclass(slots=True)
class Tally:
    """Counts over the entries of a stream."""

    entries: int = 0
    messages: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    first_id: str = ""
    last_id: str = ""
    first_number: int | None = None  # of the first message, in sequenced streams
    last_number: int | None = None
    gaps: list[Marked] = field(default_factory=list)
    breaks: int = 0
    first_breaks: list[Break] = field(default_factory=list)
    logged: int = 0  # missing numbers without a gap entry that the gap log names
    disorder: int = 0  # IDs that do not increase
    undecodable: int = 0  # entries that are not of the contract
    overtaken: int = 0  # times that trimming passed the reading position
    snapshots_compared: int = 0
    snapshots_wrong: list[str] = field(default_factory=list)

    def add(self, entry_id: str, kind: str) -> None:
        """Count an entry."""
        self.entries += 1
        self.by_type[kind] = self.by_type.get(kind, 0) + 1
        self.first_id = self.first_id or entry_id
        self.last_id = entry_id

    def add_message(self, number: int | None) -> None:
        """Count a message, with its number if it has one."""
        self.messages += 1
        if number is not None:
            if self.first_number is None:
                self.first_number = number
            self.last_number = number


class Continuity:
    """Checks the entries of one stream. `reported`: numbers that the gap log reports as missing or
    never assigned: they need no gap entry.
    """

    def __init__(self, stream: Stream, reported: Iterable[Run] = ()) -> None:
        self.tally = Tally()
        self._reported = joined(reported)
        self._is_sequenced = stream.spec.identity is Identity.SEQUENCED
        self._book = Book() if stream.type is StreamType.DEPTH else None
        self._position: int | None = None
        self._last = EntryId(-1, -1)

    def add(self, entry: Stored, place: EntryId) -> bool:
        """Check the next entry, by its ID. Returns whether it is a message. Raises BadEntry where
        it is not of the contract.
        """
        if not entry.names:
            self._begin_anew()
            return False
        tally, kind = self.tally, entry.type
        if not kind:
            raise BadEntry(f"{entry.id} has no type: another program wrote it")
        tally.add(entry.id, kind)
        if place <= self._last:
            tally.disorder += 1
        self._last = place
        if kind not in OWN_TYPES:
            if self._is_sequenced:
                self._message(entry, place.position)
            else:
                tally.add_message(None)
            return True
        if kind == "gap":
            self._gap(entry, place.position)
        elif kind == "depth_snapshot":
            self._snapshot(entry, place.position)
        return False

    def _begin_anew(self) -> None:
        """Start again after a part that was trimmed while it was read."""
        self.tally.overtaken += 1
        self._position = None
        if self._book is not None:
            self._book.forget()

    def _message(self, entry: Stored, position: int) -> None:
        tally = self.tally
        first = entry.number("first_update_id") if self._book is not None else position
        first = position if first is None else first
        if self._position is not None and first > self._position + 1:
            self._left_out(entry.id, Run(self._position + 1, first - 1))
        tally.add_message(position)
        self._position = position
        if self._book is not None:
            self._book.apply(entry)

    def _snapshot(self, entry: Stored, position: int) -> None:
        assert self._book is not None, "depth snapshots are in depth streams"
        was_known = self._book.position == position
        agrees = self._book.replace(entry)
        self.tally.snapshots_compared += was_known
        if not agrees:
            self.tally.snapshots_wrong.append(entry.id)

    def _gap(self, entry: Stored, position: int) -> None:
        first, last = entry.number("from"), entry.number("to")
        from_us, to_us = entry.number("from_us"), entry.number("to_us")
        run = Run(first, last) if first is not None and last is not None else None
        span = None if to_us is None else (from_us or 0, to_us)
        self.tally.gaps.append(Marked(entry.id, entry.text("cause"), run, span))
        if self._is_sequenced:
            if run is not None and self._position is not None and run.first > self._position + 1:
                self._left_out(entry.id, Run(self._position + 1, run.first - 1))
            self._position = position
        if self._book is not None:
            self._book.forget()

    def _left_out(self, before: str, run: Run) -> None:
        """Count missing numbers: as a break, unless the gap log names them."""
        at = bisect_right(self._reported, run.first, key=lambda known: known.first) - 1
        if at >= 0 and run.last <= self._reported[at].last:
            self.tally.logged += run.last - run.first + 1
            return
        self.tally.breaks += 1
        if len(self.tally.first_breaks) < MOST_KEPT:
            self.tally.first_breaks.append(Break(before, run))


def joined(runs: Iterable[Run]) -> list[Run]:
    """The same numbers in as few runs as possible, lowest first."""
    found: list[Run] = []
    for run in sorted(runs):
        if found and run.first <= found[-1].last + 1:
            found[-1] = Run(found[-1].first, max(found[-1].last, run.last))
        else:
            found.append(run)
    return found
