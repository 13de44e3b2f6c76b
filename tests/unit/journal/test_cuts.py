"""A journal cut at every byte of its end, as a crash or a power loss may leave it: what was whole
is heard, and the journal goes on.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.contract.streams import parse_stream
from bridge.journal.hearing import Hearing
from bridge.journal.reading import summarise
from bridge.journal.record import Kind, read
from bridge.journal.segments import SegmentWriter, list_segments, pack, read_lines
from bridge.pipeline.intake import Intake
from tests.support import frames

NOW_US = 1790915531026999
FIRST = 99419870
TRADES = "trade.BTC_USDC_PERP"
LAST_KILOBYTE = 1024


def hearing(folder: Path, segment_bytes: int = 1_000_000) -> tuple[Hearing, Intake]:
    """A bridge's way in, with its journal in `folder`, caught up."""
    intake = Intake([parse_stream(TRADES)], hold_us=0, snapshot_every=0, ask=lambda _: None)
    heard = Hearing(
        intake,
        buffer_bytes=10_000_000,
        keep_private=True,
        clock_us=lambda: NOW_US,
        on_items=lambda: None,
    )
    heard.attach(SegmentWriter(folder, segment_bytes), sync_each_flush=False)
    heard.begin(None, "here")
    while heard.catch_up(1000):
        pass
    return heard, intake


def trades(heard: Hearing, start: int, count: int, connection: int) -> None:
    for number in range(start, start + count):
        frame = frames.TRADE.replace(str(FIRST), str(FIRST + number))
        heard.hear(frame, NOW_US + number, connection)
        heard.journal.flush()


def positions(intake: Intake) -> list[int]:
    return [item.position - FIRST for item in intake.lines[TRADES].pending]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a journal of thirty trades."""
    folder = tmp_path_factory.mktemp("whole")
    heard, _ = hearing(folder)
    trades(heard, 0, 30, heard.opened("public-1", [TRADES]))
    heard.journal.close()
    (segment,) = list_segments(folder)
    return segment.path.read_bytes()


def whole_trades(data: bytes) -> list[int]:
    """The trades in the whole lines of a piece of a journal."""
    lines = data.split(b"\n")[:-1]
    records = [record for line in lines if (record := read(line))]
    return list(range(sum(record.kind is Kind.FRAME for record in records)))


def test_cut_anywhere_in_its_last_kilobyte_all_whole_frames_are_heard_again(
    whole: bytes, tmp_path: Path
) -> None:
    """At every byte of the last line; which lines are whole at any other is the segments' test."""
    last_line = range(len(whole) - len(whole.splitlines()[-1]) - 2, len(whole) + 1)
    for length in (*range(len(whole) - LAST_KILOBYTE, last_line.start, 8), *last_line):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / f"{0:020d}.journal").write_bytes(whole[:length])

        heard, intake = hearing(folder)
        expected = whole_trades(whole[:length])
        assert positions(intake) == expected, f"cut at {length}"

        trades(heard, len(expected), 1, heard.opened("public-1", [TRADES]))
        heard.journal.close()
        assert positions(intake) == [*expected, len(expected)], f"cut at {length}"
        if length % 64 == 0:
            assert summarise(folder).damage == []


@pytest.mark.parametrize("zeros", [1, 7, 511, 4096])
def test_a_tail_of_zeros_is_no_record(zeros: int, whole: bytes, tmp_path: Path) -> None:
    """Some file systems have the length of a file before they have its bytes."""
    (tmp_path / f"{0:020d}.journal").write_bytes(whole[:-20] + bytes(zeros))

    heard, intake = hearing(tmp_path)
    heard.journal.close()

    assert positions(intake) == whole_trades(whole[:-20])
    assert summarise(tmp_path).damage == []


def cuts(packed: bytes) -> Iterator[tuple[int, bytes]]:
    for length in range(max(1, len(packed) - LAST_KILOBYTE), len(packed)):
        yield length, packed[:length]


def test_a_compressed_segment_cut_at_any_byte_is_heard_as_far_as_it_goes(
    whole: bytes, tmp_path: Path
) -> None:
    """As the newest there is, and with another behind it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / f"{0:020d}.journal").write_bytes(whole)
    packed = pack(list_segments(source)[0]).path.read_bytes()

    for length, piece in cuts(packed):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / f"{0:020d}.journal.zst").write_bytes(piece)
        left = [line for _, line in read_lines(folder, 0) if line]

        heard, intake = hearing(folder)
        expected = whole_trades(b"".join(line + b"\n" for line in left))
        assert positions(intake) == expected, f"cut at {length}"
        trades(heard, len(expected), 3, heard.opened("public-1", [TRADES]))
        heard.journal.close()

        _, again = hearing(folder)
        assert positions(again) == [*range(len(expected) + 3)], f"cut at {length}"


def test_a_compressed_segment_cut_in_the_middle_of_a_journal_is_told(
    whole: bytes, tmp_path: Path
) -> None:
    (tmp_path / f"{0:020d}.journal").write_bytes(whole)
    packed = pack(list_segments(tmp_path)[0])
    packed.path.write_bytes(packed.path.read_bytes()[:-100])
    following = tmp_path / f"{len(whole):020d}.journal"
    following.write_bytes(whole)

    assert summarise(tmp_path).damage != []


@pytest.mark.parametrize("place", range(4, 200, 7))
def test_a_compressed_segment_with_a_wrong_byte_is_no_reason_to_fail(
    place: int, whole: bytes, tmp_path: Path
) -> None:
    (tmp_path / f"{0:020d}.journal").write_bytes(whole)
    packed = pack(list_segments(tmp_path)[0])
    data = bytearray(packed.path.read_bytes())
    data[place % len(data)] ^= 0xFF
    packed.path.write_bytes(data)

    heard, _ = hearing(tmp_path)
    trades(heard, 100, 1, heard.opened("public-1", [TRADES]))
    heard.journal.close()

    _, again = hearing(tmp_path)
    assert 100 in positions(again)
