"""Messages received again after a renumbering that began only a little lower (pure).

By number and time their predecessor seems to be missing. So the stream itself is read: if it has
them, they are old.
"""

from collections.abc import Mapping, Sequence

from bridge.contract.identity import EntryId
from bridge.core.entries import Op, Slot
from bridge.core.tail import edge
from bridge.core.unlogged import Read

MESSAGES = ("trade", "depth")


def may_be_old(head: Slot, end: EntryId) -> bool:
    """Whether this refused message may be of a numbering older than that of the stream's end."""
    entry = head.entry
    return entry.op is Op.APPEND and entry.number > end.position and 0 < entry.ms <= end.ms


def where_stored(head: Slot) -> Read:
    """The page to read for this message and those after it (retention may have removed it). An ID
    has the message's time or, if the engine's clock stepped back, a later one.
    """
    return Read(f"{head.entry.ms}-0")


def count_old(
    slots: Sequence[Slot], end: EntryId, page: Sequence[tuple[str, Mapping[str, str]]]
) -> int:
    """How many of these slots, from the head on, are old: up to the last that the page has although
    the stream's numbers are lower now.
    """
    edges = [edge(*entry) for entry in page if entry[1].get("type") in MESSAGES]
    stored = {(each.id.position, each.moment_us // 1000) for each in edges if each is not None}
    old = [
        index
        for index, slot in enumerate(slots, 1)
        if may_be_old(slot, end) and (slot.entry.number, slot.entry.ms) in stored
    ]
    return max(old, default=0)
