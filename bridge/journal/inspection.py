"""Reads a journal's files without a bridge: summary, verification, records, export as NDJSON.

A path is a journal's folder or one segment's file. The bridge that writes it may be running.
"""

import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from bridge.contract.json_text import parsed
from bridge.contract.moments import moment
from bridge.core.records import Frame, Missing, Record
from bridge.errors import ConfigError
from bridge.journal import codec
from bridge.journal.checkpoint import NAME as CHECKPOINT
from bridge.journal.checkpoint import read_checkpoint
from bridge.journal.cursor import Cursor
from bridge.journal.missed import Missed
from bridge.journal.segments import (
    MAX_LINE,
    PACKED,
    PLAIN,
    DamagedSegment,
    Segment,
    SegmentReader,
    list_segments,
)

FLUSHED_S = 0.2  # longer than a bridge takes to flush (maintenance.FLUSH_EVERY_S)
READ_BYTES = 1024 * 1024
STEP_RECORDS = 500
NO_FRAME = b"\n"  # a mark that no line contains, so that no frame is chosen
_FRAME = codec.name_of("F")
_FRAME_AT = slice(25, 28)  # the place of the kind in a frame's line: after checksum and time


NO_STREAM = "(no stream)"

_tuple = tuple.__new__  # faster than `Line(…)`, a Python function around it


class Line(NamedTuple):
    """A line of a journal, from `position` to `end`. `record` None: it cannot be read, and further
    fields have no meaning.
    """

    position: int
    end: int
    received_us: int = 0
    kind: str = ""
    number: int = 0  # the connection's; 0: none
    body: bytes = b""
    record: Record | None = None


@dataclass(slots=True)
class Summary:
    """The summary of a journal. `damage`: a sentence for each fault; `unwritten`: a text for each
    interval with records that could not be written.
    """

    segments: int = 0
    disk_bytes: int = 0
    bytes: int = 0
    first_us: int = 0
    last_us: int = 0
    records: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    settled: int | None = None  # the checkpoint's offset


@dataclass(slots=True)
class Damage:
    """The number of lines and files that could not be read."""

    lines: int = 0


# ---- files -------------------------------------------------------------------------------------


def segments_of(path: Path) -> list[Segment]:
    """The segments at a path, oldest first. Raises ConfigError if there are none, or if they may
    not be read.
    """
    try:
        if path.is_dir():
            os.listdir(path)  # raises if it may not be read: `glob` would return nothing
            segments = list_segments(path)
        elif path.name.endswith((PLAIN, PACKED)) and path.is_file():
            digits = path.name.partition(".")[0]
            is_offset = digits.isascii() and digits.isdecimal()
            segments = [Segment(int(digits) if is_offset else 0, path)]
        else:
            segments = []
    except OSError as error:
        raise _unreadable(path, error) from None
    if not segments:
        raise ConfigError(
            f"{path} holds no journal: give a journal's folder (journal.dir), or one of its files "
            f"(…{PLAIN} or …{PACKED})"
        )
    return segments


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({error.strerror or error}): only the user that the bridge runs as "
        "may read its journal"
    )


def segments_between(path: Path, from_us: int, to_us: int) -> list[Segment]:
    """The segments that may have records received in this interval. Raises as `segments_of`."""
    segments = segments_of(path)
    begins_us = [next((line.received_us for line in lines_of(each)), 0) for each in segments]
    ends_us = [*begins_us[1:], to_us]
    return [
        segment
        for segment, first_us, last_us in zip(segments, begins_us, ends_us, strict=True)
        if first_us <= to_us and last_us >= from_us
    ]


def lines_of(segment: Segment, mark: bytes = b"") -> Iterator[Line]:
    """Every whole line, except frames that do not contain `mark`; none if the file was removed."""
    is_checked = False
    for position, line in _raw_lines(segment):
        if mark not in line and line[_FRAME_AT] == b" F ":
            continue
        payload = codec.payload_of(line, is_checked=is_checked)
        is_checked = is_checked or payload not in (None, line)
        record = codec.decode_payload(payload) if payload is not None else None
        end = _line_end(segment, position, line)
        if payload is None or record is None:
            yield Line(position, end)
            continue
        if isinstance(record, Frame) and line[_FRAME_AT] == b" F ":
            at_us, connection, frame = record
            yield _tuple(Line, (position, end, at_us, _FRAME, connection, frame, record))
            continue
        _, letter, number, body = payload.split(b" ", 3)
        kind = codec.name_of(letter.decode())
        if letter == b"B" and isinstance(record, Frame):
            body = record.body
        yield Line(position, end, record.received_us, kind, int(number), body, record)


