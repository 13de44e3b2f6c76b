"""The ingest: passes every received record to the log, then to the core, and bounds memory.

    live       a record is appended to the log and applied to the core at once
    behind     it is only appended; `step` reads it from the log when there is room

An ingest is behind at the start (records of an earlier process are read first) and when more
entries wait for Redis than memory may hold. Streams of which Redis has lost entries, and suspended
ones when they resume, are backfilled: their queues are moved to a core of their own, which reads
the log from where they need it, and moved back when it has reached the end.

Without a journal (for private streams: `journal.private: false`) the log stores nothing: the ingest
is never behind, and drops the oldest entries on overflow.
"""

import asyncio
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from bridge.contract.identity import EMPTY
from bridge.contract.streams import is_private
from bridge.core.again import apply_again, read_at_once
from bridge.core.core import Core
from bridge.core.outcomes import Applied
from bridge.core.queue import QueueTable, StreamQueue
from bridge.core.records import (
    Answered,
    CaughtUp,
    Frame,
    Frames,
    GapLogged,
    Lost,
    Opened,
    Rebased,
    Record,
    SegmentState,
    Started,
    Subscribed,
    Suspected,
)
from bridge.core.wants import BookWanted, Wants
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.cursor import Cursor
from bridge.journal.log import Log, NullCursor, NullLog
from bridge.protocol.envelope import Data, Malformed, Refusal, parse
from bridge.redis.outbox import Change
from bridge.runtime.clock import Clock

log = structlog.get_logger(__name__)

# Divisors of the memory (`buffer_bytes`), except DROP_SHARE.
BOUND_SHARE = 256  # bytes of frames received between two checks of the bounds
DROP_SHARE = 10  # an overflow drops this part of the largest queue at a time
SUSPENDED_SHARE = 16  # the limit of each suspended stream that is not in the journal
BACKFILL_SHARE = 8  # the limit of the streams that are backfilled
ACCOUNT_SHARE = 8  # left by streams in the log to private ones that no log keeps
LOW_SHARE = 2  # the log is read while fewer bytes wait
OCCURRENCES_BYTES = 1024 * 1024  # read before the first unsettled record, to count equal messages

_OF_CONNECTIONS = (Opened, Subscribed, Answered, Suspected, Lost)


class _Connections:
    """The feed's present connections: number → stream → since when it is received (0: not answered
    yet). The core's coverage is that of its position in the log.
    """

    def __init__(self) -> None:
        self.open: dict[int, dict[str, int]] = {}

    def note(self, record: Record) -> None:
        match record:
            case Opened(_, number, _, streams):
                self.open[number] = dict.fromkeys(streams, 0)
            case Subscribed(_, number, streams) if number in self.open:
                known = self.open[number]
                self.open[number] = {name: known.get(name, 0) for name in streams}
            case Answered(_, number, at_us, excluded):
                for name, since_us in self.open.get(number, {}).items():
                    if name not in excluded:
                        self.open[number][name] = since_us or at_us
            case Suspected(_, number, stream):
                if stream in self.open.get(number, {}):
                    self.open[number][stream] = 0
            case Lost(_, number):
                self.open.pop(number, None)
            case Started():
                self.open.clear()

    def has(self, name: str) -> bool:
        """Whether one of them is to receive this stream."""
        return any(name in streams for streams in self.open.values())


@dataclass(slots=True)
class _Backfill:
    """Queues that are backfilled from the log, in a core of their own."""

    core: Core
    cursor: Cursor
    gap_log: StreamQueue | None  # if it is backfilled, too

    def has(self, queue: StreamQueue) -> bool:
        return queue is self.gap_log or queue.name in self.core.queues

    def bytes(self) -> int:
        return sum(queue.bytes for queue in self.core.queues.values())


