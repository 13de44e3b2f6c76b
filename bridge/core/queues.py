"""The queues of one core, and which of them are detached (pure).

A queue knows from a record's position in the journal whether it took the record already. A queue
that was detached for a backfill takes nothing here until it is taken back.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from bridge.core.entries import Slot
from bridge.core.queue import QueueTable, StreamQueue


class Queues(dict[str, StreamQueue]):
    """Queues by stream name. A queue that takes an entry is marked ready in the `table`."""

    def __init__(self, table: QueueTable) -> None:
        super().__init__()
        self.detached: set[str] = set()  # names of those that another core has
        self._table = table

    def detach(self, names: Collection[str]) -> list[StreamQueue]:
        """Detach these queues: they take nothing here until `take_back`. Returns them."""
        self.detached.update(names)
        return [self[name] for name in names]

    def take_back(self, names: Iterable[str]) -> None:
        """Let detached queues take records here again."""
        self.detached.difference_update(names)

    def here(self) -> Iterator[StreamQueue]:
        """The queues that are not detached."""
        return (queue for name, queue in self.items() if name not in self.detached)

    def takes(self, queue: StreamQueue, position: int) -> bool:
        """Whether the record at this position is still to be put into this queue by this core."""
        return queue.takes(position) and queue.name not in self.detached

    def put(self, queue: StreamQueue, slot: Slot) -> None:
        """Add a received entry, unless the queue took its record already or is detached."""
        if self.takes(queue, slot.position):
            queue.put(slot)
            self._table.mark_ready(queue)

    def put_recovered(
        self, queue: StreamQueue, slots: Sequence[Slot], before: Slot | None = None
    ) -> None:
        """Add recovered entries: directly before the slot that waits for them, or by content."""
        queue.put_recovered(slots, before)
        self._table.mark_ready(queue)
