"""Looks into a journal that nothing need be writing: what is in it, is it whole, as NDJSON.

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

FLUSHED_S = 0.2  # longer than a bridge holds back what it writes (maintenance.FLUSH_EVERY_S)
READ_BYTES = 1024 * 1024
STEP_RECORDS = 500
NO_FRAME = b"\n"  # a mark that is in no line
_FRAME = codec.name_of("F")
_FRAME_AT = slice(25, 28)  # where a frame's line says so: behind checksum and time


_tuple = tuple.__new__  # `Line(…)` is a function in Python around it, once for each record


class Line(NamedTuple):
    """A line of a journal, from `position` to `end`. `record` None: it cannot be read, and what
    follows says nothing.
    """

    position: int
    end: int
    received_us: int = 0
    kind: str = ""
    number: int = 0  # the connection's, 0 where none is meant
    body: bytes = b""
    record: Record | None = None


@dataclass(slots=True)
class Summary:
    """What a journal holds. `damage`: one sentence for each thing that is not as it should be;
    `unwritten`: one for each time of which something could not be written.
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
    """How many lines and files could not be read."""

    lines: int = 0


# ---- files -------------------------------------------------------------------------------------


def segments_of(path: Path) -> list[Segment]:
    """The segments at a path, oldest first. Raises ConfigError where there are none, or where they
    may not be read.
    """
    try:
        if path.is_dir():
            os.listdir(path)  # a folder that may not be read would look empty
            found = list_segments(path)
        elif path.name.endswith((PLAIN, PACKED)) and path.is_file():
            digits = path.name.partition(".")[0]
            is_offset = digits.isascii() and digits.isdecimal()
            found = [Segment(int(digits) if is_offset else 0, path)]
        else:
            found = []
    except OSError as error:
        raise _unreadable(path, error) from None
    if not found:
        raise ConfigError(
            f"{path} holds no journal: give a journal's folder (journal.dir), or one of its files "
            f"(…{PLAIN} or …{PACKED})"
        )
    return found


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({error.strerror or error}): only the user that the bridge runs as "
        "may read its journal"
    )


def segments_between(path: Path, from_us: int, to_us: int) -> list[Segment]:
    """Those that may have what was received in that time. Raises as `segments_of`."""
    segments = segments_of(path)
    begun_us = [next((line.received_us for line in lines_of(each)), 0) for each in segments]
    ended_us = [*begun_us[1:], to_us]
    return [
        segment
        for segment, first_us, last_us in zip(segments, begun_us, ended_us, strict=True)
        if first_us <= to_us and last_us >= from_us
    ]


def lines_of(segment: Segment, mark: bytes = b"") -> Iterator[Line]:
    """Every whole line, but for frames without `mark` in them; nothing where the file is gone."""
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
            at_us, connection, said = record
            yield _tuple(Line, (position, end, at_us, _FRAME, connection, said, record))
            continue
        _, letter, number, body = payload.split(b" ", 3)
        kind = codec.name_of(letter.decode())
        if letter == b"B" and isinstance(record, Frame):
            body = record.body
        yield Line(position, end, record.received_us, kind, int(number), body, record)


def _line_end(segment: Segment, place: int, line: bytes) -> int:
    """The place behind a whole line; behind none where a compressed segment is damaged."""
    return place + len(line) + 1 if line or not segment.is_packed else place


