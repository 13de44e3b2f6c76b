"""The queue of one stream: entries that wait for Redis, and the queue's state (pure).

    OPEN       entries may be sent
    IN_FLIGHT  the first `in_flight` entries were sent, and no reply was received yet
    WAITING    Redis refused the head: its predecessor must arrive, or be marked as missing
    SUSPENDED  Redis refuses this stream alone (`reason`); other streams continue
    LOST       Redis has less than it acknowledged (`lost_last`, its last ID); nothing is sent

    OPEN       take → IN_FLIGHT        fail → SUSPENDED      Redis' last ID went back → LOST
    WAITING    release, due → OPEN     take (a probe) → IN_FLIGHT    fail → SUSPENDED
    IN_FLIGHT  settled → OPEN          refused → WAITING, SUSPENDED or LOST
               no reply → OPEN, or WAITING where it waited before
    SUSPENDED  resume, rewind → OPEN
    LOST       accept_loss, rewind → OPEN, or WAITING where the stream begins anew

There are two kinds of queue. `Sequenced` (trade, depth): the exchange numbers the messages without
gaps, and Redis compares numbers. `Content` (all other streams): messages are identified by their
content. They differ in how they take messages, in what a reply of Redis means, and in how a gap is
marked; what they share is here. Bytes are counted in `_add` and `_drop`, nowhere else.
"""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import NamedTuple, Protocol

from bridge.contract.causes import GapCause
from bridge.contract.identity import EMPTY, EntryId
from bridge.contract.streams import Stream
from bridge.core.counters import StreamCounters
from bridge.core.entries import Answer, Entry, Slot
from bridge.core.peers import Peers
from bridge.core.tail import Edge, Tail, TailWanted
from bridge.core.unlogged import Read
from bridge.runtime.keyspace import KeySpace

OLDEST_SCANNED = 4096  # slots scanned for the oldest; a queue is nearly in the journal's order

StoredEntry = tuple[str, Mapping[str, str]]


class QueueState(Enum):
    """See the module's table."""

    OPEN = "open"
    IN_FLIGHT = "in flight"
    WAITING = "waiting"
    SUSPENDED = "suspended"
    LOST = "lost"


# Module names, as `APPEND` in `entries`: compared for each batch, and for each queue in sums.
OPEN, IN_FLIGHT, SUSPENDED = QueueState.OPEN, QueueState.IN_FLIGHT, QueueState.SUSPENDED


class Batch(NamedTuple):
    """The entries that one call of the append script is to append, in order.

    `expected`: the last ID that a CONTENT batch requires of the stream ('' for sequenced streams).
    """

    queue: "StreamQueue"
    slots: Sequence[Slot]
    expected: str = ""


class Resume(NamedTuple):
    """Where a stream's queue begins: records before `position` are settled; entries of records
    before `replay_until` may be in Redis already; `confirmed`: the last ID that Redis acknowledged.
    """

    position: int = 0
    replay_until: int = 0
    confirmed: str = EMPTY


