"""What waits for one stream, and the one state that its queue is in (pure).

    OPEN       what waits may be sent
    IN_FLIGHT  the first `in_flight` entries were sent, and no reply came yet
    WAITING    Redis refused the head: something must come before it, or be marked as missing
    SUSPENDED  Redis refuses this stream alone (`reason`); the others go on
    LOST       Redis has less than it acknowledged (`lost_last`, its last ID); nothing is sent

    OPEN       take → IN_FLIGHT        fail → SUSPENDED      Redis' last ID went back → LOST
    WAITING    release, due → OPEN     take (to ask) → IN_FLIGHT     fail → SUSPENDED
    IN_FLIGHT  settled → OPEN          refused → WAITING, SUSPENDED or LOST
               no reply → OPEN, or WAITING where it waited before
    SUSPENDED  resume, rewind → OPEN
    LOST       accept_loss, rewind → OPEN, or WAITING where the stream begins anew

There are two kinds of queue. `Sequenced` (trade, depth): the exchange numbers the messages without
gaps, and Redis compares numbers. `Content` (all else): messages are told apart by what they say.
They differ in what they take in, in what an answer of Redis means, and in how a gap is marked;
everything else is here. Bytes are counted in `_add` and `_drop`, nowhere else.
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

OLDEST_SCANNED = 4096  # slots; a queue is nearly in the journal's order

StoredEntry = tuple[str, Mapping[str, str]]


class QueueState(Enum):
    """See the module's table."""

    OPEN = "open"
    IN_FLIGHT = "in flight"
    WAITING = "waiting"
    SUSPENDED = "suspended"
    LOST = "lost"


# As `APPEND` in `entries`: looked at for each batch, and for each queue where memory is.
OPEN, IN_FLIGHT, SUSPENDED = QueueState.OPEN, QueueState.IN_FLIGHT, QueueState.SUSPENDED


class Batch(NamedTuple):
    """What one call of the append script is to append, in order.

    `expected` is the last ID that a batch of CONTENT reasons on ('' for sequenced streams).
    """

    queue: "StreamQueue"
    slots: Sequence[Slot]
    expected: str = ""


class Resume(NamedTuple):
    """Where a stream's queue begins: records before `position` are settled; what the journal has
    before `replay_until` may be in Redis already; `confirmed` is the last ID that Redis
    acknowledged.
    """

    position: int = 0
    replay_until: int = 0
    confirmed: str = EMPTY