def _raw_lines(segment: Segment) -> Iterator[tuple[int, bytes]]:
    """Where each whole line begins, and what it is. A compressed segment that is damaged ends with
    an empty line, which is no record; so does one in which a line has no end, at any length.
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
    """Segments as a cursor reads them, with no tail behind them."""

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
        """Nothing is written."""

    def check(self) -> bool:
        return True

    def now_us(self) -> int:
        return 0  # what is missing in the end is missing until the last record


def _end_of(segment: Segment) -> int:
    ends = (_line_end(segment, place, line) for place, line in _raw_lines(segment))
    return max(ends, default=segment.start)


def _is_cut(segment: Segment) -> bool:
    """Is it damaged, so that where it ends is not known? Nothing behind it tells so."""
    if not segment.is_packed:
        return False  # it is written to, or ends with what was written last
    ends = deque(_raw_lines(segment), maxlen=1)
    return any(not line for _, line in ends)


_record_of = itemgetter(1)  # of a position and its record


def records(
    path: Path,
    from_us: int = 0,
    to_us: int | None = None,
    damage: Damage | None = None,
) -> Iterator[Record]:
    """The records at a path, in order; frames only from `from_us` until `to_us` (received time).
    Where something cannot be read, a `Missing` stands in its place.

    What is not a frame is kept whatever its time, up to the last record before `to_us`: it tells
    of the connections. Times need not rise, a clock may have been set. Raises ConfigError where
    something cannot be read.
    """
    segments = segments_of(path)
    end = None if to_us is None else _end_before(segments, to_us)
    files = _Files(segments)
    cursor = Cursor(files, segments[0].start)
    is_all = from_us <= 0 and to_us is None
    while found := cursor.read(STEP_RECORDS):
        if is_all:
            yield from map(_record_of, found)
            continue
        for position, record in found:
            if end is not None and position >= end:
                break
            is_late = to_us is not None and record.received_us >= to_us
            if not isinstance(record, Frame) or (record.received_us >= from_us and not is_late):
                yield record
    if damage is not None:
        damage.lines = cursor.damaged + files.is_cut
    cursor.close()


def _end_before(segments: list[Segment], to_us: int) -> int:
    """The position behind the beginning of the last record that was received before then."""
    times = ((line.position, line.received_us) for each in segments for line in lines_of(each))
    return max((position + 1 for position, us in times if us and us < to_us), default=0)


# ---- is it whole -------------------------------------------------------------------------------


def summarise(path: Path) -> Summary:
    """Read everything once. The bridge that writes it may be running: segments may be compressed,
    or the oldest removed, while they are read.
    """
    summary = Summary()
    is_folder = path.is_dir()
    checkpoint = read_checkpoint(path) if is_folder else None  # first: what follows is later
    if is_folder and checkpoint is None and (path / CHECKPOINT).exists():
        summary.damage.append(f"{CHECKPOINT} cannot be read, or makes no sense")
    segments = segments_of(path)
    expected: int | None = segments[0].start
    end = 0
    for segment in segments:
        size = _disk_bytes(segment)
        if size is None:
            expected = None  # it has just made room
            continue
        expected = end = _summarise_segment(segment, expected, summary)
        if end == segment.start and _disk_bytes(segment) is None:
            expected = None  # it went between the two looks
            continue
        summary.segments += 1
        summary.disk_bytes += size
        summary.bytes += end - segment.start
    if checkpoint is not None:
        summary.settled = checkpoint.offset
        said = max(checkpoint.offset, checkpoint.end)
        if said > end and said > _end_soon(path):
            summary.damage.append(f"the checkpoint says {said}, beyond the journal's end {end}")
    return summary


def _disk_bytes(segment: Segment) -> int | None:
    """What it takes, compressed meanwhile or not; None where it is gone."""
    for path in (segment.path, segment.path.with_name(segment.path.name + ".zst")):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(path, error) from None
    return None


def _end_soon(folder: Path) -> int:
    """Where the journal ends once a running bridge has handed over what it has in hand."""
    time.sleep(FLUSHED_S)
    return _end_of(list_segments(folder)[-1])


def _summarise_segment(segment: Segment, expected: int | None, summary: Summary) -> int:
    """Count what is in it. Returns where it ends."""
    name, end = segment.path.name, segment.start
    is_apart = expected not in (None, segment.start)
    for line in lines_of(segment):
        end = line.end
        if line.record is None:
            summary.damage.append(f"{name}: no record at offset {line.position}")
            continue
        # The log leaves out what it could not write, and says so behind the segment's head.
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
        # the exchange writes the stream's name last
        name = line.body.rpartition(b'"stream":"')[2].partition(b'"')[0]
        summary.streams[name.decode(errors="replace")] += 1


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
    """The lines at a path as NDJSON, chosen as `records` does; lines that cannot be read are left
    out and counted.
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
    """A line as one line of JSON, in UTF-8: a body that is JSON as it was written, any other as a
    text.
    """
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
    return text.replace("\r", " ").replace("\n", " ")  # between its parts: inside, JSON has none


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def utc(moment_us: int) -> str:
    """A time for people; what cannot be one, as it is."""
    found = moment(moment_us)
    return f"{moment_us} µs" if found is None else found.isoformat(timespec="milliseconds")
