"""The journal on disk: offsets, torn ends, compressed segments, one writer."""

import os
import stat
from pathlib import Path

import pytest

from bridge.journal.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from bridge.journal.record import Kind, Record, read, render, render_frame
from bridge.journal.segments import (
    JournalInUse,
    SegmentWriter,
    WriteFailed,
    disk_bytes,
    list_segments,
    pack,
    read_lines,
)


def written(folder: Path, *lines: bytes, segment_bytes: int = 1_000_000) -> list[int]:
    writer = SegmentWriter(folder, segment_bytes)
    offsets = []
    for line in lines:
        offsets.append(writer.append(line + b"\n"))
        writer.flush()
    writer.close()
    return offsets


def lines_from(folder: Path, offset: int = 0) -> list[bytes]:
    return [line for _, line in read_lines(folder, offset)]


def test_a_frame_is_a_line_that_a_person_can_read() -> None:
    assert render_frame(1790915531026999, 3, '{"a":1}') == b'1790915531026999 F 3 {"a":1}\n'
    assert read(b'1790915531026999 F 3 {"a":1}') == Record(
        1790915531026999, Kind.FRAME, 3, b'{"a":1}'
    )


@pytest.mark.parametrize("frame", ["a\nb", b"\n", b"\xff\n\xfe", ""])
def test_any_frame_fits_on_one_line(frame: str | bytes) -> None:
    line = render_frame(5, 1, frame)

    assert line.count(b"\n") == 1
    record = read(line[:-1])
    assert record is not None
    assert record.body == (frame.encode() if isinstance(frame, str) else frame)


def test_invalid_utf8_stays_as_it_came() -> None:
    record = read(render_frame(5, 1, b"\xff{")[:-1])

    assert record is not None
    assert record.body == b"\xff{"


@pytest.mark.parametrize(
    "line", [b"", b"rubbish", b"1 F 2", b"x F 1 {}", b"1 Z 1 {}", b"1 F x {}", b"1 B 1 !!"]
)
def test_a_damaged_line_is_no_record(line: bytes) -> None:
    assert read(line) is None


def test_a_rare_record_is_a_line_too() -> None:
    assert render(7, Kind.LOST, 2, b'{"cause":"x"}') == b'7 L 2 {"cause":"x"}\n'


def test_lines_are_read_from_any_of_their_offsets(tmp_path: Path) -> None:
    offsets = written(tmp_path, b"one", b"two", b"three")

    assert [lines_from(tmp_path, offset) for offset in offsets] == [
        [b"one", b"two", b"three"],
        [b"two", b"three"],
        [b"three"],
    ]
    assert [following for following, _ in read_lines(tmp_path, 0)] == [4, 8, 14]


def test_segments_go_on_counting(tmp_path: Path) -> None:
    lines = [b"line %02d" % number for number in range(20)]

    offsets = written(tmp_path, *lines, segment_bytes=30)

    assert len(list_segments(tmp_path)) > 4
    assert lines_from(tmp_path) == lines
    assert lines_from(tmp_path, offsets[13]) == lines[13:]


def test_a_new_segment_begins_with_what_must_be_known(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, 10)
    writer.head = lambda: b"head\n"
    for number in range(3):
        writer.append(b"line %04d\n" % number)
        writer.flush()
    writer.close()

    assert lines_from(tmp_path) == [b"line 0000", b"head", b"line 0001", b"head", b"line 0002"]


def test_a_compressed_segment_reads_the_same(tmp_path: Path) -> None:
    lines = [b"line %02d" % number for number in range(20)]
    offsets = written(tmp_path, *lines, segment_bytes=60)
    before = disk_bytes(tmp_path)

    for segment in list_segments(tmp_path)[:-1]:
        packed = pack(segment)
        assert packed.path.name.endswith(".journal.zst")
        assert stat.S_IMODE(packed.path.stat().st_mode) == 0o600

    assert lines_from(tmp_path) == lines
    assert lines_from(tmp_path, offsets[7]) == lines[7:]
    assert disk_bytes(tmp_path) != before
    writer = SegmentWriter(tmp_path, 60)
    assert writer.end == offsets[-1] + len(lines[-1]) + 1
    writer.close()


def test_reading_begins_at_the_oldest_line_that_is_left(tmp_path: Path) -> None:
    lines = [b"line %02d" % number for number in range(20)]
    written(tmp_path, *lines, segment_bytes=30)
    oldest, second = list_segments(tmp_path)[:2]
    oldest.path.unlink()

    assert lines_from(tmp_path, 0) == lines_from(tmp_path, second.start)
    assert lines_from(tmp_path, 0)[0] != lines[0]


def test_cut_at_any_byte_every_whole_line_is_kept_and_writing_goes_on(tmp_path: Path) -> None:
    lines = [b"line number %03d" % number for number in range(64)]
    written(tmp_path / "whole", *lines)
    (whole,) = list_segments(tmp_path / "whole")
    data = whole.path.read_bytes()

    for length in range(len(data) - 1024, len(data) + 1):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / whole.path.name).write_bytes(data[:length])

        writer = SegmentWriter(folder, 1_000_000)
        kept = data[:length].count(b"\n")
        assert writer.end == sum(len(line) + 1 for line in lines[:kept])
        writer.append(b"after\n")
        writer.flush()
        writer.close()

        assert lines_from(folder) == [*lines[:kept], b"after"]


