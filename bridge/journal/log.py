"""The log of all records: append never fails, a cursor reads it.

Appended lines wait in memory until `flush` writes them to the file. If that fails (disk full,
folder removed or read-only) the log is *broken*: the unwritten lines are its tail, positions
continue as if they were written, and `recover` tries again. A tail that grows too long loses the
oldest public frames first, then account frames, and records of connections last. The first line
that can be written after a loss is a `Missing`.

The position returned for a record may be lower than its final one, never higher: reading from it
finds the record.

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
DROP_SHARE = 10  # the tail's limit divided by this is dropped at once: each time costs a scan
_FRAMES = (b"F", b"B")
_REFETCHED = (b"R", b"A")


@dataclass(slots=True)
class Loss:
    """Frames that were received and are not in the journal: their number and times (µs)."""

    frames: int = 0
    first_us: int = 0
    last_us: int = 0

    def add(self, received_us: int) -> None:
        """Count a frame."""
        self.frames += 1
        self.first_us = self.first_us or received_us
        self.last_us = max(self.last_us, received_us)


class Log:
    """The log. Without a writer it is not opened yet.

    `tail_limit_bytes`: the limit of encoded lines in memory while it cannot be written. `clock_us`:
    the wall clock. `syncs_each_flush`: flushed lines survive a power loss (`fsync: batch`).
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
        self.trouble = trouble  # why nothing can be written now
        self.is_broken = writer is None
        self.loss = Loss()
        # Ranges of positions whose records were dropped.
        self.unwritten_spans: deque[tuple[int, int]] = deque(maxlen=MAX_UNWRITTEN)
        self.tail: list[bytes] = []  # the lines that are not written; the newest ends at `end`
        self.tail_start = self.end
        self.tail_edition = 0  # changes when lines leave the tail
        self.missed = Missed()  # dropped or removed records that no line reports yet
        self._writer = writer
        self._clock_us = clock_us
        self._tail_limit_bytes = tail_limit_bytes
        self._syncs_each_flush = syncs_each_flush
        self._has_vanished = False
        self._state: SegmentState | None = None  # the state when it broke
        self._written = self.end
        self._cursors: WeakSet[Cursor] = WeakSet()
        if writer is None:
            log.error("journal_failed", reason=trouble)

    # ---- writing -------------------------------------------------------------------------------

    def append(self, record: Record) -> int:
        """Add a record. Returns its position, or that of the next one if it is not journaled."""
        position = self.end
        if line := codec.encode(record):
            self.tail.append(line)
            self.end = position + len(line)
        return position

    def append_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[int]:
        """Add frames that were read at once on one connection. Returns the position of each."""
        lines = codec.encode_frames(received_us, connection, bodies)
        self.tail += lines
        *positions, self.end = accumulate(map(len, lines), initial=self.end)
        return positions

    def flush(self) -> None:
        """Write the tail to the file, before anything of it is published."""
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
        """Make flushed lines survive a power loss. Raises OSError. May run in another thread during
        `flush`.
        """
        if self._writer is not None and not self.is_broken:
            self._writer.sync()

    def _sync_or_fail(self) -> None:
        try:
            self.sync()
        except OSError as error:
            self.fail(error)

    def roll(self, state: SegmentState) -> None:
        """Begin a new segment with `state` as its head. Raises OSError if it cannot be made: then
        the present one continues.
        """
        self.flush()
        writer = self._writer
        if self.is_broken or writer is None or writer.written == writer.start:
            return
        writer.begin(writer.written)
        self.append(state)
        self.flush()

    def close(self) -> None:
        """Write the tail and close the files. Lines that cannot be written are lost."""
        self.flush()
        for line in self.tail:
            if _is_frame(line):
                self.loss.add(_received_us(line))
        if self._writer is not None:
            self._writer.close()

    # ---- failure and recovery ------------------------------------------------------------------

    def fail(self, error: OSError) -> None:
        """Mark it as broken: continue in memory until `recover`."""
        reason = error.strerror or str(error)
        log.error("journal_failed", reason=reason)
        self.trouble = f"cannot write the journal: {reason}"
        self.is_broken = True
        self._bound_tail()

    def check(self) -> bool:
        """Whether the files are still in their folder: writing to removed files does not fail."""
        self.flush()
        if self._writer is not None and not self.is_broken and not self._writer.is_in_place():
            log.error("journal_vanished", segment=self._writer.start)
            self._has_vanished = True
            self.unwritten_spans.append((0, self._written))
            self.fail(FileNotFoundError(errno.ENOENT, "its files were removed"))
        return not self._has_vanished

    def lacks(self, spans: Mapping[str, tuple[int, int]]) -> None:
        """Note that records of these streams and intervals were in files that were removed; a line
        reports them when it can be written again.
        """
        for name, (from_us, to_us) in spans.items():
            self.missed.add(name, from_us, to_us)

    def keep_state(self, state: SegmentState) -> None:
        """Keep the state at which it broke, for the head of the segment after a loss: the tail
        follows it. Only the first one is kept.
        """
        self._state = self._state or state

    def recover(self, state: SegmentState | None) -> bool:
        """Try to write the tail. Returns whether it is open again. `state` is kept as in
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
        """Take the writer of a journal that was opened late; the next `recover` writes the tail.
        Returns by how much all positions given so far are raised.
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
        """The checkpoint if it is consistent, at the start of a process, before anything is
        appended. If the journal was longer than it is now, the missing end is reported to cursors,
        and positions continue after it.
        """
        if checkpoint is None:
            return None
        if self._writer is not None and checkpoint.end > self.end:
            self.end = self.tail_start = checkpoint.end
            self.is_broken = True
            self._end_is_gone()
            self.recover(None)  # the connections at the end are unknown
        return checkpoint.believed(self.end)

    def _end_is_gone(self) -> None:
        log.error("journal_end_is_gone", written=self._written, until=self.tail_start)
        self.missed.add(None, self._last_written_us(), self._clock_us())

    def _last_written_us(self) -> int:
        """When the last readable record in the files was received, µs; 0: there is none."""
        cursor = Cursor(self, self.start_before(self._written))
        last_us = 0
        while cursor.position < self._written and (batch := cursor.read(1_000)):
            times = [
                record.received_us
                for position, record in batch
                if position < self._written and not isinstance(record, Missing)
            ]
            last_us = max([last_us, *times])
        return last_us

    def _recover(self, writer: SegmentWriter) -> None:
        """Write the tail: after the written lines or, after a loss, in a new segment. Raises
        OSError and Fatal.
        """
        writer.restore()
        is_new = writer.written == writer.start
        if not self.missed and not is_new and writer.written == self.tail_start:
            writer.write(self.tail)
            self._tail_is_written()
            return
        # After a loss the segment begins where the head just fits before the tail. The tail may be
        # raised for that, never lowered: positions that were given must find its records.
        head = b"".join(self._head())
        floor = writer.start if is_new else self._written
        moved = max(0, floor + len(head) - self.tail_start)
        start = self.tail_start + moved - len(head)
        writer.begin(start)
        writer.write([head, *self.tail])
        for cursor in self._cursors:
            if cursor.position >= self.tail_start:
                cursor.position += moved
            else:  # so that it reads the head, which reports the loss
                cursor.position = min(cursor.position, self._written)
        if self.tail_start > self._written:  # the head is at positions of dropped records
            self.unwritten_spans.append((self._written, self.tail_start))
        self.end += moved
        self.missed.clear()
        self._tail_is_written()

    def _head(self) -> list[bytes]:
        """The lines before the tail in a new segment; their times are not later than the tail's."""
        head = []
        if self._state is not None:
            times = [self._state.received_us, *map(_received_us, self.tail[:1])]
            if since_us := self.missed.since_us():
                times.append(since_us)
            head.append(codec.encode(self._state._replace(received_us=min(times))))
        if self.missed:
            missing = self.missed.record(self._clock_us(), GapCause.NOT_IN_JOURNAL)
            head.append(codec.encode(missing, number=self._written))
        return head

    def _tail_is_written(self) -> None:
        self._written = self.tail_start = self.end
        self.tail = []
        self.tail_edition += 1

    # ---- the tail's limit ----------------------------------------------------------------------

    @property
    def tail_bytes(self) -> int:
        """Size of the encoded lines in memory."""
        return self.end - self.tail_start

    def _bound_tail(self) -> None:
        if (over := self.tail_bytes - self._tail_limit_bytes) <= 0:
            return
        over += self._tail_limit_bytes // DROP_SHARE
        if not self.missed:  # logged once for each failure; `loss` counts
            log.error("journal_tail_overflow", limit_bytes=self._tail_limit_bytes)
        for is_kind in (_is_public, _is_frame, _is_refetched, _is_any):
            indices = self._oldest(is_kind, over)
            over -= sum(len(self.tail[index]) for index in indices)
            self._drop(indices)
            if over <= 0:
                return

    def _oldest(self, is_kind: Callable[[bytes], bool], count: int) -> list[int]:
        """The indices of the oldest lines of a kind, of `count` bytes in all."""
        indices = []
        for index, line in enumerate(self.tail):
            if count <= 0:
                break
            if is_kind(line):
                indices.append(index)
                count -= len(line)
        return indices

    def _drop(self, indices: Sequence[int]) -> None:
        """Drop the lines at these indices; positions of earlier lines are raised."""
        about = {index: _about(self.tail[index]) for index in indices}
        for cursor in self._cursors:
            self._move(cursor, about)
        for stream, received_us in filter(None, about.values()):
            self.missed.add(stream, received_us, received_us)
        for index in indices:
            if _is_frame(self.tail[index]):
                self.loss.add(_received_us(self.tail[index]))
        self.tail_start += sum(len(self.tail[index]) for index in indices)
        self.tail = [line for index, line in enumerate(self.tail) if index not in about]
        self.tail_edition += 1

    def _move(self, cursor: Cursor, about: Mapping[int, tuple[str | None, int] | None]) -> None:
        """Keep a cursor in the tail before the same record, and note dropped records that it had
        not read. A cursor before the tail will read them from `Log.missed`.
        """
        if cursor.position < self.tail_start or cursor.position == self._written:
            return
        following, place = 0, self.tail_start
        while place < cursor.position:
            place += len(self.tail[following])
            following += 1
        for index, loss in about.items():
            if index >= following:
                cursor.position += len(self.tail[index])
                if loss is not None:
                    cursor.missed.add(loss[0], loss[1], loss[1])

    # ---- reading -------------------------------------------------------------------------------

    def cursor(self, position: int, since_us: int = 0) -> Cursor:
        """A cursor from `position` on; its owner knows all that was received before `since_us`."""
        cursor = Cursor(self, position, since_us)
        self._cursors.add(cursor)
        return cursor

    def has(self, position: int) -> bool:
        """Whether the record at a position is in the files."""
        return position < self._written and not any(
            a <= position < b for a, b in self.unwritten_spans
        )

    @property
    def written(self) -> int:
        """The position up to which the files are written."""
        return self._written

    @property
    def segment_start(self) -> int:
        """The start of the segment that is being written; -1: none is."""
        return self._writer.start if self._writer is not None else -1

    @property
    def is_open(self) -> bool:
        """Whether the files are open, writable or not."""
        return self._writer is not None

    @property
    def is_full(self) -> bool:
        """Whether the segment that is being written has reached its size."""
        return self._writer is not None and self._writer.is_full

    def now_us(self) -> int:
        """Our wall clock, µs."""
        return self._clock_us()

    def segments(self) -> list[Segment]:
        """The segments, the oldest first."""
        return list_segments(self._writer.folder) if self._writer is not None else []

    def starts(self) -> list[int]:
        """The start of each segment, the oldest first."""
        return [segment.start for segment in self.segments()]

    def oldest(self) -> int:
        """The position of the oldest record, or of the next one if there is none."""
        return next(iter(self.starts()), self.tail_start)

    def start_before(self, position: int) -> int:
        """Where to begin in order to read from a position with the state before it: at the head of
        its segment. If that was removed, the position itself: the cursor reports it then.
        """
        return max((start for start in self.starts() if start <= position), default=position)

    def time_at(self, position: int) -> int:
        """When the first record from a position on was received, µs; 0: there is none."""
        for _, record in Cursor(self, position).read(100):
            if not isinstance(record, Missing):
                return record.received_us
        return 0


