"""The files of a journal: positions, partial last lines, compressed segments, one writer."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from bridge.journal import segments
from bridge.journal.segments import (
    DamagedSegment,
    JournalInUse,
    Segment,
    SegmentReader,
    SegmentWriter,
    disk_bytes,
    list_segments,
    pack,
)
from tests.support.journal_subject import full

LINES = [b"line %02d\n" % number for number in range(20)]
ALL = b"".join(LINES)


def written(folder: Path, *parts: bytes) -> None:
    """Write each part to a segment."""
    writer = SegmentWriter(folder, 1_000_000)
    for part in parts:
        writer.begin(writer.written)
        writer.write([part])
    writer.close()


def content(folder: Path) -> bytes:
    return b"".join(content_of(SegmentReader(each, each.start)) for each in list_segments(folder))


def content_of(reader: SegmentReader) -> bytes:
    pieces = []
    while piece := reader.read(7):
        pieces.append(piece)
    reader.close()
    return b"".join(pieces)


def test_segments_continue_counting(tmp_path: Path) -> None:
    written(tmp_path, ALL[:80], ALL[80:])

    assert [segment.start for segment in list_segments(tmp_path)] == [0, 80]
    assert content(tmp_path) == ALL


@pytest.mark.parametrize("name", ["9" * 20, "9" * 200, "x", "-5", "٣"])
def test_a_file_with_another_form_of_name_is_no_segment(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.journal").touch()

    written(tmp_path, ALL[:80])

    assert [segment.start for segment in list_segments(tmp_path)] == [0]


@pytest.mark.parametrize("packed", [False, True])
def test_a_segment_is_read_from_any_offset(packed: bool, tmp_path: Path) -> None:
    written(tmp_path, ALL)
    [segment] = list_segments(tmp_path)
    if packed:
        segment = pack(segment)

    for offset in range(len(ALL) + 1):
        assert content_of(SegmentReader(segment, offset)) == ALL[offset:]


def test_a_segment_may_begin_behind_the_end_of_the_one_before(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, 1_000)
    writer.write([b"one\n"])
    writer.begin(100)
    writer.begin(200)  # removes the empty segment before it
    writer.write([b"two\n"])
    writer.close()

    assert [segment.start for segment in list_segments(tmp_path)] == [0, 200]
    assert SegmentWriter(tmp_path, 1_000).end == 204


def test_a_compressed_segment_reads_the_same_and_is_private(tmp_path: Path) -> None:
    written(tmp_path, ALL, b"x\n")
    before = disk_bytes(tmp_path)

    packed = pack(list_segments(tmp_path)[0])

    assert packed.path.name.endswith(".journal.zst")
    assert stat.S_IMODE(packed.path.stat().st_mode) == 0o600
    assert content(tmp_path) == ALL + b"x\n"
    assert disk_bytes(tmp_path) != before


def test_a_segment_that_is_compressed_or_removed_while_it_is_read_is_read_to_its_end(
    tmp_path: Path,
) -> None:
    written(tmp_path, ALL, b"x\n")
    segment = list_segments(tmp_path)[0]
    reader = SegmentReader(segment, 0)
    first = reader.read(10)

    packed = pack(segment)
    assert content_of(SegmentReader(segment, 0)) == ALL, "it is opened under its new name"
    packed.path.unlink()

    assert first + content_of(reader) == ALL


def test_every_byte_of_a_compressed_segment_that_is_flipped_is_noticed_or_harmless(
    tmp_path: Path,
) -> None:
    written(tmp_path, ALL, b"x\n")
    packed = pack(list_segments(tmp_path)[0])
    whole = packed.path.read_bytes()

    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x40
        packed.path.write_bytes(changed)
        try:
            assert content_of(SegmentReader(packed, 0)) == ALL, place
        except DamagedSegment:
            continue


def test_a_compressed_segment_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    written(tmp_path, ALL, b"x\n")
    packed = pack(list_segments(tmp_path)[0])
    whole = packed.path.read_bytes()

    for length in range(len(whole)):
        packed.path.write_bytes(whole[:length])
        with pytest.raises(DamagedSegment):
            content_of(SegmentReader(packed, 0))


def test_cut_at_any_byte_every_whole_line_is_kept_and_writing_continues(tmp_path: Path) -> None:
    for length in range(len(ALL) + 1):
        (tmp_path / f"{0:020d}.journal").write_bytes(ALL[:length])

        writer = SegmentWriter(tmp_path, 1_000_000)
        kept = ALL[: ALL[:length].rfind(b"\n") + 1]
        assert writer.end == len(kept)
        writer.write([b"after\n"])
        writer.close()

        assert content(tmp_path) == kept + b"after\n"


def test_files_and_folder_are_private(tmp_path: Path) -> None:
    written(tmp_path / "journal", b"x\n")

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


def test_a_write_that_fails_and_cannot_be_cut_off_shifts_no_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partial write is cut off before the next write."""
    writer = SegmentWriter(tmp_path, 1000)
    writer.write([b"kept\n"])
    really_write = os.write

    def half_then_fail(descriptor: int, data: bytes) -> int:
        if len(data) > 6:
            return really_write(descriptor, data[:6])
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", half_then_fail)
    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(OSError, match="Input/output"):
        writer.write([b"lost\n", b"also lost\n"])
    monkeypatch.setattr(os, "write", really_write)
    with pytest.raises(OSError, match="No space"):
        writer.write([b"not yet\n"])
    with pytest.raises(OSError, match="No space"):
        writer.begin(500)
    monkeypatch.undo()

    assert writer.end == writer.written == 5
    writer.write([b"again\n"])
    writer.close()
    assert content(tmp_path) == b"kept\nagain\n"


