"""The log of everything that happened: append never fails, a cursor reads it again.

What is appended waits in memory until `flush` hands it to the operating system. Where that fails
(disk full, folder removed or read-only) the log is *broken*: what waits is its tail, positions go
on as if it were written, and `recover` tries again. A tail that grows too long loses the oldest
public frames first, account frames after that, what happened to connections last. The first line
that can be written after a loss says what is missing.

A position that was given may turn out lower than where the record stands, never higher: reading
from it finds the record.

    open      ── flush fails, files vanish ──▶  broken
    unopened  ── open_late ──────────────────▶  broken
    broken    ── recover ────────────────────▶  open
"""

import errno
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from weakref import WeakSet

import structlog

from bridge.contract.causes import GapCause
from bridge.core.records import Frame, Missing, Record, SegmentState, Suspected
from bridge.errors import Fatal
from bridge.journal import codec
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.cursor import Cursor
from bridge.journal.missed import Missed
from bridge.journal.segments import Segment, SegmentWriter, list_segments
from bridge.protocol.envelope import Data, parse

log = structlog.get_logger(__name__)

MAX_UNWRITTEN = 1_000
DROP_SHARE = 10  # of the tail's limit, dropped at once: each time costs a look at its beginning
_FRAMES = (b"F", b"B")
_REFETCHED = (b"R", b"A")


@dataclass(slots=True)
class Loss:
    """Frames that were received and are not in the journal: how many, from when to when (µs)."""

    frames: int = 0
    first_us: int = 0
    last_us: int = 0

    def add(self, received_us: int) -> None:
        """One more."""
        self.frames += 1
        self.first_us = self.first_us or received_us
        self.last_us = max(self.last_us, received_us)


