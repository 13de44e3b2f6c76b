"""Reads a log from any position to its end, and continues with new records.

For records that cannot be read (damage, files that were pruned or removed, lines dropped from the
tail) it yields one `Missing` in their place. It never yields a line with a wrong checksum nor, in a
segment whose lines have checksums, one without.
"""

from dataclasses import dataclass
from typing import Protocol

import structlog

from bridge.contract.causes import GapCause
from bridge.core.records import Frame, Missing, Record, SegmentState
from bridge.journal import codec
from bridge.journal.missed import Missed
from bridge.journal.segments import MAX_LINE, DamagedSegment, Segment, SegmentReader
from bridge.protocol.envelope import Data, parse

log = structlog.get_logger(__name__)

CHUNK_BYTES = 1024 * 1024

Records = list[tuple[int, Record]]


class Source(Protocol):
    """The source of a cursor: files up to `written`, then the tail's lines in memory, the first of
    them at `tail_start`. Lines between the two were dropped, see `missed`.
    """

    end: int
    tail: list[bytes]
    tail_start: int
    tail_edition: int  # changes when lines leave the tail
    missed: Missed

    @property
    def written(self) -> int: ...
    @property
    def segment_start(self) -> int: ...  # of the segment that is being written
    def segments(self) -> list[Segment]: ...
    def flush(self) -> None: ...
    def check(self) -> bool: ...
    def now_us(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Unread:
    """Records from this position on could not be read, and this is not reported yet."""

    position: int
    is_jump: bool  # no file has them: the next segment may begin with a `Missing` for them


class Cursor:
    """`position`: of the record that is read next. `damaged`: the number of unreadable lines and
    files. `missed`: records that the log dropped before they were read here.

    A `SegmentState` is yielded if it is of use: as the first record (or after a first `Missing`),
    and after a `Missing` of every stream: then it is all that is known of connections.
    """

    def __init__(self, source: Source, position: int, since_us: int = 0) -> None:
        self.position = position
        self.damaged = 0
        self.missed = Missed()
        self._log = source
        self._last_us = since_us  # when the last record read was received
        self._reader: SegmentReader | None = None
        self._segment_end: int | None = None  # None: it is still being written
        self._lines: list[bytes] = []  # read from the file, the next one last
        self._rest = b""  # the incomplete line after them
        self._is_checked = False  # this segment's lines have checksums
        self._tail_index, self._tail_edition = 0, -1
        self._is_fresh = True
        self._unread: _Unread | None = None
        self._state: tuple[int, SegmentState] | None = None
        self._passed = Missed()
        self._passed_from: int | None = None
        self._passed_until = 0
        self._passed_frames = 0

    @property
    def at_end(self) -> bool:
        """Whether everything has been yielded."""
        is_pending = self._unread or self.missed or self._passed_from is not None
        return self.position >= self._log.end and not is_pending

    @property
    def yielded_to(self) -> int:
        """The position before which everything has been yielded, `Missing` records included. A
        checkpoint must not be beyond it.
        """
        pending = (self._unread.position if self._unread else None, self._passed_from)
        return min([self.position, *(position for position in pending if position is not None)])

    def read(self, limit: int) -> Records:
        """The next records with their positions: about `limit`; empty at the end."""
        self._log.flush()
        records: Records = []
        self._report_passed(records)
        seen = 0
        while seen < limit or not records:
            line = self._next_line(records)
            if line is None:
                self._report_unread(records, self._log.now_us(), self.position)
                break
            self._take(line, records)
            seen += 1
        return records

    def pass_over(self, until: int, limit: int) -> Records:
        """Skip ahead to `until` to make room, at most `limit` records in one call. Public frames
        are skipped, and reported by one `Missing` at the end or before the next `read`; other
        records are returned. It is complete when `position` has reached `until`.
        """
        self._log.flush()
        records: Records = []
        for _ in range(limit):
            line = self._next_line(records) if self.position < until else None
            if line is None:
                break
            position = self.position
            self._take(line, records)
            if records and records[-1][0] == position:
                self._pass(position, records)
        if self.position >= until:
            self._report_passed(records)
        return records

    def close(self) -> None:
        """Close the file that is being read."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    # ---- lines ---------------------------------------------------------------------------------

    def _next_line(self, records: Records) -> bytes | None:
        """The line at `position`, which may advance to the next readable one; None at the end."""
        while not self._lines:
            if self.position >= self._log.written:
                return self._next_of_tail(records)
            self._read_file()
        return self._lines.pop()

    def _next_of_tail(self, records: Records) -> bytes | None:
        source = self._log
        if self.position < source.tail_start:
            if source.missed:
                missing = source.missed.record(source.now_us(), GapCause.OVERFLOW)
                self._report_missing(records, self.position, missing, source.tail_start)
            self.position = source.tail_start
            self._tail_edition = -1
        if self.missed:
            missing = self.missed.record(source.now_us(), GapCause.OVERFLOW)
            self._report(records, self.position, missing)
            self.missed.clear()
        if self._tail_edition != source.tail_edition:
            self._find_in_tail()
        if self._tail_index >= len(source.tail):
            return None
        line = source.tail[self._tail_index]
        self._tail_index += 1
        return line[:-1]

    def _find_in_tail(self) -> None:
        place = self._log.tail_start
        self._tail_index, self._tail_edition = 0, self._log.tail_edition
        while place < self.position:
            place += len(self._log.tail[self._tail_index])
            self._tail_index += 1

    def _read_file(self) -> None:
        """Read lines, or advance to where there may be some."""
        if self._reader is not None and self._reader.place != self.position + len(self._rest):
            self.close()  # the last lines read were in the tail, and are in a file by now
        reader = self._reader or self._open()
        if reader is None:
            return
        end = self._end_of(reader)
        try:
            data = reader.read(min(CHUNK_BYTES, end - reader.place)) if reader.place < end else b""
        except (DamagedSegment, OSError) as error:
            self._cannot_read(reader.segment, error)
            data = b""
        if not data:
            self._leave_file(end)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines = lines[::-1]
        if len(self._rest) > MAX_LINE:  # damage: and all of it would be copied at each read
            self._cannot_read(reader.segment, DamagedSegment("a line has no end"))
            self._rest = b""
            self._leave_file(end)

    def _open(self) -> SegmentReader | None:
        """Open the segment with `position`; if there is none, advance to the next one."""
        segments = self._log.segments()
        here = [segment for segment in segments if segment.start <= self.position]
        following = [segment.start for segment in segments if segment.start > self.position]
        if here:
            try:
                self._reader = SegmentReader(here[-1], self.position)
            except FileNotFoundError:
                pass
            except (DamagedSegment, OSError) as error:
                self._cannot_read(here[-1], error)
            else:
                self._segment_end, self._is_checked = None, False
                return self._reader
        self._jump(min([*following, self._log.written]))
        return None

    def _end_of(self, reader: SegmentReader) -> int:
        """The end of this segment: bytes after it are the rest of a failed write."""
        start = reader.segment.start
        if start == self._log.segment_start:
            return self._log.written
        if self._segment_end is None:
            following = [each.start for each in self._log.segments() if each.start > start]
            self._segment_end = min([*following, self._log.written])
        return self._segment_end

    def _leave_file(self, end: int) -> None:
        """Leave a file that has been read to its end; the segment ends at `end`."""
        if self._rest:
            self.damaged += 1
            self._report_unknown(self.position, is_jump=False)
        self._rest = b""
        self.close()
        if self.position < end:
            self._jump(end)

    def _jump(self, position: int) -> None:
        self._report_unknown(self.position, is_jump=True)
        self.position = position

    def _cannot_read(self, segment: Segment, error: Exception) -> None:
        log.error("journal_damaged", segment=segment.path.name, reason=str(error))
        self.damaged += 1
        self._report_unknown(self.position, is_jump=False)

    def _report_unknown(self, position: int, *, is_jump: bool) -> None:
        if self._unread is None:
            self._unread = _Unread(position, is_jump)
        elif not is_jump:
            self._unread = _Unread(self._unread.position, is_jump=False)

    # ---- records -------------------------------------------------------------------------------

    def _take(self, line: bytes, records: Records) -> None:
        """Yield the record of the line at `position`, if any, and advance."""
        position = self.position
        self.position += len(line) + 1
        if self._unread is None and (frame := codec.frame_of(line)) is not None:
            self._is_checked = True
            self._last_us = frame.received_us
            self._is_fresh = False
            records.append((position, frame))  # `_report` inlined, for nearly all lines
            return
        payload = codec.payload_of(line, is_checked=self._is_checked)
        self._is_checked = self._is_checked or payload not in (None, line)
        record = codec.decode_payload(payload) if payload is not None else None
        if payload is None or record is None:
            self.damaged += 1
            self._report_unknown(position, is_jump=False)
        elif isinstance(record, SegmentState):
            self._take_state(position, record, records)
        else:
            self._take_record(position, payload, record, records)

    def _take_state(self, position: int, record: SegmentState, records: Records) -> None:
        if self._unread is not None:
            self._state = position, record  # the `Missing` goes first
        else:
            if self._is_fresh:
                self._report(records, position, record)
            self._last_us = record.received_us

    def _take_record(self, position: int, payload: bytes, record: Record, records: Records) -> None:
        unread = self._unread
        if (
            unread is not None
            and unread.is_jump
            and isinstance(record, Missing)
            and codec.number_of(payload) == unread.position
        ):
            # The log itself dropped these records, and this line has their streams.
            self._unread = None
            is_of_use = self._is_fresh or record.spans is None
            state, self._state = self._state if is_of_use else None, None
            self._report_missing(records, position, record, self.position)
            if state is not None:
                self._report(records, *state)
        else:
            self._report_unread(records, record.received_us, position)
            if isinstance(record, Missing):
                self._report_missing(records, position, record, self.position)
            else:
                self._report(records, position, record)
        if not isinstance(record, Missing):  # a `Missing` was written later than what it reports
            self._last_us = record.received_us

    def _report(self, records: Records, position: int, record: Record) -> None:
        records.append((position, record))
        self._is_fresh = False

    def _report_missing(self, records: Records, position: int, missing: Missing, end: int) -> None:
        """Yield a `Missing` of records at positions before `end`."""
        self._report(records, position, missing._replace(end=end))

    def _report_unread(self, records: Records, until_us: int, end: int) -> None:
        """Yield a `Missing` of every stream for unreadable records, and the state after them."""
        if self._unread is None:
            return
        position, self._unread = self._unread.position, None
        log.error("journal_unreadable", position=position, bytes=self.position - position)
        missing = Missing(
            max(until_us, self._last_us), GapCause.NOT_IN_JOURNAL, None, self._last_us
        )
        self._report_missing(records, position, missing, end)
        if self._state is not None:
            self._report(records, *self._state)
        self._state = None
        self._log.check()

    def _pass(self, position: int, records: Records) -> None:
        """Skip the record yielded last, if it is a public frame."""
        record = records[-1][1]
        if not isinstance(record, Frame) or codec.PRIVATE_STREAM in record.body:
            return
        records.pop()
        envelope = parse(record.body)
        if isinstance(envelope, Data):
            self._passed.add(envelope.stream, record.received_us, record.received_us)
            self._passed_frames += 1
            if self._passed_from is None:
                self._passed_from = position
            self._passed_until = self.position

    def _report_passed(self, records: Records) -> None:
        if self._passed_from is None:
            return
        log.error("journal_overflow", frames=self._passed_frames)
        until_us = max(to_us for _, to_us in self._passed.spans.values())
        missing = self._passed.record(until_us, GapCause.OVERFLOW)
        self._report_missing(records, self._passed_from, missing, self._passed_until)
        self._passed.clear()
        self._passed_from, self._passed_frames = None, 0
