"""Dropping the oldest that waits for a stream without numbers, and the gap that stands for it
(pure).

No number tells of these messages, so whatever goes must be named by the gap: the messages, and the
intervals of gaps that go with them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bridge.contract.causes import GapCause
from bridge.core.entries import Entry, Slot, content_gap, slot_of


class Overflowed(NamedTuple):
    """The first `slots` of what waits go, `messages` of them the exchange's; `gap` takes their
    place.
    """

    slots: int
    messages: int
    freed: int
    gap: Slot


def overflow_oldest(symbol: str, waiting: Sequence[Slot], share: int) -> Overflowed | None:
    """The oldest `1/share`, or as many more as it takes to free anything; None: nothing would."""
    for count in range(max(1, len(waiting) // share), len(waiting) + 1):
        going = waiting[:count]
        gap = _gap_for(symbol, going)
        freed = sum(slot.size for slot in going) - gap.size
        if freed > 0:
            messages = sum(not slot.entry.is_gap for slot in going)
            return Overflowed(count, messages, freed, gap)
    return None


def _gap_for(symbol: str, going: Sequence[Slot]) -> Slot:
    intervals = [_interval(slot.entry) for slot in going]
    begins = [from_us for from_us, _ in intervals if from_us is not None]
    entry = content_gap(
        symbol=symbol,
        from_us=min(begins) if len(begins) == len(intervals) else None,
        to_us=max(to_us for _, to_us in intervals),
        cause=GapCause.OVERFLOW,
        received_us=max(slot.entry.received_us for slot in going),
    )
    # a restart receives all of it again, from the first on
    return slot_of(entry, min(slot.position for slot in going), going[-1].at_us)


def _interval(entry: Entry) -> tuple[int | None, int]:
    """From when to when it was emitted and received; from None: a gap that begins with the
    stream.
    """
    if entry.is_gap:
        fields = entry.fields()
        return int(fields["from_us"]) if fields["from_us"] else None, int(fields["to_us"])
    return min(entry.moment_us, entry.received_us), max(entry.moment_us, entry.received_us)