class Log:
    """Where records go and are read again. Without a writer it could not be opened yet.

    `tail_limit_bytes`: how much may wait in memory while it cannot be written, as encoded.
    `clock_us` is the wall clock. `syncs_each_flush`: what was flushed survives a power loss
    (`fsync: batch`).
    """

    def __init__(
        self,
        writer: SegmentWriter | None,
        *,
        tail_limit_bytes: int,
        clock_us: Callable[[], int],
        syncs_each_flush: bool = False,
        trouble: str = "",
    ) -> None:
        self.end = writer.end if writer is not None else 0  # the position of the next record
        self.trouble = trouble  # why nothing can be written just now
        self.is_broken = writer is None
        self.loss = Loss()
        # From where to where something is missing, of what was given positions and dropped since.
        self.unwritten_spans: deque[tuple[int, int]] = deque(maxlen=MAX_UNWRITTEN)
        self.tail: list[bytes] = []  # the lines that are not written; the newest ends at `end`
        self.tail_start = self.end
        self.tail_edition = 0  # changes when lines leave the tail
        self.missed = Missed()  # what is dropped, or gone, and no line says so yet
        self._writer = writer
        self._clock_us = clock_us
        self._tail_limit_bytes = tail_limit_bytes
        self._syncs_each_flush = syncs_each_flush
        self._has_vanished = False
        self._state: SegmentState | None = None  # what was known when it broke
        self._written = self.end
        self._cursors: WeakSet[Cursor] = WeakSet()
        if writer is None:
            log.error("journal_failed", reason=trouble)

    # ---- writing -------------------------------------------------------------------------------

    def append(self, record: Record) -> int:
        """Add a record. Returns its position, or that of the next where it is not journaled."""
        position = self.end
        if line := codec.encode(record):
            self.tail.append(line)
            self.end = position + len(line)
        return position

    def append_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[int]:
        """Add frames that came together on one connection. Returns the position of each."""
        lines = codec.encode_frames(received_us, connection, bodies)
        self.tail += lines
        *positions, self.end = accumulate(map(len, lines), initial=self.end)
        return positions

    def flush(self) -> None:
        """Hand what waits to the operating system, before anything of it is published."""
        if not self.tail:
            return
        writer = self._writer
        if self.is_broken or writer is None:
            self._bound_tail()
            return
        try:
            writer.write(self.tail)
        except OSError as error:
            self.fail(error)
            return
        self._tail_is_written()
        if self._syncs_each_flush:
            self._sync_or_fail()

    def sync(self) -> None:
        """Make what was flushed survive a power loss. Raises OSError. May run beside `flush` in
        another thread.
        """
        if self._writer is not None and not self.is_broken:
            self._writer.sync()

    def _sync_or_fail(self) -> None:
        try:
            self.sync()
        except OSError as error:
            self.fail(error)

    def roll(self, state: SegmentState) -> None:
        """Begin a new segment, which `state` is the head of. Raises OSError where it cannot be
        made: then the present one goes on.
        """
        self.flush()
        writer = self._writer
        if self.is_broken or writer is None or writer.written == writer.start:
            return
        writer.begin(writer.written)
        self.append(state)
        self.flush()

    def close(self) -> None:
        """Write what is left and close the files. What cannot be written is lost."""
        self.flush()
        for line in self.tail:
            if _is_frame(line):
                self.loss.add(_received_us(line))
        if self._writer is not None:
            self._writer.close()

    # ---- failure and recovery ------------------------------------------------------------------

    def fail(self, error: OSError) -> None:
        """It cannot be written: go on in memory until `recover`."""
        told = error.strerror or str(error)
        log.error("journal_failed", reason=told)
        self.trouble = f"cannot write the journal: {told}"
        self.is_broken = True
        self._bound_tail()

    def check(self) -> bool:
        """Are the files still where a reader looks for them? Writing does not tell."""
        self.flush()
        if self._writer is not None and not self.is_broken and not self._writer.is_in_place():
            log.error("journal_vanished", segment=self._writer.start)
            self._has_vanished = True
            self.unwritten_spans.append((0, self._written))
            self.fail(FileNotFoundError(errno.ENOENT, "its files are gone"))
        return not self._has_vanished

    def lacks(self, spans: Mapping[str, tuple[int, int]]) -> None:
        """What came of these streams from then until then was in files that are gone: to be told
        when it can be written again.
        """
        for name, (from_us, to_us) in spans.items():
            self.missed.add(name, from_us, to_us)

    def keep_state(self, state: SegmentState) -> None:
        """It is broken: this is for the head of a segment that begins behind a loss, since what
        waits follows it. The first counts.
        """
        self._state = self._state or state

    def recover(self, state: SegmentState | None) -> bool:
        """Try whether it can be written again; what waits is written then. `state` is kept as in
        `keep_state`.
        """
        if not self.is_broken:
            return False
        if state is not None:
            self.keep_state(state)
        if self._writer is None:
            return False
        try:
            self._recover(self._writer)
        except (OSError, Fatal):
            return False
        self.trouble, self.is_broken = "", False
        self._has_vanished, self._state = False, None
        if self._syncs_each_flush:
            self._sync_or_fail()
        if not self.is_broken:
            log.info("journal_recovered")
        return not self.is_broken

    def open_late(self, writer: SegmentWriter, checkpoint: Checkpoint | None = None) -> int:
        """The journal could be opened at last, and is written with the next `recover`. Returns by
        how much all positions given so far move up.
        """
        by = max(writer.end, checkpoint.end if checkpoint is not None else 0)
        self._writer, self._written = writer, writer.end
        self.end += by
        self.tail_start += by
        self.unwritten_spans = deque(
            ((a + by, b + by) for a, b in self.unwritten_spans), maxlen=MAX_UNWRITTEN
        )
        for cursor in self._cursors:
            cursor.position += by
        if by > writer.end:
            self._end_is_gone()
        return by

    def trusted(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """The checkpoint at the start of a process, where it can be true. Where the journal has
        been longer than it is, what is gone is told to cursors, now and ever after, and positions
        go on behind it. Call it before anything is appended.
        """
        if checkpoint is None:
            return None
        if self._writer is not None and checkpoint.end > self.end:
            self.end = self.tail_start = checkpoint.end
            self.is_broken = True
            self._end_is_gone()
            self.recover(None)  # which connections there were at the end is not known
        return checkpoint.believed(self.end)

    def _end_is_gone(self) -> None:
        log.error("journal_end_is_gone", written=self._written, until=self.tail_start)
        self.missed.add(None, self._last_written_us(), self._clock_us())

    def _last_written_us(self) -> int:
        """When the last record came that can be read from the files, µs; 0: there is none."""
        cursor = Cursor(self, self.start_before(self._written))
        last_us = 0
        while cursor.position < self._written and (found := cursor.read(1_000)):
            times = [
                record.received_us
                for position, record in found
                if position < self._written and not isinstance(record, Missing)
            ]
            last_us = max([last_us, *times])
        return last_us

    def _recover(self, writer: SegmentWriter) -> None:
        """Write the tail: behind what is written or, after a loss, in a segment of its own. Raises
        OSError and Fatal.
        """
        writer.restore()
        is_new = writer.written == writer.start
        if not self.missed and not is_new and writer.written == self.tail_start:
            writer.write(self.tail)
            self._tail_is_written()
            return
        # Behind a loss the segment begins where the head just fits before the tail. What is left of
        # the tail may move up for that, never down: positions that were given must find it.
        head = b"".join(self._head())
        floor = writer.start if is_new else self._written
        moved = max(0, floor + len(head) - self.tail_start)
        start = self.tail_start + moved - len(head)
        writer.begin(start)
        writer.write([head, *self.tail])
        for cursor in self._cursors:
            if cursor.position >= self.tail_start:
                cursor.position += moved
            else:  # it reads what the head says is missing
                cursor.position = min(cursor.position, self._written)
        if self.tail_start > self._written:  # the head stands where dropped records had positions
            self.unwritten_spans.append((self._written, self.tail_start))
        self.end += moved
        self.missed.clear()
        self._tail_is_written()

    def _head(self) -> list[bytes]:
        """The lines before the tail in a segment of its own: not later than what follows them."""
        head = []
        if self._state is not None:
            times = [self._state.received_us, *map(_received_us, self.tail[:1])]
            if since_us := self.missed.since_us():
                times.append(since_us)
            head.append(codec.encode(self._state._replace(received_us=min(times))))
        if self.missed:
            told = self.missed.record(self._clock_us(), GapCause.NOT_IN_JOURNAL)
            head.append(codec.encode(told, number=self._written))
        return head

    def _tail_is_written(self) -> None:
        self._written = self.tail_start = self.end
        self.tail = []
        self.tail_edition += 1

    # ---- the tail's limit ----------------------------------------------------------------------

    @property
    def tail_bytes(self) -> int:
        """How much waits in memory, as encoded."""
        return self.end - self.tail_start

    def _bound_tail(self) -> None:
        if (over := self.tail_bytes - self._tail_limit_bytes) <= 0:
            return
        over += self._tail_limit_bytes // DROP_SHARE
        if not self.missed:  # said once for each failure; `loss` counts
            log.error("journal_tail_overflow", limit_bytes=self._tail_limit_bytes)
        for is_going in (_is_public, _is_frame, _is_refetched, _is_any):
            going = self._oldest(is_going, over)
            over -= sum(len(self.tail[index]) for index in going)
            self._drop(going)
            if over <= 0:
                return

    def _oldest(self, is_going: Callable[[bytes], bool], count: int) -> list[int]:
        """Where the oldest lines of a kind stand, of so many bytes."""
        found = []
        for index, line in enumerate(self.tail):
            if count <= 0:
                break
            if is_going(line):
                found.append(index)
                count -= len(line)
        return found

    def _drop(self, going: Sequence[int]) -> None:
        """Drop these lines; what is before them moves up."""
        about = {index: _about(self.tail[index]) for index in going}
        for cursor in self._cursors:
            self._move(cursor, about)
        for stream, received_us in filter(None, about.values()):
            self.missed.add(stream, received_us, received_us)
        for index in going:
            if _is_frame(self.tail[index]):
                self.loss.add(_received_us(self.tail[index]))
        self.tail_start += sum(len(self.tail[index]) for index in going)
        self.tail = [line for index, line in enumerate(self.tail) if index not in about]
        self.tail_edition += 1

    def _move(self, cursor: Cursor, about: Mapping[int, tuple[str | None, int] | None]) -> None:
        """A cursor in the tail stays before the same record, and owes what it had not read. One
        before the tail reads of it in `missed`.
        """
        if cursor.position < self.tail_start or cursor.position == self._written:
            return
        following, place = 0, self.tail_start
        while place < cursor.position:
            place += len(self.tail[following])
            following += 1
        for index, told in about.items():
            if index >= following:
                cursor.position += len(self.tail[index])
                if told is not None:
                    cursor.missed.add(told[0], told[1], told[1])

    # ---- reading -------------------------------------------------------------------------------

    def cursor(self, position: int, since_us: int = 0) -> Cursor:
        """Reads from there on; all that came before `since_us` (µs) is known to its owner."""
        cursor = Cursor(self, position, since_us)
        self._cursors.add(cursor)
        return cursor

    def has(self, position: int) -> bool:
        """Is the record at a position in the files?"""
        return position < self._written and not any(
            a <= position < b for a, b in self.unwritten_spans
        )

    @property
    def written(self) -> int:
        """Up to where files can be read."""
        return self._written

    @property
    def segment_start(self) -> int:
        """Where the segment begins that is written now; -1: none is."""
        return self._writer.start if self._writer is not None else -1

    @property
    def is_open(self) -> bool:
        """Are there files, be they writable just now or not?"""
        return self._writer is not None

    @property
    def is_full(self) -> bool:
        """Has the segment that is written reached its size?"""
        return self._writer is not None and self._writer.is_full

    def now_us(self) -> int:
        """This side's wall clock, µs."""
        return self._clock_us()

    def segments(self) -> list[Segment]:
        """The files there are, the oldest first."""
        return list_segments(self._writer.folder) if self._writer is not None else []

    def starts(self) -> list[int]:
        """Where each segment begins, the oldest first."""
        return [segment.start for segment in self.segments()]

    def oldest(self) -> int:
        """The position of the oldest record there is, or of the next where there is none."""
        return next(iter(self.starts()), self.tail_start)

    def start_before(self, position: int) -> int:
        """Where to begin in order to read what is at a position, with all that must be known: at
        the head of its segment. The position itself, where that is gone: the cursor tells it then.
        """
        return max((start for start in self.starts() if start <= position), default=position)

    def time_at(self, position: int) -> int:
        """When the first record from there on came, µs; 0: there is none."""
        for _, record in Cursor(self, position).read(100):
            if not isinstance(record, Missing):
                return record.received_us
        return 0


class NullLog:
    """A log that keeps nothing: all that is read from it is its end."""

    end = written = tail_bytes = 0
    trouble = ""
    is_broken = False

    def __init__(self) -> None:
        self.loss = Loss()
        self.unwritten_spans: deque[tuple[int, int]] = deque()

    def append(self, record: Record) -> int:
        """Keep nothing."""
        return self.end

    def append_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[int]:
        """Keep nothing."""
        return [self.end] * len(bodies)

    def flush(self) -> None:
        """Nothing waits."""

    def sync(self) -> None:
        """Nothing is written."""

    def roll(self, state: SegmentState) -> None:
        """There are no segments."""

    def keep_state(self, state: SegmentState) -> None:
        """It is never broken."""

    def recover(self, state: SegmentState) -> bool:
        """It is never broken."""
        return False

    def check(self) -> bool:
        """There are no files that could be gone."""
        return True

    def close(self) -> None:
        """Nothing is open."""

    def has(self, position: int) -> bool:
        """There are no files."""
        return False

    def cursor(self, position: int, since_us: int = 0) -> "NullCursor":
        """One that is at the end."""
        return NullCursor()

    def starts(self) -> list[int]:
        """There are no segments."""
        return []

    def oldest(self) -> int:
        """The position of the next record."""
        return self.end

    def start_before(self, position: int) -> int:
        """The position of the next record."""
        return self.end

    def time_at(self, position: int) -> int:
        """There is no record."""
        return 0


class NullCursor:
    """Reads a log that keeps nothing."""

    position = yielded_to = damaged = 0
    at_end = True

    def read(self, limit: int) -> list[tuple[int, Record]]:
        """Nothing."""
        return []

    def pass_over(self, until: int, limit: int) -> list[tuple[int, Record]]:
        """Nothing."""
        return []


# ---- lines of the tail -------------------------------------------------------------------------


def _is_public(line: bytes) -> bool:
    """Is it a frame of a public stream?"""
    return codec.letter_of(line) == b"F" and codec.PRIVATE_STREAM not in line


def _is_frame(line: bytes) -> bool:
    return codec.letter_of(line) in _FRAMES


def _is_refetched(line: bytes) -> bool:
    return codec.letter_of(line) in _REFETCHED


def _is_any(_: bytes) -> bool:
    return True


def _received_us(line: bytes) -> int:
    return int(line[codec.CHECKSUM_BYTES :].partition(b" ")[0])


def _about(line: bytes) -> tuple[str | None, int] | None:
    """Of which stream something is missing without this line (None: perhaps of every stream), and
    when that came; None where nothing is.
    """
    record = codec.decode(line[:-1])
    assert record is not None, "the log has encoded it"
    if isinstance(record, Frame):
        envelope = parse(record.body)
        return (envelope.stream, record.received_us) if isinstance(envelope, Data) else None
    if isinstance(record, Suspected):
        return record.stream, record.received_us
    # Replies are asked for again and answers come again: without them less is claimed, not more.
    return None if _is_refetched(line) else (None, record.received_us)