class StreamQueue(ABC):
    """The queue of entries of one stream for Redis. Times are µs by the caller's steady clock."""

    def __init__(self, stream: Stream, peers: Peers, resume: Resume) -> None:
        self.stream = stream
        self.name = stream.name
        self.kind = "" if stream.is_own else stream.type.value  # streams of the exchange only
        self.slots: deque[Slot] = deque()
        self.bytes = 0
        self.counters = StreamCounters()
        self.gap_causes: Counter[str] = Counter()
        self.state = QueueState.OPEN
        self.in_flight = 0  # slots, from the head
        self.reason = ""  # SUSPENDED: why
        self.lost_last = EMPTY  # LOST: the last ID that Redis has
        self.confirmed = resume.confirmed
        self._before_loss = ""  # `confirmed` before a loss, until the loss is marked or filled
        self.position = resume.position  # records before it are settled
        self.replay_until = resume.replay_until
        self._peers = peers
        self._gaps_written: list[Slot] = []

    # ---- input ---------------------------------------------------------------------------------

    @abstractmethod
    def put(self, slot: Slot) -> None:
        """Add a received entry."""

    @abstractmethod
    def put_recovered(self, slots: Sequence[Slot], before: Slot | None = None) -> None:
        """Add recovered entries: directly before the slot that waits for them, or by content."""

    @abstractmethod
    def put_outage(
        self,
        *,
        from_us: int,
        to_us: int,
        cause: GapCause,
        received_us: int,
        position: int,
        at_us: int,
    ) -> None:
        """Mark that nothing was received between these times (of the exchange); `received_us`:
        when it ended, by our clock. A sequenced queue uses the cause alone.
        """

    @abstractmethod
    def set_gap_cause(self, cause: GapCause) -> None:
        """Set the cause of a gap before the next message. A queue without numbers ignores it: its
        gaps are marked by `put_outage`.
        """

    @abstractmethod
    def has_received(self, entry: Entry) -> bool:
        """Whether the same message was already received over another connection. Records it."""

    @abstractmethod
    def forget_received(self) -> None:
        """Forget received messages: no second connection can bring duplicates any more."""

    def takes(self, position: int) -> bool:
        """Whether the record at this position of the journal is still to be put in."""
        return position >= self.position

    def begin_at(self, position: int) -> None:
        """Set the position before which all records are in."""
        self.position = position

    def move_positions(self, by: int) -> None:
        """Shift all positions: the journal begins elsewhere."""
        self.position += by
        self.replay_until += by
        for slot in self.slots:
            slot.move_by(by)

    def release(self) -> None:
        """End a wait for a predecessor: try the head again."""

    def unexplained_head(self) -> Slot | None:
        """The head that Redis refused although no number showed a gap before it, or None."""
        return None

    def count_repeated(self) -> None:
        """Count a duplicate from another connection."""
        self.counters.repeated += 1

    def count_recovered(self) -> None:
        """Count a gap that was closed from REST."""
        self.counters.recovered += 1

    def count_gap(self, cause: str) -> None:
        """Count a gap that was written, or found too late to be written at its place."""
        self.counters.gaps += 1
        self.gap_causes[cause] += 1

    # ---- output --------------------------------------------------------------------------------

    @abstractmethod
    def take(self, now_us: int, limit: int) -> Batch | None:
        """The next batch to send, which is then in flight; None: nothing to send now."""

    @abstractmethod
    def due_us(self) -> int | None:
        """When to call `take` again while the queue waits; None: time alone changes nothing."""

    @property
    def may_read(self) -> bool:
        """Whether `tail_wanted` or `pages_wanted` may return something."""
        return False

    def tail_wanted(self, now_us: int) -> TailWanted | None:
        """The part of the stream's tail to read before anything can be sent; None: no read."""
        return None

    def read_tail(self, tail: Tail) -> None:
        """Take the stream's tail, as `tail_wanted` requested it."""

    def pages_wanted(self) -> Sequence[Read]:
        """Pages of the stream to read, to find gaps that are in no gap log yet."""
        return ()

    def read_pages(self, pages: Sequence[Sequence[StoredEntry]]) -> None:
        """Take the pages, as `pages_wanted` requested them."""

    @abstractmethod
    def settle(self, answer: Answer, now_us: int) -> None:
        """Apply the reply of Redis to the batch taken last."""

    @abstractmethod
    def no_reply(self) -> None:
        """Handle a missing reply: the entries in flight may be in Redis or not."""

    def fail(self, reason: str) -> None:
        """Suspend the queue: Redis refuses this stream alone."""
        self.in_flight = 0
        self.state, self.reason = QueueState.SUSPENDED, reason

    def resume(self) -> None:
        """Try a suspended stream again."""
        if self.state is QueueState.SUSPENDED:
            self.state, self.reason = QueueState.OPEN, ""

    @property
    def has_news(self) -> bool:
        """Whether a reply of Redis left something for the queue's owner to handle."""
        return bool(self._gaps_written)

    def gaps_written(self) -> Sequence[Slot]:
        """Gaps written to the stream since the last call, to be logged."""
        written, self._gaps_written = self._gaps_written, []
        return written

    def snapshot_due(self) -> bool:
        """Whether a gap made the readers' book void, so that a snapshot is due. True once."""
        return False

    def snapshot_tries(self) -> int:
        """How often a misplaced snapshot may be tried again; returned once, then 0."""
        return 0

    # ---- losses --------------------------------------------------------------------------------

    @property
    def acknowledged(self) -> str:
        """The last ID that Redis acknowledged: `confirmed`, or that before a loss which is not
        marked yet. A process that continues from it detects the loss again.
        """
        return self._before_loss or self.confirmed

    def check_end(self, last: str, newest: Edge | None) -> None:
        """Detect a loss from the stream's last ID and newest entry, as they were read."""
        if not self.slots and is_before(last, self.confirmed):
            self._lose(last, newest)

    @property
    def stored_until_us(self) -> int:
        """During the backfill of a loss: messages received until then (our clock) are in Redis;
        0 where that is unknown, or where numbers show it.
        """
        return 0

    @property
    def is_refilled(self) -> bool:
        """Whether a loss is being backfilled; False where numbers show what is missing."""
        return False

    @abstractmethod
    def accept_loss(self) -> None:
        """Continue after a loss that cannot be backfilled, and mark it."""

    @abstractmethod
    def rewind(self, position: int, replay_until: int, oldest_us: int) -> None:
        """Drop all entries: the journal will be read again from `position` on.

        After a loss, what is older than the journal's oldest record (`oldest_us`) is marked.
        """

    @abstractmethod
    def drop_oldest(self, share: int) -> int:
        """Drop the oldest `1/share` of the entries, count and mark them. Returns bytes freed: 0
        where nothing can be dropped.
        """

    def discard(self) -> None:
        """Drop all entries: the journal has them. A loss or a suspension stays."""
        self._clear()

    def drain(self) -> None:
        """Stop waiting for predecessors: the bridge is stopping."""

    def replayed(self) -> None:
        """End the replay: what is put from now on is new."""

    # ---- progress ------------------------------------------------------------------------------

    def oldest_position(self) -> int | None:
        """The journal position of the oldest record that is not settled; None: all are."""
        return min((slot.position for slot in islice(self.slots, OLDEST_SCANNED)), default=None)

    def waits_after(self) -> int | None:
        """The number that the head needs before it; None: the head does not wait for one."""
        return None

    def oldest_waiting_us(self) -> int | None:
        """The exchange's time of the oldest message that is not settled (0: unknown); None: there
        is none, or the stream has no numbers to show it.
        """
        return None

    def settled_until_us(self, received_until_us: int) -> int | None:
        """Up to when the stream in Redis is complete, if everything was received until
        `received_until_us`; None: unknown, or the stream is sequenced.
        """
        return None

    def outage_until_us(self) -> int | None:
        """The end of the last queued outage, in which another bridge may have received messages;
        None: there is none.
        """
        return None

    @property
    def has_begun(self) -> bool:
        """Whether anything of the stream was received, or is known to be in Redis."""
        return bool(self.counters.received or self.slots) or self.confirmed != EMPTY

    @property
    def is_suspended(self) -> bool:
        return self.state is SUSPENDED

    @property
    def is_waiting(self) -> bool:
        return self.state is QueueState.WAITING

    @property
    def is_lost(self) -> bool:
        return self.state is QueueState.LOST

    # ---- shared by both kinds ------------------------------------------------------------------

    def _add(self, slot: Slot) -> None:
        self.bytes += slot.size
        self.slots.append(slot)

    def _add_first(self, slot: Slot) -> None:
        self.bytes += slot.size
        self.slots.appendleft(slot)

    def _insert(self, index: int, slots: Iterable[Slot]) -> None:
        for number, slot in enumerate(slots, index):
            self.bytes += slot.size
            self.slots.insert(number, slot)

    def _drop_first(self) -> Slot:
        slot = self.slots.popleft()
        self.bytes -= slot.size
        return slot

    def _drop_head(self, count: int) -> list[Slot]:
        """Remove `count` slots from the head, and return them."""
        take = self.slots.popleft
        if count == 1:  # the usual case with many streams
            slot = take()
            self.bytes -= slot.size
            return [slot]
        dropped = [take() for _ in range(count)]
        self.bytes -= sum([slot.size for slot in dropped])
        return dropped

    def _replace(self, kept: Iterable[Slot]) -> None:
        self.slots = deque(kept)
        self.bytes = sum(slot.size for slot in self.slots)

    def _clear(self) -> None:
        self.slots.clear()
        self.bytes = self.in_flight = 0
        if self.state in (QueueState.IN_FLIGHT, QueueState.WAITING):
            self.state = QueueState.OPEN

    def _lose(self, last: str, newest: Edge | None) -> None:
        self.in_flight = 0
        self.state, self.lost_last = QueueState.LOST, last
        self._before_loss = self.acknowledged

    def _lose_again(self) -> None:
        """After entries were dropped that may have marked a loss: it is to be detected again."""
        self.confirmed = self.acknowledged

    def _foreign(self, last: str) -> None:
        self.fail(
            f"the last entry ID {last} of {self.name} is beyond 2^53: another program wrote to "
            "this key; rename it in Redis and the stream begins anew"
        )

    def _is_replayed(self, slot: Slot) -> bool:
        """Whether Redis may have the entry from an earlier process."""
        return slot.position < self.replay_until