def _line_end(segment: Segment, place: int, line: bytes) -> int:
    """The position after a whole line; that of the damage for the empty last line of a compressed
    segment, see `_raw_lines`.
    """
    return place + len(line) + 1 if line or not segment.is_packed else place


def _raw_lines(segment: Segment) -> Iterator[tuple[int, bytes]]:
    """The position and text of each whole line. A damaged compressed segment ends with an empty
    line, which is no record; so does a segment with a line that is too long.
    """
    place, rest = segment.start, b""
    try:
        reader = SegmentReader(segment, segment.start)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(segment.path, error) from None
    try:
        while chunk := reader.read(READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield place, line
                place += len(line) + 1
            if len(rest) > MAX_LINE:
                yield place, b""
                return
    except DamagedSegment:
        yield place, b""
    except OSError as error:
        raise _unreadable(segment.path, error) from None
    finally:
        reader.close()


# ---- records, for a replay ---------------------------------------------------------------------


class _Files:
    """Segments as the source of a cursor, without a tail."""

    def __init__(self, segments: list[Segment]) -> None:
        self.tail: list[bytes] = []
        self.tail_edition = 0
        self.missed = Missed()
        self.segment_start = segments[-1].start
        self._segments = segments
        self.end = self.written = self.tail_start = _end_of(segments[-1])
        self.is_cut = _is_cut(segments[-1])

    def segments(self) -> list[Segment]:
        return self._segments

    def flush(self) -> None:
        """Do nothing."""

    def check(self) -> bool:
        return True

    def now_us(self) -> int:
        return 0  # so that a loss at the end lasts until the last record


def _end_of(segment: Segment) -> int:
    ends = (_line_end(segment, place, line) for place, line in _raw_lines(segment))
    return max(ends, default=segment.start)


def _is_cut(segment: Segment) -> bool:
    """Whether the last segment is damaged, so that its end is unknown; no later one shows it."""
    if not segment.is_packed:
        return False  # it is being written, or it is the last one written
    ends = deque(_raw_lines(segment), maxlen=1)
    return any(not line for _, line in ends)


_record_of = itemgetter(1)  # the record of a pair with its position


def records(
    path: Path,
    from_us: int = 0,
    to_us: int | None = None,
    damage: Damage | None = None,
) -> Iterator[Record]:
    """The records at a path, in order; frames only from `from_us` until `to_us` (time of receipt).
    A `Missing` replaces damaged records.

    Other records than frames are included from any time, up to the last record before `to_us`: they
    describe the connections. Times need not rise: a clock may have been set. Raises ConfigError if
    a file may not be read.
    """
    segments = segments_of(path)
    end = None if to_us is None else _end_before(segments, to_us)
    files = _Files(segments)
    cursor = Cursor(files, segments[0].start)
    is_all = from_us <= 0 and to_us is None
    while batch := cursor.read(STEP_RECORDS):
        if is_all:
            yield from map(_record_of, batch)
            continue
        for position, record in batch:
            if end is not None and position >= end:
                break
            is_late = to_us is not None and record.received_us >= to_us
            if not isinstance(record, Frame) or (record.received_us >= from_us and not is_late):
                yield record
    if damage is not None:
        damage.lines = cursor.damaged + files.is_cut
    cursor.close()


def _end_before(segments: list[Segment], to_us: int) -> int:
    """The position just after the start of the last record received before `to_us`."""
    times = ((line.position, line.received_us) for each in segments for line in lines_of(each))
    return max((position + 1 for position, us in times if us and us < to_us), default=0)


# ---- verification ------------------------------------------------------------------------------


def summarise(path: Path) -> Summary:
    """Read everything once, and return a summary. The bridge that writes it may be running: it may
    compress segments, or remove the oldest, while they are read.
    """
    summary = Summary()
    is_folder = path.is_dir()
    checkpoint = read_checkpoint(path) if is_folder else None  # first: segments may only be newer
    if is_folder and checkpoint is None and (path / CHECKPOINT).exists():
        summary.damage.append(f"{CHECKPOINT} cannot be read, or makes no sense")
    segments = segments_of(path)
    expected: int | None = segments[0].start
    end = 0
    for segment in segments:
        size = _disk_bytes(segment)
        if size is None:
            expected = None  # it has just been pruned
            continue
        expected = end = _summarise_segment(segment, expected, summary)
        if end == segment.start and _disk_bytes(segment) is None:
            expected = None  # it was pruned while it was read
            continue
        summary.segments += 1
        summary.disk_bytes += size
        summary.bytes += end - segment.start
    if checkpoint is not None:
        summary.settled = checkpoint.offset
        needed = max(checkpoint.offset, checkpoint.end)
        if needed > end and needed > _end_soon(path):
            summary.damage.append(f"the checkpoint has {needed}, beyond the journal's end {end}")
    return summary


def _disk_bytes(segment: Segment) -> int | None:
    """Its size on the disk, compressed meanwhile or not; None: it was removed."""
    for path in (segment.path, segment.path.with_name(segment.path.name + ".zst")):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(path, error) from None
    return None


def _end_soon(folder: Path) -> int:
    """The journal's end after a running bridge has flushed."""
    time.sleep(FLUSHED_S)
    return _end_of(list_segments(folder)[-1])


def _summarise_segment(segment: Segment, expected: int | None, summary: Summary) -> int:
    """Count the segment's lines. Returns its end."""
    name, end = segment.path.name, segment.start
    is_apart = expected not in (None, segment.start)
    for line in lines_of(segment):
        end = line.end
        if line.record is None:
            summary.damage.append(f"{name}: no record at offset {line.position}")
            continue
        # The log reports records that it could not write in a line after the segment's head.
        if is_apart and line.kind != "state":
            is_apart = False
            if not (isinstance(line.record, Missing) and line.number == expected):
                summary.damage.append(_apart(segment, expected))
        _count(line, summary)
    if is_apart:
        summary.damage.append(_apart(segment, expected))
    return end


def _apart(segment: Segment, expected: int | None) -> str:
    return f"{segment.path.name} begins at {segment.start}, the one before it ends at {expected}"


def _count(line: Line, summary: Summary) -> None:
    summary.records[line.kind] += 1
    summary.first_us = summary.first_us or line.received_us
    summary.last_us = max(summary.last_us, line.received_us)
    if isinstance(line.record, Missing):
        summary.unwritten.append(_unwritten(line.record))
    elif line.kind == "frame":
        summary.streams[_stream_of(line.body)] += 1


def _stream_of(body: bytes) -> str:
    """The stream that a frame names; NO_STREAM: an error frame, or an invalid one."""
    # the exchange writes the stream's name last
    _, found, name = body.rpartition(b'"stream":"')
    if found:
        return name.partition(b'"')[0].decode(errors="replace")
    try:
        stream = parsed(body)["stream"]
    except (ValueError, TypeError, KeyError):
        return NO_STREAM
    return stream if isinstance(stream, str) else NO_STREAM


def _unwritten(record: Missing) -> str:
    if record.spans is None:
        since = utc(record.from_us) if record.from_us else "the beginning"
        return f"{since} – {utc(record.received_us)}: perhaps every stream"
    first_us = min((from_us for from_us, _ in record.spans.values()), default=record.received_us)
    last_us = max((to_us for _, to_us in record.spans.values()), default=record.received_us)
    return f"{utc(first_us)} – {utc(last_us)}: {', '.join(sorted(record.spans))}"


# ---- export ------------------------------------------------------------------------------------


def exported(
    path: Path, from_us: int = 0, to_us: int | None = None, damage: Damage | None = None
) -> Iterator[bytes]:
    """The lines at a path as NDJSON, chosen as in `records`; unreadable lines are left out and
    counted.
    """
    segments = segments_of(path)
    end = None if to_us is None else _end_before(segments, to_us)
    for segment in segments:
        for line in lines_of(segment):
            if end is not None and line.position >= end:
                return
            if line.record is None:
                if damage is not None:
                    damage.lines += 1
                continue
            is_late = to_us is not None and line.received_us >= to_us
            is_frame = isinstance(line.record, Frame)
            if not is_frame or (line.received_us >= from_us and not is_late):
                yield export_line(line)


def export_line(line: Line) -> bytes:
    """A line as one line of JSON, in UTF-8: a JSON body unchanged, any other one as a string."""
    facts: dict[str, Any] = {
        "received_us": line.received_us,
        "kind": line.kind,
        "connection": line.number,
    }
    head = json.dumps(facts, separators=(",", ":"))
    return f'{head[:-1]},"body":{_as_json(line.body)}}}'.encode()


def _as_json(body: bytes) -> str:
    if not body:
        return "null"
    text = body.decode(errors="backslashreplace")
    try:
        parsed(text, parse_constant=_refuse)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)
    return text.replace("\r", " ").replace("\n", " ")  # in JSON they are only white space


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def utc(moment_us: int) -> str:
    """A moment as an ISO 8601 text; one outside the calendar in µs."""
    when = moment(moment_us)
    return f"{moment_us} µs" if when is None else when.isoformat(timespec="milliseconds")