class StreamQueue(ABC):
    """One stream's queue towards Redis. Times are by the caller's steady clock, in µs."""

    def __init__(self, stream: Stream, peers: Peers, resume: Resume) -> None:
        self.stream = stream
        self.name = stream.name
        self.kind = "" if stream.is_own else stream.type.value  # of the exchange's streams
        self.slots: deque[Slot] = deque()
        self.bytes = 0
        self.counters = StreamCounters()
        self.gap_causes: Counter[str] = Counter()
        self.state = QueueState.OPEN
        self.in_flight = 0  # slots, from the head
        self.reason = ""  # SUSPENDED: why
        self.lost_last = EMPTY  # LOST: the last ID that Redis has
        self.confirmed = resume.confirmed
        self.position = resume.position  # records before it are settled
        self.replay_until = resume.replay_until
        self._peers = peers
        self._gaps_written: list[Slot] = []

    # ---- what comes in -------------------------------------------------------------------------

    @abstractmethod
    def put(self, slot: Slot) -> None:
        """Add what was received."""

    @abstractmethod
    def put_recovered(self, slots: Sequence[Slot], before: Slot | None = None) -> None:
        """Add what was missing: directly before the slot that waits for it, or by content."""

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
        """Nothing was received from then until then (the exchange's time), and `received_us` (ours)
        is when that ended. Where numbers tell of it, only the cause is of use.
        """

    @abstractmethod
    def set_gap_cause(self, cause: GapCause) -> None:
        """What is missing before the next message is missing for this reason. Where no numbers tell
        of it, `put_outage` does.
        """

    @abstractmethod
    def has_received(self, entry: Entry) -> bool:
        """Did the same message come already, over another connection? Notes that it has now."""

    @abstractmethod
    def forget_received(self) -> None:
        """Nothing can come over a second connection any more."""

    def takes(self, position: int) -> bool:
        """Is what the journal has there still to be put in?"""
        return position >= self.position

    def begin_at(self, position: int) -> None:
        """Records before that are in."""
        self.position = position

    def move_positions(self, by: int) -> None:
        """The journal begins elsewhere: all positions move."""
        self.position += by
        self.replay_until += by
        for slot in self.slots:
            slot.move_by(by)

    def release(self) -> None:
        """Something has changed for what waits: ask Redis again."""

    def unexplained_head(self) -> Slot | None:
        """What Redis has refused though no number told of a gap before it."""
        return None

    def count_repeated(self) -> None:
        """A message came that had come over another connection."""
        self.counters.repeated += 1

    def count_recovered(self) -> None:
        """A gap was closed by what REST says."""
        self.counters.recovered += 1

    def count_gap(self, cause: str) -> None:
        """A gap was written, or found when it was too late to stand at its place."""
        self.counters.gaps += 1
        self.gap_causes[cause] += 1

    # ---- what goes out -------------------------------------------------------------------------

    @abstractmethod
    def take(self, now_us: int, limit: int) -> Batch | None:
        """What is to be sent next; it counts as in flight. None: nothing, now."""

    @abstractmethod
    def due_us(self) -> int | None:
        """When a queue that waits wants to be taken from again; None: not by time alone."""

    @property
    def may_read(self) -> bool:
        """May `tail_wanted` or `pages_wanted` want something?"""
        return False

    def tail_wanted(self, now_us: int) -> TailWanted | None:
        """What must be read of the stream's end before anything can be sent."""
        return None

    def read_tail(self, tail: Tail) -> None:
        """The stream's end, as `tail_wanted` asked for it."""

    def pages_wanted(self) -> Sequence[Read]:
        """Pages that must be read of the stream, to find gaps that are in no gap log yet."""
        return ()

    def read_pages(self, pages: Sequence[Sequence[StoredEntry]]) -> None:
        """The pages, as `pages_wanted` asked for them."""

    @abstractmethod
    def settle(self, answer: Answer, now_us: int) -> None:
        """What Redis said of the batch taken last."""

    @abstractmethod
    def no_reply(self) -> None:
        """No reply came: nothing is known of what is in flight."""

    def fail(self, reason: str) -> None:
        """Redis refuses this stream alone."""
        self.in_flight = 0
        self.state, self.reason = QueueState.SUSPENDED, reason

    def resume(self) -> None:
        """Try a suspended stream again."""
        if self.state is QueueState.SUSPENDED:
            self.state, self.reason = QueueState.OPEN, ""

    @property
    def has_news(self) -> bool:
        """Is there something for its owner to act on, since Redis answered?"""
        return bool(self._gaps_written)

    def gaps_written(self) -> Sequence[Slot]:
        """Gaps that are in the stream since the last call, to be logged."""
        written, self._gaps_written = self._gaps_written, []
        return written

    def snapshot_due(self) -> bool:
        """Did a gap make the readers' book void, so that a new snapshot is wanted? True once."""
        return False

    def snapshot_tries(self) -> int:
        """A snapshot found no place: how often it may be tried again. Not 0 once."""
        return 0

    # ---- losses --------------------------------------------------------------------------------

    def check_end(self, last: str, newest: Edge | None) -> None:
        """The stream's last ID and newest entry were read: is what Redis acknowledged there?"""
        if not self.slots and is_before(last, self.confirmed):
            self._lose(last, newest)

    @property
    def there_until_us(self) -> int:
        """While a loss is made up for: what was received until then (our clock) is there; 0 where
        that is not known or numbers tell it.
        """
        return 0

    @abstractmethod
    def accept_loss(self) -> None:
        """What Redis lost cannot be had again: go on, and mark it."""

    @abstractmethod
    def rewind(self, position: int, replay_until: int, oldest_us: int) -> None:
        """What waits is received again, from the journal's `position` on: forget it here.

        After a loss, what is older than the journal's oldest record (`oldest_us`) is marked.
        """

    @abstractmethod
    def drop_oldest(self, share: int) -> int:
        """Drop the oldest `1/share` of what waits, counted and marked. Returns bytes freed: 0
        where nothing can go.
        """

    def discard(self) -> None:
        """Forget what waits: the journal has it. A loss or a suspension stands."""
        self._clear()

    def drain(self) -> None:
        """The bridge is stopping: wait for nothing any more."""

    def replayed(self) -> None:
        """All that the journal has was received again: what follows is new."""

    # ---- progress ------------------------------------------------------------------------------

    def oldest_position(self) -> int | None:
        """Where the journal has the oldest record that is not settled; None where all is."""
        return min((slot.position for slot in islice(self.slots, OLDEST_SCANNED)), default=None)

    def waits_after(self) -> int | None:
        """The number that the waiting message needs before it; None where nothing waits for one."""
        return None

    def oldest_waiting_us(self) -> int | None:
        """The exchange's time of the oldest message whose number is not settled (0: not known);
        None: there is none, or numbers tell nothing.
        """
        return None

    def settled_until_us(self, received_until_us: int) -> int | None:
        """Up to when everything is in the stream, where everything was received until then; None:
        not known, or numbers tell it better.
        """
        return None

    def outage_until_us(self) -> int | None:
        """When the last interval ended that waits here, in which this bridge received nothing and
        another may have; None: there is none.
        """
        return None

    @property
    def has_begun(self) -> bool:
        """Whether anything of the stream was received, or is in Redis as far as is known."""
        return bool(self.counters.received or self.slots) or self.confirmed != EMPTY

    @property
    def is_suspended(self) -> bool:
        return self.state is SUSPENDED

    @property
    def is_lost(self) -> bool:
        return self.state is QueueState.LOST

    # ---- for both kinds ------------------------------------------------------------------------

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
        """So many, from the head."""
        take = self.slots.popleft
        if count == 1:  # as nearly always where there are many streams
            slot = take()
            self.bytes -= slot.size
            return [slot]
        gone = [take() for _ in range(count)]
        self.bytes -= sum([slot.size for slot in gone])
        return gone

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

    def _foreign(self, last: str) -> None:
        self.fail(
            f"the last entry ID {last} of {self.name} is beyond 2^53: another program wrote to "
            "this key; rename it in Redis and the stream begins anew"
        )

    def _is_replayed(self, slot: Slot) -> bool:
        """May Redis have it from before?"""
        return slot.position < self.replay_until


