"""Gaps that stand in a numbered stream and that nobody may have noted in the ledger (pure).

Gap and ledger are two keys: a bridge that is killed between them leaves a gap that the ledger does
not know. The numbers heard again tell where one may stand, and the stream itself whether it does.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from bridge.contract.identity import SLOTS, EntryId
from bridge.pipeline.items import START, Item, Op

AT_ONCE = 50  # places looked at in one call
PAGE = 100  # entries read at each: the gap is the first, unless the exchange's clock went back,
PAGES = 20  # and then it is not looked for any further than this

Entry = tuple[str, Mapping[str, str]]


class GapWanted(NamedTuple):
    """A gap may stand before this message: read entries from this ID on."""

    before: Item
    from_id: str
    pages: int = PAGES

    @property
    def seq(self) -> int:
        """The gap's own: it ends where the message needs its predecessor."""
        return self.before.after * SLOTS + 1


@dataclass(slots=True)
class Unnoted:
    """The holes of one line before messages that are heard again."""

    heard_until: int = -1  # offset of the newest that was heard again
    _passed: int = 0  # the position up to which nothing is missing that we have not marked
    _wanted: deque[GapWanted] = field(default_factory=deque)

    def forget(self) -> None:
        """All will be heard again."""
        self._passed = 0
        self._wanted.clear()

    def settled(self, item: Item, ms: int) -> None:
        """A message is in the stream, or a gap of ours: with this time in its ID, or a later."""
        is_heard_again = item.offset <= self.heard_until and item.op is Op.APPEND
        if is_heard_again and item.after > self._passed:
            wanted = GapWanted(item, "")
            self._wanted.append(wanted._replace(from_id=f"{ms}-{wanted.seq}"))
        self._passed = max(self._passed, item.position)

    def oldest_offset(self) -> int | None:
        """Where the journal has the oldest message that is not looked at; None: all are."""
        return min((wanted.before.offset for wanted in self._wanted), default=None)

    def wanted(self) -> Sequence[GapWanted]:
        """What is to be read next."""
        return list(islice(self._wanted, AT_ONCE))

    def found(self, pages: Sequence[Sequence[Entry]]) -> list[Item]:
        """The gaps among what was read for `wanted`."""
        gaps = []
        for page in pages:
            wanted = self._wanted.popleft()
            # positions rise: it is the first entry at or above its own, or there is none
            entry = next((e for e in page if EntryId.parse(e[0]).seq >= wanted.seq), None)
            if entry is None and len(page) == PAGE and wanted.pages > 1:
                further = wanted._replace(from_id=f"({page[-1][0]}", pages=wanted.pages - 1)
                self._wanted.append(further)
            elif entry is not None and (gap := _gap(entry, wanted)) is not None:
                gaps.append(gap)
        return gaps


def _gap(entry: Entry, wanted: GapWanted) -> Item | None:
    """The entry as the item it was; None where it is something else, or a beginning."""
    entry_id, fields = EntryId.parse(entry[0]), entry[1]
    if entry_id.seq != wanted.seq or fields.get("type") != "gap" or fields["cause"] == START:
        return None
    gap = Item(
        Op.GAP,
        "",
        entry_id.position,
        entry_id.ms,
        tuple(fields),
        list(fields.values()),
        int(fields["received_us"]),
    )
    gap.offset = wanted.before.offset
    return gap