class Ingest:
    """The ingest of some connections. `requested` is set when there are new `requests`, `to_read`
    while there is something for `step` to do.

    `buffer_bytes`: the memory for entries that wait for Redis, of all ingests together. `target`:
    the Redis and prefix that is published to, for checkpoints; empty: none.
    """

    def __init__(
        self,
        core: Core,
        table: QueueTable,
        journal: Log | NullLog,
        *,
        buffer_bytes: int,
        clock: Clock,
        target: str = "",
    ) -> None:
        self.core = core
        self.log = journal
        self.requested = asyncio.Event()
        self.to_read = asyncio.Event()
        self._table = table
        self._buffer_bytes = buffer_bytes
        left_bytes = 0 if core.takes_private else buffer_bytes // ACCOUNT_SHARE
        self._most_bytes = buffer_bytes - left_bytes
        self._clock = clock
        self._target = target
        self._others: Mapping[str, int] = {}  # other target → the position that it needs
        self._kept: Checkpoint | None = None  # without publishing it is not changed
        self._connections = _Connections()
        self._numbers = itertools.count(1)
        self._cursor: Cursor | NullCursor | None = None  # None: live
        self._backfill: _Backfill | None = None
        self._awaiting: dict[StreamQueue, int] = {}  # queue that awaits a backfill → from where
        self._suspended: dict[StreamQueue, int] = {}  # suspended, detached queue → from where
        self._received_bytes = 0  # in frames, since the bounds were last checked
        self._left_out = False

    # ---- interface of the feed -----------------------------------------------------------------

    def new_connection(self) -> int:
        """A number for a connection, never used before by this process."""
        return next(self._numbers)

    def take(self, record: Record) -> Applied:
        """Log a record, and apply it unless behind. Returns the result; behind, only the stream or
        the refusal of a frame. Raises BadBody for an invalid REST body.
        """
        if isinstance(record, Frame):
            [applied] = self.take_frames(record.received_us, record.connection, [record.body])
            return applied
        if isinstance(record, _OF_CONNECTIONS):
            self._keep_state()
        self._connections.note(record)
        position = self.log.append(record)
        if self._cursor is not None:
            return None
        applied = self.core.apply(record, position, self._clock.now_us())
        self._report_news()
        return applied

    def take_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[Applied]:
        """`take` for frames that were read at once on one connection."""
        if not self.core.takes_private and any(map(_is_private, bodies)):
            return self._take_public(received_us, connection, bodies)
        self._received_bytes += sum(map(len, bodies))
        if self._received_bytes * BOUND_SHARE >= self._buffer_bytes:
            self._received_bytes = 0
            self.bound()  # before they are logged: a new cursor begins at the log's end
        positions = self.log.append_frames(received_us, connection, bodies)
        if self._cursor is not None:
            return [_stream_of(body) for body in bodies]
        frames = Frames(received_us, connection, bodies)
        applied = self.core.apply_frames(frames, positions, self._clock.now_us())
        self._report_news()
        return applied

    def _take_public(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[Applied]:
        """`take_frames` without private messages, which this ingest must not have or log."""
        private = [_is_private(body) for body in bodies]
        public = [body for body, is_out in zip(bodies, private, strict=True) if not is_out]
        self.core.counters.unwanted += sum(private)
        if not self._left_out:
            log.warning("private_message_left_out", connection=connection)
        self._left_out = True
        applied = iter(self.take_frames(received_us, connection, public))
        return [None if is_out else next(applied) for is_out in private]

    def _report_news(self) -> None:
        """Report new requests of the core, and log unknown events."""
        if self.core.pending_requests:
            self.requested.set()
        if self.core.unknown_events.news:
            self._log_unknown_events()

    def _keep_state(self) -> None:
        """Before a record of connections: if the log cannot be written, keep the present state for
        the head of the segment that will begin with the tail.
        """
        self.log.flush()  # to see whether it can be written
        if self.log.is_broken:
            self.log.keep_state(self.state())

    def _log_unknown_events(self) -> None:
        """Log each unknown event name once, and nothing else of the event."""
        for name in self.core.unknown_events.news:
            log.warning("unknown_event", name=name)
        self.core.unknown_events.news.clear()

    def may_close(self, connection: int) -> bool:
        """Whether closing this connection leaves no outage, as far as known. False if behind: the
        core's coverage is of where it reads the log.
        """
        return self._cursor is None and self.core.coverage.may_close(connection)

    def requests(self) -> Sequence[str]:
        """Streams with a new need for REST data; none while behind: the log may recover it."""
        return self.core.requests() if self.is_live else ()

    def wants(self, name: str) -> Wants | None:
        """What is to be fetched over REST for a stream now."""
        if not self.is_live:
            return None
        wants = self.core.wants(name, self._clock.now_us())
        if isinstance(wants, BookWanted) and not self.is_wanted(name):
            return None
        return wants

    def is_wanted(self, name: str) -> bool:
        """Whether one of the feed's present connections is to receive this stream."""
        return self._connections.has(name)

    def received(self, name: str) -> int:
        """The number of messages of a stream received so far."""
        queue = self.core.queues.get(name)
        return queue.counters.received if queue is not None else 0

    # ---- the log -------------------------------------------------------------------------------

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Begin a process, with a core that begins at the checkpoint. Unsettled records of an
        earlier process are read first.
        """
        self.take(Started(self._clock.wall_us()))
        if checkpoint is not None:
            self._others = checkpoint.others
            self._kept = None if self._target else checkpoint
        if isinstance(self.log, NullLog):
            return  # there is nothing to read: it is live from the start
        # Without a checkpoint nothing is settled, not even pruned records: the cursor reports them.
        first = checkpoint.needed_from() if checkpoint is not None else 0
        self._read_from(first if self._target else self.log.end)

    def _read_from(self, position: int) -> None:
        """Read the log from before `position`."""
        self._cursor = self.log.cursor(self._start_before(position))
        self.to_read.set()

    def _start_before(self, position: int) -> int:
        """Where to begin in order to read from `position`: early enough to count equal messages,
        and at the head of a segment, which has the connections.
        """
        oldest = self.log.oldest()
        early = max(oldest, position - OCCURRENCES_BYTES) if position >= oldest else position
        return self.log.start_before(early)

    def rebased(self, by: int, checkpoint: Checkpoint | None) -> None:
        """Raise all positions by `by`: the journal was opened late. Unsettled records of an earlier
        process are not published: newer ones were, since.
        """
        self.core.apply(Rebased(self._clock.wall_us(), by), self.log.end, self._clock.now_us())
        self._awaiting = {queue: at + by for queue, at in self._awaiting.items()}
        self._suspended = {queue: at + by for queue, at in self._suspended.items()}
        if checkpoint is not None:
            self._others = checkpoint.turned_to(self._target).others

    @property
    def is_live(self) -> bool:
        return self._cursor is None

    def behind_bytes(self) -> int:
        """How many bytes of the log are not in the queues yet."""
        return 0 if self._cursor is None else self.log.end - self._cursor.position

    @property
    def damaged(self) -> int:
        """Lines and records of the log that could not be read."""
        cursors = [self._cursor, self._backfill.cursor if self._backfill else None]
        return sum(cursor.damaged for cursor in cursors if cursor is not None)

    def step(self, limit: int) -> bool:
        """Read about `limit` records of the log; False: there is nothing to do now."""
        if self._cursor is not None:
            return self._catch_up(self._cursor, limit)
        if self._backfill is None and self._awaiting:
            self._begin_backfill()
        if self._backfill is not None:
            return self._step_backfill(self._backfill, limit)
        self.to_read.clear()
        return False

    def _catch_up(self, cursor: Cursor | NullCursor, limit: int) -> bool:
        if self._table.pending_bytes() > self._buffer_bytes // LOW_SHARE:
            self.core.wait_no_longer()
            if self._backfill is not None:
                self._end_waits(self._backfill)
            return False
        self._apply_all(self.core, cursor.read(limit))
        self._log_unknown_events()
        if cursor.at_end:
            self._cursor = None
            now_us = self._clock.now_us()
            self.core.apply(CaughtUp(self._clock.wall_us()), self.log.end, now_us)
            self.requested.set()
            log.info("journal_caught_up", damaged_lines=cursor.damaged)
        return True

    def _apply_all(self, core: Core, records: Iterable[tuple[int, Record]]) -> None:
        """Apply records of the log, with their times of receipt by the steady clock, never later
        than now.
        """
        now_us = self._clock.now_us()
        shift_us = now_us - self._clock.wall_us()
        for positions, record in read_at_once(records):
            at_us = min(record.received_us + shift_us, now_us)
            apply_again(core, record, positions, at_us)

    def skip_before(self, until: int, limit: int) -> bool:
        """Skip unread records before `until`, except the account's, so that the log can be pruned.
        Reads at most `limit` records; False: there are more.
        """
        done = True
        for core, cursor in self._cursors():
            if cursor.position < until:
                self._apply_all(core, cursor.pass_over(until, limit))
                done = done and cursor.position >= until
        return done

    def _cursors(self) -> list[tuple[Core, Cursor | NullCursor]]:
        cursors: list[tuple[Core, Cursor | NullCursor]] = []
        if self._backfill is not None:
            cursors.append((self._backfill.core, self._backfill.cursor))
        if self._cursor is not None:
            cursors.append((self.core, self._cursor))
        return cursors

    def log_gaps(self) -> None:
        """Append new records of the gap log to the log, before they are published."""
        for record in self.core.journaled.take():
            self.log.append(GapLogged(self._clock.wall_us(), record.fields()))

    def state(self) -> SegmentState:
        """The head of a new segment: the state needed to begin reading there."""
        coverage = self.core.coverage.state() if self.is_live else {}
        connections = {
            number: dict(streams) for number, streams in self._connections.open.items()
        }  # a copy: it may be written later
        return SegmentState(self._clock.wall_us(), connections, coverage, self.core.sparse())

    # ---- changes in Redis ----------------------------------------------------------------------

    def redis_changed(self, change: Change, queue: StreamQueue) -> None:
        """Handle a change of one of its streams in Redis."""
        match change:
            case Change.LOST:
                self._lost(queue)
            case Change.SUSPENDED:
                self._suspend(queue)
            case Change.RESUMED:
                log.info("stream_resumed", stream=queue.name)
                if (position := self._suspended.pop(queue, None)) is not None:
                    self._await_backfill(queue, position)

    def _await_backfill(self, queue: StreamQueue, position: int) -> None:
        self._awaiting[queue] = position
        self.to_read.set()

    def _lost(self, queue: StreamQueue) -> None:
        """After a loss: backfill from the log; without one, mark the loss."""
        is_kept = self._is_kept(queue)
        log.error(
            "redis_lost_entries",
            stream=queue.name,
            redis_has=queue.lost_last,
            acknowledged=queue.confirmed,
            journal=is_kept,
        )
        if is_kept:
            if queue is not self.core.gap_log:  # the gap log still takes new records
                self._detach(queue)
                queue.discard()  # else its entries could keep the log from being read to its end
            self._suspended.pop(queue, None)
            self._await_backfill(queue, self.log.oldest())
        else:
            queue.accept_loss()
            self._table.mark_ready(queue)

    def _suspend(self, queue: StreamQueue) -> None:
        """Leave a suspended stream to the log, to free its memory."""
        log.error("stream_suspended", stream=queue.name, reason=queue.reason)
        if self._is_backfillable(queue):
            self._detach_suspended(queue)

    def suspend(self, queues: Iterable[StreamQueue], reason: str) -> int:
        """Suspend those of these queues that have entries and that the log has, until Redis accepts
        them again. Returns how many.
        """
        chosen = [
            queue
            for queue in queues
            if queue.slots
            and self._is_backfillable(queue)
            and not (queue.is_lost or queue.is_suspended)
        ]
        for queue in chosen:
            queue.fail(reason)
            self._detach_suspended(queue)
        return len(chosen)

    def waits_for(self, queues: Iterable[StreamQueue]) -> bool:
        """Whether a backfill is paused until Redis takes entries of these queues."""
        backfill = self._backfill
        if backfill is None or not self._is_full(backfill):
            return False
        return any(queue.slots and backfill.has(queue) for queue in queues)

    def _is_backfillable(self, queue: StreamQueue) -> bool:
        return self._is_kept(queue) and queue is not self.core.gap_log

    def _detach_suspended(self, queue: StreamQueue) -> None:
        position = self._awaiting.pop(queue, None)
        self._suspended[queue] = self._settled(queue) if position is None else position
        self._detach(queue)
        queue.discard()

    def _is_kept(self, queue: StreamQueue) -> bool:
        """Whether the stream's records can be read from the log again."""
        is_logged = queue.name in self.core.queues or queue is self.core.gap_log
        return isinstance(self.log, Log) and is_logged

    def _detach(self, queue: StreamQueue) -> None:
        """Detach the queue until a backfill takes it over."""
        self.core.detach([queue.name])
        if self._backfill is not None:
            self._backfill.core.release(queue.name)

    def _begin_backfill(self) -> None:
        """Begin a backfill of all queues that await one, from the first position that they need."""
        awaiting, self._awaiting = self._awaiting, {}
        self.log_gaps()  # first, since a gap log that is rewound reads its records again
        self.log.flush()
        oldest, end = self.log.oldest(), self.log.end
        oldest_us = self.log.time_at(oldest) or self._clock.wall_us()
        for queue, position in awaiting.items():
            queue.rewind(oldest if queue.is_lost else position, end, oldest_us)
            self._table.mark_ready(queue)
        first = min(queue.position for queue in awaiting)
        journal = self.log
        assert isinstance(journal, Log)
        cursor = journal.cursor(self._start_before(first))
        gap_log = self.core.gap_log if self.core.gap_log in awaiting else None
        streams = [queue for queue in awaiting if queue is not gap_log]
        core = self.core.backfill(streams, reads_gap_log=gap_log is not None)
        self._backfill = _Backfill(core, cursor, gap_log)

    def _step_backfill(self, backfill: _Backfill, limit: int) -> bool:
        if self._is_full(backfill):
            self._end_waits(backfill)
            return False
        self._apply_all(backfill.core, backfill.cursor.read(limit))
        if backfill.cursor.at_end:
            self._backfill = None
            self.core.adopt_back(backfill.core, self.log.end, self._clock.now_us())
            if self.core.pending_requests:
                self.requested.set()
            log.info(
                "streams_backfilled",
                streams=len(backfill.core.queues),
                gap_log=backfill.gap_log is not None,
            )
        return True

    def _end_waits(self, backfill: _Backfill) -> None:
        """Where all entries of a backfill wait for missing trades: mark these as gaps, since what
        recovers them can only be read with room.
        """
        if all(queue.is_waiting for queue in backfill.core.queues.values() if queue.slots):
            backfill.core.wait_no_longer()

    def _is_full(self, backfill: _Backfill) -> bool:
        return backfill.bytes() > self._buffer_bytes // BACKFILL_SHARE

    # ---- bounds --------------------------------------------------------------------------------

    def bound(self) -> None:
        """Check the bounds: if memory is exceeded, read from the log later, or drop the oldest."""
        suspended_bytes = self._buffer_bytes // SUSPENDED_SHARE
        if self._table.total_bytes() <= suspended_bytes:
            return  # then no bound can be exceeded
        for queue in self._own_queues():
            while queue.is_suspended and queue.bytes > suspended_bytes:
                if queue.drop_oldest(DROP_SHARE) <= 0:
                    break
        if not self.is_live or self._table.pending_bytes() <= self._most_bytes:
            return
        if isinstance(self.log, NullLog):
            self._overflow(self._most_bytes)
            return
        self.fall_behind()

    def fall_behind(self) -> None:
        """Become behind: new records are read from the log when there is room."""
        self.log.flush()
        self._cursor = self.log.cursor(self.log.end)
        self.to_read.set()
        log.warning("journal_takes_over", pending_bytes=self._table.pending_bytes())

    def _overflow(self, limit_bytes: int) -> None:
        """Drop the oldest entries of the largest queue, public streams first; they are counted and
        marked. A queue that can drop nothing is skipped.
        """
        while self._table.pending_bytes() > limit_bytes:
            queues = [each for each in self._own_queues() if each.slots and not each.is_suspended]
            queues.sort(key=lambda queue: (queue.stream.is_private, -queue.bytes))
            if not any(queue.drop_oldest(DROP_SHARE) > 0 for queue in queues):
                return

    def has(self, queue: StreamQueue) -> bool:
        """Whether the queue belongs to this ingest."""
        return queue in self._own_queues()

    def _own_queues(self) -> list[StreamQueue]:
        return [*self.core.queues.values(), self.core.gap_log, self.core.quarantine]

    # ---- checkpoints ---------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The checkpoint for the next process."""
        if self._kept is not None and self._kept.target:
            return self._kept
        queues = self._own_queues()
        apart = [queue for queue in queues if self._is_apart(queue)]
        settled = [self._settled(queue) for queue in queues if queue not in apart]
        return Checkpoint(
            min(settled, default=self.log.end),
            self._target,
            {queue.name: queue.acknowledged for queue in queues if queue.acknowledged != EMPTY},
            {queue.name: self._settled(queue) for queue in apart},
            dict(self._others),
            self.log.end,
        )

    def _is_apart(self, queue: StreamQueue) -> bool:
        """Whether the queue has a position of its own in the checkpoint."""
        is_backfilled = self._backfill is not None and self._backfill.has(queue)
        is_detached = self.core.is_detached(queue.name) or queue in self._awaiting
        return is_detached or is_backfilled or queue.is_suspended

    def _settled(self, queue: StreamQueue) -> int:
        """The position from which a queue would have to be read again after a crash now."""
        for apart in (self._awaiting, self._suspended):
            if queue in apart:
                return apart[queue]
        position = self.log.end if self._cursor is None else self._cursor.yielded_to
        if self._backfill is not None and self._backfill.has(queue):
            position = min(self.log.end, self._backfill.cursor.yielded_to)
        oldest = queue.oldest_position()
        return position if oldest is None else min(oldest, position)

    def waiting(self) -> Mapping[str, tuple[int, int]]:
        """Each stream with entries that wait for Redis → when they were received (from, to; µs)."""
        return {
            name: (min(times_us), max(times_us))
            for name, queue in self.core.queues.items()
            if (times_us := [slot.entry.received_us for slot in queue.slots])
        }

    def unwritten(self) -> int:
        """How many entries wait for Redis without being in the log's files."""
        return sum(
            not self.log.has(slot.position) for queue in self._own_queues() for slot in queue.slots
        )


def _is_private(body: bytes) -> bool:
    """Whether it is a message of a private stream; a malformed one that names one counts, too."""
    names_one = b"account." in body
    if not (names_one or b"\\u" in body):  # an escape may hide the name
        return False
    match parse(body):
        case Data(stream):
            return is_private(stream)
        case Malformed():
            return names_one
        case _:
            return False


def _stream_of(body: bytes) -> str | Refusal | None:
    match parse(body):
        case Data(stream):
            return stream
        case Refusal() as refusal:
            return refusal
        case _:
            return None


class Ingests:
    """All ingests of one bridge: one, and a second for private streams without a journal."""

    def __init__(self, public: Ingest, private: Ingest) -> None:
        self.public = public
        self.private = private
        self.all: Collection[Ingest] = [public] if public is private else [public, private]

    def of(self, *, is_private: bool) -> Ingest:
        return self.private if is_private else self.public

    def before_publishing(self) -> None:
        """Flush the log: the records of what is published next must be in it."""
        for ingest in self.all:
            ingest.log_gaps()
        self.public.log.flush()

    def redis_changed(self, change: Change, queue: StreamQueue) -> None:
        for ingest in self.all:
            if ingest.has(queue):
                ingest.redis_changed(change, queue)

    def behind_bytes(self) -> int:
        return sum(ingest.behind_bytes() for ingest in self.all)

    def waits_for(self, queues: Sequence[StreamQueue]) -> bool:
        return any(ingest.waits_for(queues) for ingest in self.all)

    def suspend(self, queues: Sequence[StreamQueue], reason: str) -> int:
        return sum(
            ingest.suspend([queue for queue in queues if ingest.has(queue)], reason)
            for ingest in self.all
        )
