"""Reading a journal that nobody need be writing: what is in it, is it whole, as NDJSON.

A path is a journal's folder or one segment's file.
"""

import json
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


@dataclass(slots=True)
class Summary:
    """What a journal holds. `damage`: one sentence for each thing that is not as it should be."""

    segments: int = 0
    disk_bytes: int = 0
    bytes: int = 0
    first_us: int = 0
    last_us: int = 0
    records: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)
    settled: int | None = None  # the checkpoint's offset


def segments_of(path: Path) -> list[Segment]:
    """The segments at a path, oldest first. Raises ConfigError where there are none."""
    if path.is_dir():
        found = list_segments(path)
    elif path.name.endswith((PLAIN, PACKED)) and path.is_file():
        digits = path.name.partition(".")[0]
        found = [Segment(int(digits) if digits.isdigit() else 0, path)]
    else:
        found = []
    if not found:
        raise ConfigError(
            f"{path} holds no journal: give a journal's folder (journal.dir), or one of its files "
            f"(…{PLAIN} or …{PACKED})"
        )
    return found


def records(path: Path, from_us: int = 0, to_us: int | None = None) -> Iterator[Record]:
    """The records at a path, in order; frames only from `from_us` until `to_us` (received time).

    What is not a frame is kept whatever its time, up to `to_us`: it tells which connections hear.
    """
    for segment in segments_of(path):
        for _, line in read_segment(segment, segment.start):
            record = read(line)
            if record is None:
                continue
            if to_us is not None and record.received_us >= to_us:
                return
            is_frame = record.kind in (Kind.FRAME, Kind.BINARY)
            if not is_frame or record.received_us >= from_us:
                yield record


def summarise(path: Path) -> Summary:
    """Read everything once."""
    summary = Summary()
    segments = segments_of(path)
    expected = segments[0].start
    for segment in segments:
        summary.segments += 1
        summary.disk_bytes += segment.path.stat().st_size
        if segment.start != expected:
            summary.damage.append(
                f"{segment.path.name} begins at {segment.start}, "
                f"the one before it ends at {expected}"
            )
        expected = _summarise_segment(segment, summary)
    summary.bytes = expected - segments[0].start
    checkpoint = read_checkpoint(path) if path.is_dir() else None
    if checkpoint is not None:
        summary.settled = checkpoint.offset
        if checkpoint.offset > expected:
            summary.damage.append(
                f"the checkpoint is at {checkpoint.offset}, beyond the journal's end {expected}"
            )
    return summary


def _summarise_segment(segment: Segment, summary: Summary) -> int:
    place = segment.start
    for following, line in read_segment(segment, segment.start):
        record = read(line)
        if record is None:
            summary.damage.append(f"{segment.path.name}: no record at offset {place}")
        else:
            _count(record, summary)
        place = following
    return place


def _count(record: Record, summary: Summary) -> None:
    summary.records[record.kind.name.lower()] += 1
    summary.first_us = summary.first_us or record.received_us
    summary.last_us = max(summary.last_us, record.received_us)
    if record.kind is Kind.FRAME:
        # the exchange writes the stream's name last
        name = record.body.rpartition(b'"stream":"')[2].partition(b'"')[0]
        summary.streams[name.decode(errors="replace")] += 1


def export_line(record: Record) -> str:
    """A record as one line of JSON; a frame as the exchange's own JSON where it is JSON."""
    facts: dict[str, Any] = {
        "received_us": record.received_us,
        "kind": record.kind.name.lower(),
        "connection": record.connection,
    }
    text = record.body.decode(errors="backslashreplace")
    try:
        facts["body"] = json.loads(text) if text else None
    except ValueError:
        facts["body"] = text
    return json.dumps(facts, separators=(",", ":"), ensure_ascii=False)


def utc(moment_us: int) -> str:
    """A time for people."""
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat(timespec="milliseconds")
