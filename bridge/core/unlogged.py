"""Finds gaps in a sequenced stream that may be missing in the gap log (pure).

Stream and gap log are two keys: a bridge that is killed between the two writes leaves a gap that
the gap log does not have. The numbers received again in the replay show where one may be; the
stream is read to see whether it is there.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from bridge.contract.causes import GapCause
from bridge.contract.identity import SLOTS, EntryId
from bridge.contract.whole_number import whole_number
from bridge.core.entries import Entry, Op, Slot, slot_of

AT_ONCE = 50  # places read in one call
PAGE = 100  # entries read at each place: the gap is the first, unless the exchange's clock
PAGES = 20  # stepped back; then it is searched in so many pages


class Read(NamedTuple):
    """A page to read: at most `limit` entries of a stream from an ID on, oldest first."""

    from_id: str
    limit: int = PAGE


class _Place(NamedTuple):
    """A place where a gap may be: before this message, from that ID on."""

    before: Slot
    after: int
    from_id: str
    pages: int = PAGES

    @property
    def seq(self) -> int:
        """The sequence of the gap's ID: a gap ends at the message's predecessor."""
        return self.after * SLOTS + 1


class UnloggedGaps:
    """The gaps of one stream before replayed messages: those up to position `replayed_until`."""

    def __init__(self) -> None:
        self.replayed_until = -1  # the position of the newest replayed message
        self._passed = 0  # the number up to which nothing is missing, or we marked it
        self._places: deque[_Place] = deque()

    def forget(self) -> None:
        """Start anew: all messages will be received again."""
        self._passed = 0
        self._places.clear()

    def replayed(self, position: int) -> None:
        """Note a replayed message."""
        self.replayed_until = max(self.replayed_until, position)

    def follows(self, slot: Slot) -> bool:
        """Whether the message was replayed, so that a gap may be before it."""
        return slot.position <= self.replayed_until

    def settled(self, slot: Slot, ms: int) -> None:
        """Note that a message or a gap of ours is in the stream; its ID's time is `ms` or later."""
        entry = slot.entry
        is_replayed = slot.position <= self.replayed_until and entry.op is Op.APPEND
        if is_replayed and slot.after > self._passed:
            place = _Place(slot, slot.after, "")
            self._places.append(place._replace(from_id=f"{ms}-{place.seq}"))
        self._passed = max(self._passed, entry.number)

    def oldest_position(self) -> int | None:
        """The journal position of the oldest message that is not checked; None: all are."""
        return min((place.before.position for place in self._places), default=None)

    @property
    def has_places(self) -> bool:
        """Whether there are places to read."""
        return bool(self._places)

    def reads(self) -> Sequence[Read]:
        """The pages to read next."""
        return [Read(place.from_id) for place in islice(self._places, AT_ONCE)]

    def take_pages(self, pages: Sequence[Sequence[tuple[str, Mapping[str, str]]]]) -> list[Slot]:
        """Take the pages for `reads`. Returns the gaps in them."""
        gaps = []
        # There are fewer places than pages if `forget` was called since.
        places = [self._places.popleft() for _ in pages if self._places]
        for place, page in zip(places, pages, strict=False):
            # numbers rise: the gap is the first entry at or above its sequence, or there is none
            entry = next((e for e in page if EntryId.parse(e[0]).seq >= place.seq), None)
            if entry is None and len(page) == PAGE and place.pages > 1:
                further = place._replace(from_id=f"({page[-1][0]}", pages=place.pages - 1)
                self._places.append(further)
            elif entry is not None and (gap := _gap(entry, place)) is not None:
                gaps.append(slot_of(gap, place.before.position, place.before.at_us))
        return gaps


def _gap(stored: tuple[str, Mapping[str, str]], place: _Place) -> Entry | None:
    """The gap as it was written; None: the entry is not the gap, or it is a start."""
    entry_id, fields = EntryId.parse(stored[0]), stored[1]
    is_gap = fields.get("type") == "gap" and fields.get("cause") != GapCause.START
    received_us = whole_number(fields.get("received_us", ""))
    if entry_id.seq != place.seq or not is_gap or received_us is None:
        return None
    names = tuple(fields)
    return Entry(
        Op.GAP, names, list(fields.values()), entry_id.position, 0, entry_id.ms, received_us
    )