def test_a_segment_that_cannot_be_made_leaves_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, 10)
    writer.write([b"line 0001\n"])
    assert writer.is_full
    monkeypatch.setattr(SegmentWriter, "_open", full)
    with pytest.raises(OSError, match="No space"):
        writer.begin(writer.written)
    monkeypatch.undo()

    writer.write([b"line 0002\n"])
    writer.begin(writer.written)
    writer.write([b"line 0003\n"])
    writer.close()
    assert content(tmp_path) == b"line 0001\nline 0002\nline 0003\n"
    assert len(list_segments(tmp_path)) == 2


def test_an_unusable_folder_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegmentWriter, "_open", full)
    with pytest.raises(OSError, match="No space"):
        SegmentWriter(tmp_path, 1000)
    monkeypatch.undo()

    SegmentWriter(tmp_path, 1000).close()


def test_a_file_that_was_cut_under_the_process_is_not_in_place(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, 1000)
    writer.write([ALL])
    assert writer.is_in_place()
    os.truncate(list_segments(tmp_path)[0].path, 50)
    assert not writer.is_in_place()

    writer.restore()
    writer.write([b"x\n"])

    assert [segment.start for segment in list_segments(tmp_path)] == [0, len(ALL)]


def test_segments_that_have_ended_are_synced_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        really(descriptor)
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", fsync)
    writer = SegmentWriter(tmp_path, 1000)
    writer.write([b"one\n"])
    writer.begin(4)
    writer.write([b"two\n"])

    writer.sync()

    assert synced == [f"{0:020d}.journal", f"{4:020d}.journal", tmp_path.name]
    writer.close()


def test_a_compressed_segment_is_as_old_as_it_was(tmp_path: Path) -> None:
    written(tmp_path, b"line 01\n", b"line 02\n")
    oldest = list_segments(tmp_path)[0]
    os.utime(oldest.path, (5, 5))

    assert pack(oldest).path.stat().st_mtime == 5


def _looped(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, _looped])
def test_a_segment_name_that_is_no_file_is_skipped(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    written(tmp_path, ALL[:80], ALL[80:104], ALL[104:])
    middle = list_segments(tmp_path)[1].path
    middle.unlink()
    put(middle)

    assert [segment.start for segment in list_segments(tmp_path)] == [0, 104]


def test_a_pipe_where_a_segment_is_to_begin_is_an_error_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{0:020d}.journal")

    with pytest.raises(OSError, match="No such device"):
        SegmentWriter(tmp_path, 1_000_000)


def test_reading_a_highly_compressed_segment_takes_time_linear_in_its_length(
    tmp_path: Path,
) -> None:
    """Moving all of the 50 MB at each read would take minutes."""
    written(tmp_path, b"\0" * 50_000_000)
    reader = SegmentReader(pack(list_segments(tmp_path)[0]), 0)

    length = 0
    while piece := reader.read(5_000):
        length += len(piece)

    assert length == 50_000_000


def test_pack_on_a_full_disk_leaves_nothing_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left would take the last room of the journal, which then never recovers."""
    path = tmp_path / f"{0:020d}.journal"
    path.write_bytes(b"a line\n" * 100)

    def full(source: BinaryIO, target: BinaryIO, size: int) -> None:
        target.write(source.read(size))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        pack(Segment(0, path))

    assert list(tmp_path.iterdir()) == [path]


def test_writer_removes_what_a_killed_process_had_compressed_in_part(tmp_path: Path) -> None:
    written(tmp_path, ALL[:80], ALL[80:])
    part = tmp_path / f"{0:020d}.journal.zst.new"
    part.write_bytes(b"a part")

    SegmentWriter(tmp_path, 1_000_000).close()

    assert not part.exists()
    assert content(tmp_path) == ALL
