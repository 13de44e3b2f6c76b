"""Messages that are received again after the exchange's numbers began anew a little lower (pure).

By number and time they look as if something were missing before them. So the stream itself is
asked: it has them, from before it went on lower, or it has not.
"""

from collections.abc import Mapping, Sequence

from bridge.contract.identity import EntryId
from bridge.core.entries import Op, Slot
from bridge.core.tail import edge
from bridge.core.unlogged import Read

MESSAGES = ("trade", "depth")


def may_be_old(head: Slot, end: EntryId) -> bool:
    """May this message, which Redis has refused, be of numbers that ended before the stream's?"""
    entry = head.entry
    return entry.op is Op.APPEND and entry.number > end.position and 0 < entry.ms <= end.ms


def where_stored(head: Slot) -> Read:
    """Where to read the stream for it, and for those behind it where retention has taken it. An ID
    has a message's time or, where the engine's clock stepped back, a later one.
    """
    return Read(f"{head.entry.ms}-0")


def count_old(
    slots: Sequence[Slot], end: EntryId, page: Sequence[tuple[str, Mapping[str, str]]]
) -> int:
    """How many of these, from the head on, the stream has gone past: up to the last that it has
    though its numbers are lower now.
    """
    found = [edge(*entry) for entry in page if entry[1].get("type") in MESSAGES]
    stored = {(each.id.position, each.moment_us // 1000) for each in found if each is not None}
    old = [
        index
        for index, slot in enumerate(slots, 1)
        if may_be_old(slot, end) and (slot.entry.number, slot.entry.ms) in stored
    ]
    return max(old, default=0)