def is_before(one: str, other: str) -> bool:
    """Is an entry ID below another?"""
    return one != other and EntryId.parse(one) < EntryId.parse(other)


class Owner(Protocol):
    """What has queues, and draws conclusions from what Redis answers."""

    def redis_answered(self, queue: StreamQueue, now_us: int) -> None:
        """Redis has settled or refused something of a queue."""
        ...


class QueueTable:
    """All queues of one bridge, each with its owner, and those that have something to send.

    The outbox takes from `ready` in the order in which messages came.
    """

    def __init__(self) -> None:
        self._owners: dict[StreamQueue, Owner] = {}
        self.ready: dict[StreamQueue, None] = {}

    def __iter__(self) -> Iterator[StreamQueue]:
        return iter(list(self._owners))

    def add(self, queue: StreamQueue, owner: Owner) -> None:
        """From now on it belongs to this owner."""
        self._owners[queue] = owner

    def owner(self, queue: StreamQueue) -> Owner:
        return self._owners[queue]

    def mark_ready(self, queue: StreamQueue) -> None:
        """It has something to send, or to ask."""
        self.ready[queue] = None

    def rest(self, queue: StreamQueue) -> None:
        """It has nothing to send."""
        self.ready.pop(queue, None)

    def put_last(self, queue: StreamQueue) -> None:
        """Those that found no room this time come first the next time."""
        if queue in self.ready:
            del self.ready[queue]
            self.ready[queue] = None

    def pending(self) -> int:
        """Entries that wait for Redis, those of suspended streams left out."""
        return sum(len(queue.slots) for queue in self._owners if not queue.is_suspended)

    def suspended_entries(self) -> int:
        return sum(len(queue.slots) for queue in self._owners if queue.is_suspended)

    def total_bytes(self) -> int:
        """What all entries take in memory."""
        return sum([queue.bytes for queue in self._owners])

    def pending_bytes(self) -> int:
        """What these take in memory; suspended streams are bounded apart."""
        return sum(queue.bytes for queue in self._owners if not queue.is_suspended)


class _ReadyByShard(dict[StreamQueue, None]):
    """What is marked ready is so in the table of its shard."""

    def __init__(self, table: "ShardedQueueTable") -> None:
        super().__init__()
        self._table = table

    def __setitem__(self, queue: StreamQueue, mark: None) -> None:
        self._table.part_of(queue).ready[queue] = mark


class ShardedQueueTable(QueueTable):
    """The queues of several shards; `parts` are those of each, for an outbox each."""

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
    """The table for all queues of a bridge with these keys."""
    return QueueTable() if space.shards == 1 else ShardedQueueTable(space)


def parts_of(table: QueueTable) -> Sequence[QueueTable]:
    """The table of each shard: itself, where there is one."""
    return table.parts if isinstance(table, ShardedQueueTable) else [table]
