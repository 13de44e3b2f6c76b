"""A model of the log and its cursors under faults of disk, files and processes: each cursor yields
every appended record once and in order, or a `Missing` that covers it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.core.records import Frame, Missing, Opened, Record, SegmentState
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.cursor import Cursor
from bridge.journal.log import Log
from bridge.journal.segments import SegmentWriter, list_segments, pack
from tests.support.examples import examples

SEGMENT_BYTES = 2_000
TAIL_LIMIT_BYTES = 3_000
STREAMS = ["trade.SOL_USDC", "ticker.SOL_USDC", "account.orderUpdate"]

_write, _ftruncate, _open = os.write, os.ftruncate, os.open


class Disk:
    """Faults of a disk: full, partial writes, files that cannot be truncated or opened."""

    def __init__(self) -> None:
        self.room: int | None = None  # bytes; None: unlimited
        self.can_cut = True
        self.can_open = True

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room is None:
            return _write(descriptor, data)
        if self.room <= 0:
            raise OSError(28, "No space left on device")
        written = _write(descriptor, data[: self.room])
        self.room -= written
        return written

    def ftruncate(self, descriptor: int, length: int) -> None:
        if not self.can_cut:
            raise OSError(5, "Input/output error")
        _ftruncate(descriptor, length)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if not self.can_open and flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return _open(path, flags, mode)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        os.write, os.ftruncate, os.open = self.write, self.ftruncate, self.open  # type: ignore[assignment]
        try:
            yield
        finally:
            os.write, os.ftruncate, os.open = _write, _ftruncate, _open


@dataclass
class Reading:
    """A cursor, and the records that it has yielded."""

    cursor: Cursor
    first: int  # the number of its first record
    seen: list[int] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


class LogAndCursors(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.disk = Disk()
        self.records: list[tuple[str | None, int]] = []  # (stream, position)
        self.excused: set[int] = set()  # losses that no process can detect
        self.readings: list[Reading] = []
        self.log = self.open()

    def open(self) -> Log:
        writer = SegmentWriter(self.folder, SEGMENT_BYTES, syncs=False)
        return Log(writer, tail_limit_bytes=TAIL_LIMIT_BYTES, clock_us=self.now_us)

    def now_us(self) -> int:
        return len(self.records) + 1  # the first record has time 1

    def teardown(self) -> None:
        self.heal()
        with self.disk.in_use():
            self.log.recover(self.state())
            assert not self.log.is_broken
            for reading in self.readings:
                while not reading.cursor.at_end:
                    self.take(reading, 7)
                self.check(reading, len(self.records))
        self.log.close()
        for reading in self.readings:
            reading.cursor.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def state(self) -> SegmentState:
        return SegmentState(self.now_us(), {1: {"trade.SOL_USDC": 5}}, {}, ())

    # ---- steps -------------------------------------------------------------------------------

    def add(self, stream: str | None, record: Record) -> None:
        with self.disk.in_use():
            if isinstance(record, Frame):
                received_us, connection, body = record
                [position] = self.log.append_frames(received_us, connection, [body])
            else:
                position = self.log.append(record)
        self.records.append((stream, position))

    @rule(stream=st.sampled_from(STREAMS), count=st.integers(1, 12), length=st.integers(0, 200))
    def frames(self, stream: str, count: int, length: int) -> None:
        for _ in range(count):
            body = f'{{"data":{{"x":"{"y" * length}"}},"stream":"{stream}"}}'.encode()
            self.add(stream, Frame(self.now_us(), 1, body))

    @rule()
    def opened(self) -> None:
        self.add(None, Opened(self.now_us(), len(self.records), "public-1", STREAMS))

    @rule()
    def flush(self) -> None:
        with self.disk.in_use():
            self.log.flush()

    @rule(room=st.integers(0, 400), can_cut=st.booleans(), can_open=st.booleans())
    def fill(self, room: int, can_cut: bool, can_open: bool) -> None:
        self.disk.room, self.disk.can_cut, self.disk.can_open = room, can_cut, can_open

    @rule()
    def heal(self) -> None:
        self.disk.room, self.disk.can_cut, self.disk.can_open = None, True, True

    @rule()
    def recover(self) -> None:
        with self.disk.in_use():
            self.log.recover(self.state())

    @rule()
    def roll(self) -> None:
        with self.disk.in_use():
            try:
                self.log.roll(self.state())
            except OSError:
                assert not self.disk.can_open or not self.disk.can_cut

    @rule()
    def pack_closed(self) -> None:
        for segment in list_segments(self.folder)[:-1]:
            if not segment.is_packed:
                pack(segment)

    @precondition(lambda self: len(list_segments(self.folder)) > 1)
    @rule(data=st.data())
    def remove_one(self, data: st.DataObject) -> None:
        """Remove any segment but the current one, as pruning or another program does."""
        data.draw(st.sampled_from(list_segments(self.folder)[:-1])).path.unlink()

    @precondition(lambda self: len(list_segments(self.folder)) > 1)
    @rule(data=st.data(), share=st.floats(0, 0.999), wrong=st.integers(1, 255))
    def damage_one(self, data: st.DataObject, share: float, wrong: int) -> None:
        path = data.draw(st.sampled_from(list_segments(self.folder)[:-1])).path
        content = bytearray(path.read_bytes())
        if content:
            content[int(share * len(content))] ^= wrong
            path.write_bytes(content)

    @precondition(lambda self: len(list_segments(self.folder)) > 1)
    @rule(data=st.data(), share=st.floats(0, 0.999))
    def cut_one(self, data: st.DataObject, share: float) -> None:
        path = data.draw(st.sampled_from(list_segments(self.folder)[:-1])).path
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    @rule()
    def vanish(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with self.disk.in_use():
            self.log.check()

    @rule(is_checkpointed=st.booleans())
    def kill_and_start(self, is_checkpointed: bool) -> None:
        """Kill the process and start another. Only with a checkpoint of this moment can it detect
        that the tail is lost; otherwise the loss is excused.
        """
        checkpoint = Checkpoint(0, "redis", end=self.log.end) if is_checkpointed else None
        is_gone = not list_segments(self.folder)
        written = 0 if is_gone else self.log.written
        assert self.log._writer is not None
        self.log._writer.close()
        for reading in self.readings:
            reading.cursor.close()
        self.heal()
        self.readings, self.log = [], self.open()
        assert self.log.trusted(checkpoint) == checkpoint
        if not is_checkpointed:
            self.excused |= {
                number for number, (_, position) in enumerate(self.records) if position >= written
            }
        self.readings.append(Reading(self.log.cursor(0), 0))

    @rule()
    def read_from_the_beginning(self) -> None:
        if len(self.readings) < 4:
            with self.disk.in_use():
                self.readings.append(Reading(self.log.cursor(0), 0))

    @rule()
    def read_from_the_end(self) -> None:
        if len(self.readings) < 4:
            cursor = self.log.cursor(self.log.end, self.now_us())
            self.readings.append(Reading(cursor, len(self.records)))

    @precondition(lambda self: self.readings)
    @rule(data=st.data(), limit=st.integers(1, 20))
    def read(self, data: st.DataObject, limit: int) -> None:
        with self.disk.in_use():
            self.take(data.draw(st.sampled_from(self.readings)), limit)

    @precondition(lambda self: self.readings)
    @rule(data=st.data(), limit=st.integers(1, 20))
    def pass_over(self, data: st.DataObject, limit: int) -> None:
        reading = data.draw(st.sampled_from(self.readings))
        with self.disk.in_use():
            for each in reading.cursor.pass_over(self.log.end, limit):
                self.put(reading, *each)

    # ---- invariants ----------------------------------------------------------------------------

    def take(self, reading: Reading, limit: int) -> None:
        found = reading.cursor.read(limit)
        if not found:
            assert reading.cursor.at_end
            self.check(reading, len(self.records))
        for each in found:
            self.put(reading, *each)

    def put(self, reading: Reading, position: int, record: Record) -> None:
        if isinstance(record, Missing):
            reading.missing.append(record)
        elif isinstance(record, SegmentState):
            last = reading.missing[-1:] if reading.seen or reading.missing else []
            assert not reading.seen or (last and last[0].spans is None)
        else:
            reading.seen.append(record.received_us - 1)
            assert position >= self.records[reading.seen[-1]][1], "a position has decreased"
            if isinstance(record, Frame):
                stream = self.records[reading.seen[-1]][0]
                assert stream is not None
                assert record.body.endswith(f'"stream":"{stream}"}}'.encode())

    def check(self, reading: Reading, until: int) -> None:
        """Check that records up to `until` were yielded in order, or are covered by a `Missing`."""
        assert reading.seen == sorted(set(reading.seen)), "duplicate or out of order"
        assert all(number >= reading.first for number in reading.seen)
        for number in sorted(set(range(reading.first, until)) - set(reading.seen) - self.excused):
            stream, _ = self.records[number]
            assert any(covers(each, stream, number + 1) for each in reading.missing), (
                f"record {number} of {stream} is missing and not reported: {reading.missing}"
            )

    @invariant()
    def the_tail_is_bounded(self) -> None:
        with self.disk.in_use():
            self.log.flush()
        assert self.log.tail_bytes <= TAIL_LIMIT_BYTES


def covers(missing: Missing, stream: str | None, at_us: int) -> bool:
    if missing.spans is None:
        return missing.from_us <= at_us <= missing.received_us
    if stream is None or stream not in missing.spans:
        return False
    from_us, to_us = missing.spans[stream]
    return from_us <= at_us <= to_us


TestLogAndCursors = LogAndCursors.TestCase
TestLogAndCursors.settings = examples(60, stateful_step_count=40)
