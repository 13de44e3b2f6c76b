"""Drops the oldest entries of a stream without numbers, and marks them by a gap (pure).

No number shows that they are missing, so the gap must cover all that is dropped: the messages, and
the intervals of gaps among them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bridge.contract.causes import GapCause
from bridge.core.entries import Entry, Slot, content_gap, slot_of


class Overflowed(NamedTuple):
    """The first `slots` are dropped, with `messages` of the exchange and `freed` bytes; `gap`
    replaces them.
    """

    slots: int
    messages: int
    freed: int
    gap: Slot


def overflow_oldest(symbol: str, waiting: Sequence[Slot], share: int) -> Overflowed | None:
    """Drop the oldest `1/share`, or more if needed to free anything; None: nothing would."""
    for count in range(max(1, len(waiting) // share), len(waiting) + 1):
        dropped = waiting[:count]
        gap = _gap_for(symbol, dropped)
        freed = sum(slot.size for slot in dropped) - gap.size
        if freed > 0:
            messages = sum(not slot.entry.is_gap for slot in dropped)
            return Overflowed(count, messages, freed, gap)
    return None


def _gap_for(symbol: str, dropped: Sequence[Slot]) -> Slot:
    intervals = [_interval(slot.entry) for slot in dropped]
    begins = [from_us for from_us, _ in intervals if from_us is not None]
    entry = content_gap(
        symbol=symbol,
        from_us=min(begins) if len(begins) == len(intervals) else None,
        to_us=max(to_us for _, to_us in intervals),
        cause=GapCause.OVERFLOW,
        received_us=max(slot.entry.received_us for slot in dropped),
    )
    # its position is the oldest, so that a restart reads all of them again
    return slot_of(entry, min(slot.position for slot in dropped), dropped[-1].at_us)


def _interval(entry: Entry) -> tuple[int | None, int]:
    """From when to when it was sent and received; None: from the stream's beginning (a gap)."""
    if entry.is_gap:
        fields = entry.fields()
        return int(fields["from_us"]) if fields["from_us"] else None, int(fields["to_us"])
    return min(entry.moment_us, entry.received_us), max(entry.moment_us, entry.received_us)
