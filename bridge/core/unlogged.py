"""Gaps that stand in a sequenced stream and that no gap log may have (pure).

Stream and gap log are two keys: a bridge that is killed between them leaves a gap that the gap log
does not have. The numbers that are received again tell where one may stand, and the stream itself
whether it does.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from bridge.contract.causes import GapCause
from bridge.contract.identity import SLOTS, EntryId
from bridge.contract.whole_number import whole_number
from bridge.core.entries import Entry, Op, Slot, slot_of

AT_ONCE = 50  # places looked at in one call
PAGE = 100  # entries read at each: the gap is the first, unless the exchange's clock went back,
PAGES = 20  # and then it is not looked for any further than this


class Read(NamedTuple):
    """A page of a stream: entries from an ID on, oldest first, so many."""

    from_id: str
    limit: int = PAGE


class _Place(NamedTuple):
    """A gap may stand before this message, from that ID on."""

    before: Slot
    after: int
    from_id: str
    pages: int = PAGES

    @property
    def seq(self) -> int:
        """The gap's own: it ends where the message needs its predecessor."""
        return self.after * SLOTS + 1


class UnloggedGaps:
    """The gaps of one stream before messages that are received again: those up to the position
    `replayed_until`.
    """

    def __init__(self) -> None:
        self.replayed_until = -1  # the newest that was received again
        self._passed = 0  # the number up to which nothing is missing that is not marked by us
        self._places: deque[_Place] = deque()

    def forget(self) -> None:
        """All will be received again."""
        self._passed = 0
        self._places.clear()

    def replayed(self, position: int) -> None:
        """A message was received again."""
        self.replayed_until = max(self.replayed_until, position)

    def follows(self, slot: Slot) -> bool:
        """Was it received again, so that what stands before it is of interest?"""
        return slot.position <= self.replayed_until

    def settled(self, slot: Slot, ms: int) -> None:
        """A message is in the stream, or a gap of ours: with this time in its ID, or a later."""
        entry = slot.entry
        is_replayed = slot.position <= self.replayed_until and entry.op is Op.APPEND
        if is_replayed and slot.after > self._passed:
            place = _Place(slot, slot.after, "")
            self._places.append(place._replace(from_id=f"{ms}-{place.seq}"))
        self._passed = max(self._passed, entry.number)

    def oldest_position(self) -> int | None:
        """Where the journal has the oldest message that is not looked at; None: all are."""
        return min((place.before.position for place in self._places), default=None)

    @property
    def has_places(self) -> bool:
        """Is there something to look at?"""
        return bool(self._places)

    def wanted(self) -> Sequence[Read]:
        """What is to be read next."""
        return [Read(place.from_id) for place in islice(self._places, AT_ONCE)]

    def found(self, pages: Sequence[Sequence[tuple[str, Mapping[str, str]]]]) -> list[Slot]:
        """The gaps among what was read for `wanted`."""
        gaps = []
        asked = [self._places.popleft() for _ in pages if self._places]  # none: `forget` came first
        for place, page in zip(asked, pages, strict=False):
            # numbers rise: it is the first entry at or above its own, or there is none
            entry = next((e for e in page if EntryId.parse(e[0]).seq >= place.seq), None)
            if entry is None and len(page) == PAGE and place.pages > 1:
                further = place._replace(from_id=f"({page[-1][0]}", pages=place.pages - 1)
                self._places.append(further)
            elif entry is not None and (gap := _gap(entry, place)) is not None:
                gaps.append(slot_of(gap, place.before.position, place.before.at_us))
        return gaps


def _gap(stored: tuple[str, Mapping[str, str]], place: _Place) -> Entry | None:
    """The entry as it was written; None where it is something else, or a beginning."""
    entry_id, fields = EntryId.parse(stored[0]), stored[1]
    is_gap = fields.get("type") == "gap" and fields.get("cause") != GapCause.START
    received_us = whole_number(fields.get("received_us", ""))
    if entry_id.seq != place.seq or not is_gap or received_us is None:
        return None
    names = tuple(fields)
    return Entry(
        Op.GAP, names, list(fields.values()), entry_id.position, 0, entry_id.ms, received_us
    )