class NullLog:
    """A log that stores nothing, for a bridge without a journal."""

    end = written = tail_bytes = 0
    trouble = ""
    is_broken = False

    def __init__(self) -> None:
        self.loss = Loss()
        self.unwritten_spans: deque[tuple[int, int]] = deque()

    def append(self, record: Record) -> int:
        """Store nothing."""
        return self.end

    def append_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[int]:
        """Store nothing."""
        return [self.end] * len(bodies)

    def flush(self) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def roll(self, state: SegmentState) -> None:
        """Do nothing."""

    def keep_state(self, state: SegmentState) -> None:
        """Do nothing: it is never broken."""

    def recover(self, state: SegmentState) -> bool:
        """Return False: it is never broken."""
        return False

    def check(self) -> bool:
        """Return True: there are no files to miss."""
        return True

    def close(self) -> None:
        """Do nothing."""

    def has(self, position: int) -> bool:
        """Return False: there are no files."""
        return False

    def cursor(self, position: int, since_us: int = 0) -> "NullCursor":
        """A cursor at the end."""
        return NullCursor()

    def starts(self) -> list[int]:
        """Return an empty list: there are no segments."""
        return []

    def oldest(self) -> int:
        """The position of the next record."""
        return self.end

    def start_before(self, position: int) -> int:
        """The position of the next record."""
        return self.end

    def time_at(self, position: int) -> int:
        """Return 0: there is no record."""
        return 0


class NullCursor:
    """The cursor of a `NullLog`, always at the end."""

    position = yielded_to = damaged = 0
    at_end = True

    def read(self, limit: int) -> list[tuple[int, Record]]:
        """Return nothing."""
        return []

    def pass_over(self, until: int, limit: int) -> list[tuple[int, Record]]:
        """Return nothing."""
        return []


# ---- lines of the tail -------------------------------------------------------------------------


def _is_public(line: bytes) -> bool:
    """Whether the line is a frame of a public stream."""
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
    """The stream that misses something without this line (None: any stream), and the line's time of
    receipt (µs); None: nothing is missed.
    """
    record = codec.decode(line[:-1])
    assert record is not None, "the log has encoded it"
    if isinstance(record, Frame):
        envelope = parse(record.body)
        return (envelope.stream, record.received_us) if isinstance(envelope, Data) else None
    if isinstance(record, Suspected):
        return record.stream, record.received_us
    # REST bodies are fetched again and answers are sent again: without them coverage is shorter,
    # never longer.
    return None if _is_refetched(line) else (None, record.received_us)