def test_files_and_folder_are_private(tmp_path: Path) -> None:
    written(tmp_path / "journal", b"x")

    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "journal").iterdir()} == {
        0o600
    }


def test_one_folder_has_one_writer(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, 1000)

    with pytest.raises(JournalInUse, match=r"journal\.dir"):
        SegmentWriter(tmp_path, 1000)
    writer.close()
    SegmentWriter(tmp_path, 1000).close()


def test_a_write_that_fails_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, 1000)
    writer.append(b"kept\n")
    writer.flush()
    really_write = os.write

    def half_then_full(descriptor: int, data: bytes) -> int:
        if len(data) > 3:
            return really_write(descriptor, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half_then_full)
    writer.append(b"lost\n")
    with pytest.raises(OSError, match="No space"):
        writer.flush()
    monkeypatch.undo()

    writer.append(b"again\n")
    writer.flush()
    writer.close()
    assert lines_from(tmp_path) == [b"kept", b"again"]


def test_a_checkpoint_reads_back_and_a_broken_one_is_none(tmp_path: Path) -> None:
    checkpoint = Checkpoint(17, "redis:6379/0", {"trade.X": "5-70"}, {"depth.X": 3})

    write_checkpoint(tmp_path, checkpoint)
    assert read_checkpoint(tmp_path) == checkpoint
    (tmp_path / "checkpoint.json").write_text("{")
    assert read_checkpoint(tmp_path) is None


def test_a_segment_that_is_compressed_while_it_is_read_is_read_all_the_same(
    tmp_path: Path,
) -> None:
    lines = [b"line %02d" % number for number in range(20)]
    written(tmp_path, *lines, segment_bytes=60)
    reading = read_lines(tmp_path, 0)
    first = next(reading)

    for segment in list_segments(tmp_path)[:-1]:
        pack(segment)

    assert [first[1], *(line for _, line in reading)] == lines


def test_a_damaged_compressed_segment_ends_in_a_line_that_is_no_record(tmp_path: Path) -> None:
    written(tmp_path, *(b"line %02d" % number for number in range(20)), segment_bytes=60)
    packed = pack(list_segments(tmp_path)[0])
    data = bytearray(packed.path.read_bytes())
    data[4:] = bytes(len(data) - 4)
    packed.path.write_bytes(data)

    found = lines_from(tmp_path)

    assert read(found[0]) is None
    assert found[-1] == b"line 19"


@pytest.mark.parametrize(
    "text",
    [
        '{"offset": 1, "target": "", "confirmed": {"a": "x"}, "parked": {}}',
        '{"offset": Infinity, "target": "", "confirmed": {}, "parked": {}}',
        '{"offset": 1, "target": "", "confirmed": [], "parked": {}}',
        '{"offset": 1, "target": "", "confirmed": {}, "parked": {"a": "x"}}',
        "[]",
        "",
    ],
)
def test_a_checkpoint_that_makes_no_sense_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(text)

    assert read_checkpoint(tmp_path) is None


def test_a_write_that_fails_and_cannot_be_cut_off_shifts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are given back all the same, and the rest of them is cut off before the next."""
    writer = SegmentWriter(tmp_path, 1000)
    kept = writer.append(b"kept\n")
    writer.flush()
    really_write = os.write

    def half_then_fail(descriptor: int, data: bytes) -> int:
        if len(data) > 6:
            return really_write(descriptor, data[:6])
        raise OSError(5, "Input/output error")

    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "write", half_then_fail)
    monkeypatch.setattr(os, "ftruncate", fail)
    writer.append(b"lost\nalso lost\n")
    with pytest.raises(WriteFailed) as failed:
        writer.flush()
    assert failed.value.lines == [b"lost\nalso lost\n"]
    monkeypatch.setattr(os, "write", really_write)
    writer.append(b"not yet\n")
    with pytest.raises(WriteFailed):
        writer.flush()
    monkeypatch.undo()

    offset = writer.append(b"again\n")
    writer.flush()
    writer.close()
    assert lines_from(tmp_path) == [b"kept", b"again"]
    assert (lines_from(tmp_path, kept)[0], lines_from(tmp_path, offset)) == (b"kept", [b"again"])


def test_no_new_segment_can_be_made_and_what_was_written_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, 10)
    really_open = os.open

    def full(path: Path, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".journal"):
            raise OSError(28, "No space left on device")
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", full)
    for line in (b"line 0001\n", b"line 0002\n"):
        writer.append(line)
        writer.flush()
    assert writer.is_full
    with pytest.raises(OSError, match="No space"):
        writer.roll()
    monkeypatch.undo()

    writer.append(b"line 0003\n")
    writer.flush()
    writer.append(b"line 0004\n")
    writer.flush()
    writer.close()
    assert lines_from(tmp_path) == [b"line 0001", b"line 0002", b"line 0003", b"line 0004"]
    assert len(list_segments(tmp_path)) == 3


def test_a_folder_that_cannot_be_used_is_left_to_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SegmentWriter, "_open", _full)
    with pytest.raises(OSError, match="No space"):
        SegmentWriter(tmp_path, 1000)
    monkeypatch.undo()

    SegmentWriter(tmp_path, 1000).close()


def _full(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_a_compressed_segment_is_as_old_as_it_was(tmp_path: Path) -> None:
    written(tmp_path, b"line 01", b"line 02", segment_bytes=8)
    oldest = list_segments(tmp_path)[0]
    os.utime(oldest.path, (5, 5))

    assert pack(oldest).path.stat().st_mtime == 5
