"""Reading a journal that nobody need be writing: what is in it, is it whole, as NDJSON.

A path is a journal's folder or one segment's file.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from bridge.journal.checkpoint import read_checkpoint
from bridge.journal.record import Kind, Record, read
from bridge.journal.segments import PACKED, PLAIN, Segment, list_segments, read_segment

_OBJECTS = (Kind.OPENED, Kind.CHANGED, Kind.DOUBTED, Kind.LOST, Kind.MARKS, Kind.STATE,
            Kind.UNWRITTEN)  # fmt: skip
FLUSHED_S = 0.2  # longer than a bridge holds back what it has written (keeper.FLUSH_EVERY_S)


@dataclass(slots=True)
class Summary:
    """What a journal holds. `damage`: one sentence for each thing that is not as it should be;
    `holes`: one for each time when it could not be written.
    """

    segments: int = 0
    disk_bytes: int = 0
    bytes: int = 0
    first_us: int = 0
    last_us: int = 0
    records: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    settled: int | None = None  # the checkpoint's offset


@dataclass(slots=True)
class Damage:
    """How many lines were passed over."""

    lines: int = 0


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


def records(
    path: Path,
    from_us: int = 0,
    to_us: int | None = None,
    damage: Damage | None = None,
) -> Iterator[Record]:
    """The records at a path, in order; frames only from `from_us` until `to_us` (received time).

    What is not a frame is kept whatever its time, up to the last record before `to_us`: it tells
    which connections hear. Times need not rise, a clock may have been set. `damage` counts lines
    that are no records. Raises ConfigError where something cannot be read.
    """
    end = None if to_us is None else _end_before(path, to_us)
    for following, line in _every_line(path):
        if end is not None and following > end:
            return
        record = read(line)
        if record is None:
            if damage is not None:
                damage.lines += 1
            continue
        is_frame = record.kind in (Kind.FRAME, Kind.BINARY)
        is_late = to_us is not None and record.received_us >= to_us
        if not is_frame or (record.received_us >= from_us and not is_late):
            yield record


def _end_before(path: Path, to_us: int) -> int:
    """The offset behind the last record that was received before then."""
    end = 0
    for following, line in _every_line(path):
        record = read(line)
        if record is not None and record.received_us < to_us:
            end = following
    return end


def _every_line(path: Path) -> Iterator[tuple[int, bytes]]:
    for segment in segments_of(path):
        yield from _lines(segment)


def _lines(segment: Segment) -> Iterator[tuple[int, bytes]]:
    try:
        yield from read_segment(segment, segment.start)
    except OSError as error:
        raise _unreadable(segment.path, error) from None


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({error.strerror or error}): only the user that the bridge runs as "
        "may read its journal"
    )


def summarise(path: Path) -> Summary:
    """Read everything once. The bridge that writes it may be running: segments may be compressed,
    or the oldest removed, while they are read.
    """
    summary = Summary()
    checkpoint = read_checkpoint(path) if path.is_dir() else None  # first: what follows is later
    segments = segments_of(path)
    expected: int | None = segments[0].start
    end = 0
    for segment in segments:
        size = _disk_bytes(segment)
        if size is None:
            expected = None  # it has just made room
            continue
        if expected not in (None, segment.start):
            summary.damage.append(
                f"{segment.path.name} begins at {segment.start}, "
                f"the one before it ends at {expected}"
            )
        expected = end = _summarise_segment(segment, summary)
        if end == segment.start and _disk_bytes(segment) is None:
            expected = None  # it went between the two looks
            continue
        summary.segments += 1
        summary.disk_bytes += size
        summary.bytes += end - segment.start
    if checkpoint is not None:
        summary.settled = checkpoint.offset
        if checkpoint.offset > end and checkpoint.offset > _end_soon(path):
            summary.damage.append(
                f"the checkpoint is at {checkpoint.offset}, beyond the journal's end {end}"
            )
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
    newest = list_segments(folder)[-1]
    return max((following for following, _ in _lines(newest)), default=newest.start)


def _summarise_segment(segment: Segment, summary: Summary) -> int:
    place = segment.start
    for following, line in _lines(segment):
        record = read(line)
        if record is None:
            summary.damage.append(f"{segment.path.name}: no record at offset {place}")
        else:
            _count(record, summary)
            if record.kind in _OBJECTS and not _is_object(record.body):
                summary.damage.append(f"{segment.path.name}: no sense in the record at {place}")
        place = following
    return place


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _count(record: Record, summary: Summary) -> None:
    summary.records[record.kind.name.lower()] += 1
    summary.first_us = summary.first_us or record.received_us
    summary.last_us = max(summary.last_us, record.received_us)
    if record.kind is Kind.UNWRITTEN:
        summary.holes.append(_hole(record))
    elif record.kind is Kind.FRAME:
        # the exchange writes the stream's name last
        name = record.body.rpartition(b'"stream":"')[2].partition(b'"')[0]
        summary.streams[name.decode(errors="replace")] += 1


def _hole(record: Record) -> str:
    try:
        spans = json.loads(record.body)
        first_us = min(int(from_us) for from_us, _ in spans.values())
        last_us = max(int(to_us) for _, to_us in spans.values())
    except (ValueError, TypeError, AttributeError):
        return f"before {utc(record.received_us)}; of which streams cannot be read any more"
    return f"{utc(first_us)} – {utc(last_us)}: {', '.join(sorted(spans))}"


def export_line(record: Record) -> bytes:
    """A record as one line of JSON, in UTF-8: a body that is JSON as it was written, any other as a
    text.
    """
    facts: dict[str, Any] = {
        "received_us": record.received_us,
        "kind": record.kind.name.lower(),
        "connection": record.connection,
    }
    head = json.dumps(facts, separators=(",", ":"))
    return f'{head[:-1]},"body":{_as_json(record.body)}}}'.encode()


def _as_json(body: bytes) -> str:
    if not body:
        return "null"
    text = body.decode(errors="backslashreplace")
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text.replace("\r", " ").replace("\n", " ")  # between its parts: inside, JSON has none


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def utc(moment_us: int) -> str:
    """A time for people."""
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat(timespec="milliseconds")