def is_before(one: str, other: str) -> bool:
    """Whether one entry ID is below another."""
    if len(one) == len(other) and one.find("-") == other.find("-"):
        return one < other  # of the same form, as usual: as text they have the same order
    return EntryId.parse(one) < EntryId.parse(other)


class Owner(Protocol):
    """The owner of queues, which handles the replies of Redis."""

    def redis_answered(self, queue: StreamQueue, now_us: int) -> None:
        """Redis settled or refused entries of a queue."""
        ...


class QueueTable:
    """All queues of one bridge, each with its owner.

    `ready`: the queues with something to send or to read, in the order in which they became so.
    """

    def __init__(self) -> None:
        self._owners: dict[StreamQueue, Owner] = {}
        self.ready: dict[StreamQueue, None] = {}

    def __iter__(self) -> Iterator[StreamQueue]:
        return iter(list(self._owners))

    def add(self, queue: StreamQueue, owner: Owner) -> None:
        """Add a queue, or change its owner."""
        self._owners[queue] = owner

    def owner(self, queue: StreamQueue) -> Owner:
        return self._owners[queue]

    def mark_ready(self, queue: StreamQueue) -> None:
        """Mark that a queue has something to send or to read."""
        self.ready[queue] = None

    def mark_idle(self, queue: StreamQueue) -> None:
        """Mark that a queue has nothing to send."""
        self.ready.pop(queue, None)

    def put_last(self, queue: StreamQueue) -> None:
        """Move a ready queue to the end: queues that did not fit in this batch come first next."""
        if queue in self.ready:
            del self.ready[queue]
            self.ready[queue] = None

    def pending(self) -> int:
        """Entries that wait for Redis, without those of suspended streams."""
        return sum(len(queue.slots) for queue in self._owners if not queue.is_suspended)

    def suspended_entries(self) -> int:
        return sum(len(queue.slots) for queue in self._owners if queue.is_suspended)

    def total_bytes(self) -> int:
        """Memory of all entries, in bytes."""
        return sum([queue.bytes for queue in self._owners])

    def pending_bytes(self) -> int:
        """Memory of the `pending` entries, in bytes; suspended streams have a limit of their
        own.
        """
        return sum(queue.bytes for queue in self._owners if not queue.is_suspended)


