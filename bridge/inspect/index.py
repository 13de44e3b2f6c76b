"""Which messages a stream has, in little memory: a number and 64 bits of what each says (pure).

A million messages take some 17 MB. Entries are added in the order of their IDs; `close` ends that.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum

from bridge.contract.identity import EntryId
from bridge.core.entries import Entry
from bridge.inspect.stored import Stored, digest, identity


class Match(Enum):
    """What a stream has of a message that was received."""

    SAME = "there"
    AGAIN = "there, and found before"
    FETCHED = "there, as the exchange's history has it"
    OTHER = "there, and says something else"
    NONE = "not there"


_SEEN, _FETCHED = 1, 2
_SAME = 4  # when it was seen first, it was the same


class SequencedIndex:
    """Of a stream whose messages are numbered. Where the numbers began anew, a further run begins:
    in each the numbers rise.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[array[int], array[int], bytearray]] = []
        self._next = 0  # behind the one found last

    def add(self, entry: Stored, place: EntryId, said: int) -> None:
        """A message of the stream, and its ID; `said` is its digest."""
        number = place.position
        if not self._runs or number <= self._runs[-1][0][-1]:
            self._runs.append((array("Q"), array("Q"), bytearray()))
        numbers, digests, marks = self._runs[-1]
        numbers.append(number)
        digests.append(said)
        marks.append(_FETCHED if entry.text("source") else 0)

    def close(self) -> None:
        """All are added."""

    def covers(self, entry: Entry) -> bool:
        """Does the message lie between the first and the last?"""
        return any(numbers[0] <= entry.number <= numbers[-1] for numbers, _, _ in self._runs)

    def find(self, entry: Entry) -> Match:
        """Whether this message is there. It counts as seen from now on."""
        said, number = digest(entry.names, entry.values), entry.number
        found, slot = Match.NONE, None
        for numbers, digests, marks in reversed(self._runs):
            at = self._next  # a journal has them in about the same order
            if at >= len(numbers) or numbers[at] != number:
                at = bisect_left(numbers, number)
                if at == len(numbers) or numbers[at] != number:
                    continue
            self._next = at + 1
            if digests[at] == said:
                if marks[at] & _SEEN:
                    return Match.AGAIN
                marks[at] |= _SEEN | _SAME
                return Match.SAME
            found, slot = Match.FETCHED if marks[at] & _FETCHED else Match.OTHER, (marks, at)
        if slot is not None:  # no other numbering has it as it was received
            marks, at = slot
            marks[at] |= _SEEN
        return found

    def marks(self) -> Sequence[bytes]:
        """What was seen so far, for `add_marks` of another one."""
        return [bytes(marks) for _, _, marks in self._runs]

    def add_marks(self, theirs: Sequence[bytes]) -> int:
        """Another one of the same messages has seen these, later. Returns how many it has found as
        the first that had been seen here before.
        """
        twice = 0
        for (_, _, marks), other in zip(self._runs, theirs, strict=True):
            ours, later = int.from_bytes(marks), int.from_bytes(other)
            each = int.from_bytes(bytes([_SEEN]) * len(marks))
            twice += (later // _SAME & ours & each).bit_count()
            marks[:] = (ours | later).to_bytes(len(marks))
        return twice

    def unseen(self) -> int:
        """How many messages were never found."""
        return sum(len(marks) - sum(mark & _SEEN for mark in marks) for _, _, marks in self._runs)


class ContentIndex:
    """Of a stream whose messages are told by what they say."""

    def __init__(self) -> None:
        self._first_ms: int | None = None
        self._last_ms = 0
        self._digests = array("Q")
        self._marks = bytearray()
        self._equals: dict[int, int] = {}  # of messages that say the same: found behind the first

    def add(self, entry: Stored, place: EntryId, said: int) -> None:
        """A message of the stream, and its ID; `said` is its digest."""
        self._last_ms = place.ms
        if self._first_ms is None:
            self._first_ms = self._last_ms
        is_fill = entry.type == "orderFill"
        self._digests.append(identity(entry.names, entry.values) if is_fill else said)

    def close(self) -> None:
        """All are added."""
        self._digests = array("Q", sorted(self._digests))
        self._marks = bytearray(len(self._digests))

    def covers(self, entry: Entry) -> bool:
        """Does the message lie between the first and the last? Not at the very ends: another one of
        the same ms may have been trimmed away, or not be there yet.
        """
        return self._first_ms is not None and self._first_ms < entry.ms < self._last_ms

    def find(self, entry: Entry) -> Match:
        """Whether this message is there. It counts as seen from now on."""
        said = identity(entry.names, entry.values)
        at = bisect_left(self._digests, said)
        if at == len(self._digests) or self._digests[at] != said:
            return Match.NONE
        if self._marks[at]:
            # A state of a quiet market says the same each time: the next one of them is meant.
            equals = self._equals.get(said, 0) + 1
            at += equals
            if at == len(self._digests) or self._digests[at] != said:
                return Match.AGAIN
            self._equals[said] = equals
        self._marks[at] = _SEEN
        return Match.SAME

    def unseen(self) -> int:
        """How many messages were never found."""
        return self._marks.count(0)
