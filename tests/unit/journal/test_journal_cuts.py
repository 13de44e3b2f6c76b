"""A journal cut at any byte, as by a crash or a power loss: whole records are read, and the
journal continues.
"""

from pathlib import Path

import pytest

from bridge.core.records import Frame
from bridge.journal.codec import encode, encode_frame
from bridge.journal.inspection import summarise
from bridge.journal.segments import list_segments, pack
from tests.support.journal_subject import LogSubject, frame, read_all, short_forms

COUNT = 30
LINES = [encode_frame(frame(number)) for number in range(COUNT)]
WHOLE = b"".join(LINES)


def whole_frames(length: int) -> list[int | str]:
    return list(range(WHOLE[:length].count(b"\n")))


@pytest.mark.parametrize("length", range(len(WHOLE) - 200, len(WHOLE) + 1))
def test_cut_anywhere_all_whole_frames_are_read_and_the_journal_continues(
    length: int, tmp_path: Path
) -> None:
    (tmp_path / f"{0:020d}.journal").write_bytes(WHOLE[:length])
    subject = LogSubject(tmp_path)
    expected = whole_frames(length)
    assert short_forms(subject.all_from(0)) == expected

    subject.count = len(expected)
    subject.written(1)
    subject.log.close()

    assert short_forms(LogSubject(tmp_path).all_from(0)) == [*expected, len(expected)]
    assert summarise(tmp_path).damage == []


@pytest.mark.parametrize("zeros", [1, 7, 511, 4096])
def test_a_tail_of_zeros_is_no_record(zeros: int, tmp_path: Path) -> None:
    """Some file systems write the length of a file before its bytes."""
    (tmp_path / f"{0:020d}.journal").write_bytes(WHOLE[:-20] + bytes(zeros))

    subject = LogSubject(tmp_path)

    assert short_forms(subject.all_from(0)) == whole_frames(len(WHOLE) - 20)
    assert summarise(tmp_path).damage == []


def test_a_compressed_segment_cut_at_any_byte_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """The segment is first the newest one, then followed by another."""
    source = tmp_path / "source"
    source.mkdir()
    (source / f"{0:020d}.journal").write_bytes(WHOLE)
    packed = pack(list_segments(source)[0]).path.read_bytes()

    for length in range(1, len(packed)):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / f"{0:020d}.journal.zst").write_bytes(packed[:length])

        subject = LogSubject(folder)
        subject.count = 100
        subject.written(3)
        subject.log.close()

        again = LogSubject(folder)
        again.count = 200
        found = again.all_from(0)
        frames = [record for record in found if isinstance(record, Frame)]
        kept = len(frames) - 3
        assert frames == [*map(frame, range(kept)), *map(frame, range(100, 103))], length
        again.log.close()


@pytest.mark.parametrize("place", range(4, 200, 7))
def test_a_newest_segment_that_is_damaged_is_no_reason_to_fail(place: int, tmp_path: Path) -> None:
    (tmp_path / f"{0:020d}.journal").write_bytes(WHOLE)
    packed = pack(list_segments(tmp_path)[0])
    data = bytearray(packed.path.read_bytes())
    data[place % len(data)] ^= 0xFF
    packed.path.write_bytes(data)

    subject = LogSubject(tmp_path)
    subject.count = 100
    subject.written(1)
    cursor = subject.log.cursor(0)

    assert short_forms(read_all(cursor))[-1] == 100


def test_an_empty_journal_begins_at_its_first_record(tmp_path: Path) -> None:
    (tmp_path / f"{0:020d}.journal").write_bytes(b"")

    subject = LogSubject(tmp_path)

    assert subject.log.end == subject.log.oldest() == 0
    assert subject.log.append(subject.state()) == 0
    assert subject.log.end == len(encode(subject.state()))
