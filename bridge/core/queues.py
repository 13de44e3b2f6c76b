"""The queues of one core (pure): what is put into them, and which of them another core fills.

A queue knows from a record's position in the journal whether it has taken it already. One that was
given away, to be backfilled, takes nothing here until it comes back.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from bridge.core.entries import Slot
from bridge.core.queue import QueueTable, StreamQueue


class Queues(dict[str, StreamQueue]):
    """By the stream's name. What is put into one makes it ready in the `table`."""

    def __init__(self, table: QueueTable) -> None:
        super().__init__()
        self.detached: set[str] = set()  # names of those that another core has
        self._table = table

    def detach(self, names: Collection[str]) -> list[StreamQueue]:
        """Until `take_back` these take nothing here."""
        self.detached.update(names)
        return [self[name] for name in names]

    def take_back(self, names: Iterable[str]) -> None:
        """They take what comes here again."""
        self.detached.difference_update(names)

    def here(self) -> Iterator[StreamQueue]:
        """Those that no other core has."""
        return (queue for name, queue in self.items() if name not in self.detached)

    def takes(self, queue: StreamQueue, position: int) -> bool:
        """Is what the journal has there still to be put in, and here?"""
        return queue.takes(position) and queue.name not in self.detached

    def put(self, queue: StreamQueue, slot: Slot) -> None:
        """Add what was received, unless the queue has it or another core has the queue."""
        if self.takes(queue, slot.position):
            queue.put(slot)
            self._table.mark_ready(queue)

    def put_recovered(
        self, queue: StreamQueue, slots: Sequence[Slot], before: Slot | None = None
    ) -> None:
        """Add what was missing: directly before the slot that waits for it, or by content."""
        queue.put_recovered(slots, before)
        self._table.mark_ready(queue)