class _ReadyByShard(dict[StreamQueue, None]):
    """Marks a queue ready in the table of its shard."""

    def __init__(self, table: "ShardedQueueTable") -> None:
        super().__init__()
        self._table = table

    def __setitem__(self, queue: StreamQueue, mark: None) -> None:
        self._table.part_of(queue).ready[queue] = mark


class ShardedQueueTable(QueueTable):
    """The queues of several shards; `parts`: the table of each shard, one for each outbox."""

    def __init__(self, space: KeySpace) -> None:
        super().__init__()
        self.ready = _ReadyByShard(self)
        self.parts: Sequence[QueueTable] = [QueueTable() for _ in range(space.shards)]
        self._space = space

    def part_of(self, queue: StreamQueue) -> QueueTable:
        """The table of a queue's shard."""
        return self.parts[self._space.shard_of(queue.name)]

    def add(self, queue: StreamQueue, owner: Owner) -> None:
        super().add(queue, owner)
        self.part_of(queue).add(queue, owner)


def queue_table(space: KeySpace) -> QueueTable:
    """A table for all queues of a bridge with this key space."""
    return QueueTable() if space.shards == 1 else ShardedQueueTable(space)


def parts_of(table: QueueTable) -> Sequence[QueueTable]:
    """The table of each shard; with one shard, the table itself."""
    return table.parts if isinstance(table, ShardedQueueTable) else [table]
