"""An index of a stream's messages, in little memory: number and 64-bit digest of each (pure).

A million messages take some 17 MB. Entries are added in the order of their IDs, before `close`.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum

from bridge.contract.identity import EntryId
from bridge.core.entries import Entry
from bridge.inspect.stored import Stored, digest, identity


class Match(Enum):
    """How a received message compares with the stream."""

    SAME = "there"
    AGAIN = "there, and found before"
    FETCHED = "there, as the exchange's history has it"
    OTHER = "there, with other content"
    NONE = "not there"


_SEEN, _FETCHED = 1, 2
_SAME = 4  # it matched when it was first seen


class SequencedIndex:
    """An index of numbered messages. Where the numbers restart, another run begins: numbers
    increase within each run.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[array[int], array[int], bytearray]] = []
        self._next = 0  # the index after the last match

    def add(self, entry: Stored, place: EntryId, content: int) -> None:
        """Add a message by its ID; `content` is its digest."""
        number = place.position
        if not self._runs or number <= self._runs[-1][0][-1]:
            self._runs.append((array("Q"), array("Q"), bytearray()))
        numbers, digests, marks = self._runs[-1]
        numbers.append(number)
        digests.append(content)
        marks.append(_FETCHED if entry.text("source") else 0)

    def close(self) -> None:
        """All messages are added. No effect here."""

    def covers(self, entry: Entry) -> bool:
        """Whether the message lies within the range of numbers of a run."""
        return any(numbers[0] <= entry.number <= numbers[-1] for numbers, _, _ in self._runs)

    def find(self, entry: Entry) -> Match:
        """How the stream has this message; marks it as seen."""
        content, number = digest(entry.names, entry.values), entry.number
        found, slot = Match.NONE, None
        for numbers, digests, marks in reversed(self._runs):
            at = self._next  # a journal has messages in about the same order
            if at >= len(numbers) or numbers[at] != number:
                at = bisect_left(numbers, number)
                if at == len(numbers) or numbers[at] != number:
                    continue
            self._next = at + 1
            if digests[at] == content:
                if marks[at] & _SEEN:
                    return Match.AGAIN
                marks[at] |= _SEEN | _SAME
                return Match.SAME
            found, slot = Match.FETCHED if marks[at] & _FETCHED else Match.OTHER, (marks, at)
        if slot is not None:  # no run has it unchanged
            marks, at = slot
            marks[at] |= _SEEN
        return found

    def marks(self) -> Sequence[bytes]:
        """The marks so far, for `add_marks` of another index."""
        return [bytes(marks) for _, _, marks in self._runs]

    def add_marks(self, theirs: Sequence[bytes]) -> int:
        """Merge the marks of an index of the same messages that was used later. Returns how many
        messages it found that this index had seen before.
        """
        twice = 0
        for (_, _, marks), other in zip(self._runs, theirs, strict=True):
            ours, later = int.from_bytes(marks), int.from_bytes(other)
            each = int.from_bytes(bytes([_SEEN]) * len(marks))
            twice += (later // _SAME & ours & each).bit_count()
            marks[:] = (ours | later).to_bytes(len(marks))
        return twice

    def unseen(self) -> int:
        """The number of messages that were not found."""
        return sum(len(marks) - sum(mark & _SEEN for mark in marks) for _, _, marks in self._runs)


class ContentIndex:
    """An index of messages without numbers, by their content."""

    def __init__(self) -> None:
        self._first_ms: int | None = None
        self._last_ms = 0
        self._digests = array("Q")
        self._marks = bytearray()
        self._equals: dict[int, int] = {}  # digest → matches beyond the first equal message

    def add(self, entry: Stored, place: EntryId, content: int) -> None:
        """Add a message by its ID; `content` is its digest."""
        self._last_ms = place.ms
        if self._first_ms is None:
            self._first_ms = self._last_ms
        is_fill = entry.type == "orderFill"
        self._digests.append(identity(entry.names, entry.values) if is_fill else content)

    def close(self) -> None:
        """All messages are added: sorts them for `find`."""
        self._digests = array("Q", sorted(self._digests))
        self._marks = bytearray(len(self._digests))

    def covers(self, entry: Entry) -> bool:
        """Whether the message lies between the first and the last. Excludes both ends: other
        messages of the same ms may have been trimmed or not yet published.
        """
        return self._first_ms is not None and self._first_ms < entry.ms < self._last_ms

    def find(self, entry: Entry) -> Match:
        """How the stream has this message; marks it as seen."""
        content = identity(entry.names, entry.values)
        at = bisect_left(self._digests, content)
        if at == len(self._digests) or self._digests[at] != content:
            return Match.NONE
        if self._marks[at]:
            # States of a quiet market are equal each time: match the next one of them.
            equals = self._equals.get(content, 0) + 1
            at += equals
            if at == len(self._digests) or self._digests[at] != content:
                return Match.AGAIN
            self._equals[content] = equals
        self._marks[at] = _SEEN
        return Match.SAME

    def unseen(self) -> int:
        """The number of messages that were not found."""
        return self._marks.count(0)
