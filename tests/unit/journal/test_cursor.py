"""A cursor yields no damaged record, and reports unreadable ones as `Missing`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridge.contract.causes import GapCause
from bridge.core.records import Answered, Frame, Missing, Opened, Record, SegmentState
from bridge.journal import segments
from bridge.journal.segments import list_segments, pack
from tests.support.journal_subject import (
    NOW_US,
    ORDERS,
    TICKERS,
    TRADES,
    LogSubject,
    fill_disk,
    frame,
    read_all,
    short_forms,
)

PER_SEGMENT = 4
SEGMENTS = 5


def journal(folder: Path, *, packed: bool = False) -> LogSubject:
    """Frames 0 to 19 in five segments; the last one is open, `packed` compresses the others."""
    subject = LogSubject(folder)
    for number in range(SEGMENTS):
        if number:
            subject.roll()
        subject.written(PER_SEGMENT)
    if packed:
        for segment in list_segments(folder)[:-1]:
            pack(segment)
    return subject


def change(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


def a_byte_less(place: int) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[place] ^= 0x01
        return bytes(changed)

    return flip


def is_true_and_covers(found: Sequence[Record], count: int = PER_SEGMENT * SEGMENTS) -> None:
    """Assert that the frames found are correct and in order, and `Missing` covers the others."""
    frames = [record for record in found if isinstance(record, Frame)]
    missing = [record for record in found if isinstance(record, Missing)]
    numbers = [record.received_us - NOW_US for record in frames]
    assert numbers == sorted(set(numbers))
    assert frames == [frame(number) for number in numbers]
    for number in set(range(count)) - set(numbers):
        at_us = NOW_US + number
        assert any(
            each.spans is None and each.from_us <= at_us <= each.received_us for each in missing
        ), number


def without_end(record: Record) -> Record:
    """This `Missing` without its end position."""
    assert isinstance(record, Missing)
    return record._replace(end=0)


def test_read_gives_records_in_order_with_their_positions(tmp_path: Path) -> None:
    subject = journal(tmp_path)
    cursor = subject.log.cursor(0)

    found = cursor.read(4)

    assert [record for _, record in found] == [frame(number) for number in range(4)]
    assert not cursor.at_end
    assert short_forms(read_all(cursor)) == list(range(4, 20))
    assert cursor.at_end
    assert cursor.read(5) == []


def test_at_the_end_it_is_live(tmp_path: Path) -> None:
    subject = LogSubject(tmp_path)
    cursor = subject.log.cursor(0)
    assert cursor.read(1) == []

    [position] = subject.frames(1)

    assert cursor.read(10) == [(position, frame(0))]
    assert cursor.read(10) == []


@pytest.mark.parametrize("packed", [False, True])
def test_reading_begins_at_any_record(packed: bool, tmp_path: Path) -> None:
    subject = journal(tmp_path, packed=packed)
    positions = [position for position, _ in subject.log.cursor(0).read(100)]

    for number, position in enumerate(positions):
        assert subject.log.cursor(position).read(1) == [(position, frame(number))]


def test_a_segments_state_counts_as_the_first_record_only(tmp_path: Path) -> None:
    subject = journal(tmp_path)
    second = list_segments(tmp_path)[1]

    found = subject.all_from(second.start)

    assert isinstance(found[0], SegmentState)
    assert short_forms(found[1:]) == list(range(4, 20))


def test_segments_compressed_or_removed_while_they_are_read_are_read_to_their_end(
    tmp_path: Path,
) -> None:
    subject = journal(tmp_path)
    cursor = subject.log.cursor(0)
    assert short_forms([record for _, record in cursor.read(2)]) == [0, 1]

    first, *others, _ = list_segments(tmp_path)
    first.path.unlink()
    for segment in others:
        pack(segment)

    assert short_forms(read_all(cursor)) == list(range(2, 20))


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_one_byte_flipped_in_each_of_three_segments_nothing_wrong_is_yielded(
    packed: bool, tmp_path: Path
) -> None:
    subject = journal(tmp_path, packed=packed)
    for segment in list_segments(tmp_path)[:3]:
        change(segment.path, a_byte_less(segment.path.stat().st_size // 2))
    cursor = subject.log.cursor(0)

    found = read_all(cursor)

    is_true_and_covers(found)
    assert cursor.damaged >= 3


@given(
    place=st.floats(0, 1, exclude_max=True),
    wrong=st.integers(1, 255),
    number=st.integers(0, SEGMENTS - 2),
    packed=st.booleans(),
)
def test_a_byte_changed_anywhere_nothing_wrong_is_yielded(
    place: float, wrong: int, number: int, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    subject = journal(folder, packed=packed)

    def spoil(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(place * len(content))] ^= wrong
        return bytes(changed)

    change(list_segments(folder)[number].path, spoil)

    is_true_and_covers(subject.all_from(0))
    subject.log.close()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:10] + bytes(40_000) + content[60:],
        lambda _: bytes(40_000),
        lambda _: b"",
        lambda content: content[len(content) // 2 :],
        lambda content: content[:40] + content[90:],
    ],
    ids=["halved", "zeros inside", "zeros", "empty", "second half", "a piece cut out"],
)
def test_damaged_segments_yield_nothing_wrong_and_losses_are_reported(
    spoil: Callable[[bytes], bytes], packed: bool, tmp_path: Path
) -> None:
    subject = journal(tmp_path, packed=packed)
    for segment in list_segments(tmp_path)[1:3]:
        change(segment.path, spoil)
    cursor = subject.log.cursor(0)

    found = read_all(cursor)

    is_true_and_covers(found)
    assert short_forms(found)[:4] == [0, 1, 2, 3]
    assert short_forms(found)[-8:] == list(range(12, 20))


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_compressed_segment_cut_at_any_byte_is_read_as_far_as_it_goes(
    cut: int, tmp_path: Path
) -> None:
    subject = journal(tmp_path, packed=True)
    change(list_segments(tmp_path)[1].path, lambda content: content[:-cut])

    is_true_and_covers(subject.all_from(0))


def test_removed_segments_are_reported_with_the_times_around_them_and_the_state_behind(
    tmp_path: Path,
) -> None:
    subject = journal(tmp_path)
    _, second, third, *_ = list_segments(tmp_path)
    second.path.unlink()
    third.path.unlink()

    with capture_logs() as logs:
        found = subject.log.cursor(0).read(100)

    assert short_forms([record for _, record in found[:7]]) == [
        0, 1, 2, 3, "-*", "SegmentState", 12,
    ]  # fmt: skip
    position, missing = found[4]
    assert (position, without_end(missing)) == (
        second.start,
        Missing(NOW_US + 12, GapCause.NOT_IN_JOURNAL, None, NOW_US + 3),
    )
    assert isinstance(missing, Missing)
    assert missing.end == found[6][0], "it ends at the next readable record"
    assert [line["event"] for line in logs] == ["journal_unreadable"]


def test_damage_up_to_the_end_is_reported_until_now(tmp_path: Path) -> None:
    subject = LogSubject(tmp_path)
    positions = subject.written(5)
    change(list_segments(tmp_path)[0].path, lambda content: content[: positions[3] + 10])
    cursor = subject.log.cursor(0)

    found = read_all(cursor)

    assert short_forms(found) == [0, 1, 2, "-*"]
    assert without_end(found[-1]) == Missing(NOW_US + 5, GapCause.NOT_IN_JOURNAL, None, NOW_US + 2)
    subject.written(1)
    assert short_forms(read_all(cursor)) == [5]


def test_a_removed_oldest_segment_is_reported_from_the_readers_last_time_on(
    tmp_path: Path,
) -> None:
    subject = journal(tmp_path)
    list_segments(tmp_path)[0].path.unlink()

    found = read_all(subject.log.cursor(0, since_us=NOW_US + 1))

    assert short_forms(found)[:3] == ["-*", "SegmentState", 4]
    assert without_end(found[0]) == Missing(NOW_US + 4, GapCause.NOT_IN_JOURNAL, None, NOW_US + 1)


def test_a_pending_missing_record_keeps_the_checkpoint_before_it(tmp_path: Path) -> None:
    subject = journal(tmp_path)
    second = list_segments(tmp_path)[1]
    change(second.path, a_byte_less(3))
    cursor = subject.log.cursor(0)
    cursor.read(4)

    cursor.pass_over(second.start + 10, 1)

    assert cursor.position > second.start
    assert cursor.yielded_to == second.start
    assert not cursor.at_end


def test_a_segment_that_cannot_be_opened_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = journal(tmp_path)
    second = list_segments(tmp_path)[1]
    really = segments._open_raw

    def refuse(segment: segments.Segment) -> object:
        if segment.start == second.start:
            raise PermissionError(13, "Permission denied")
        return really(segment)

    monkeypatch.setattr(segments, "_open_raw", refuse)

    is_true_and_covers(subject.all_from(0))


def test_an_overlong_line_is_damage_and_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read of a megabyte would copy the whole line again."""
    monkeypatch.setattr("bridge.journal.cursor.MAX_LINE", 1_500_000)
    journal(tmp_path).log.close()
    change(list_segments(tmp_path)[-1].path, lambda content: content + b"\0" * 8_000_000 + b"\n")

    with capture_logs() as logs:
        found = LogSubject(tmp_path).all_from(0)

    is_true_and_covers(found)
    assert short_forms(found)[:20] == list(range(20))
    assert "a line has no end" in [one.get("reason") for one in logs]


def test_a_file_removed_between_two_reads_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = journal(tmp_path)

    def gone(_: object) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(segments, "_open_raw", gone)

    assert short_forms(subject.all_from(0)) == ["-*"]


# ---- lines of earlier versions -------------------------------------------------------------------


def old(number: int) -> bytes:
    received_us, connection, body = frame(number)
    return b"%d F %d %b\n" % (received_us, connection, body)


def test_a_journal_of_an_earlier_version_continues_in_the_same_segment(tmp_path: Path) -> None:
    (tmp_path / f"{0:020d}.journal").write_bytes(old(0) + old(1))
    subject = LogSubject(tmp_path)
    subject.count = 2
    subject.written(2)

    assert short_forms(subject.all_from(0)) == [0, 1, 2, 3]


def test_behind_a_checksum_a_line_without_one_is_damage(tmp_path: Path) -> None:
    """Otherwise a byte flipped to a line feed could make a record of a frame's text."""
    subject = LogSubject(tmp_path)
    subject.written(1)
    text = b'{"x":"' + old(7)[:-1] + b'"}'
    subject.log.append(Frame(NOW_US + 1, 1, text))
    subject.log.flush()
    subject.count = 2
    subject.written(1)
    change(list_segments(tmp_path)[0].path, lambda all_: all_.replace(b'x":"17', b'x":\n17'))

    assert short_forms(subject.all_from(0)) == [0, "-*", 2]


# ---- making room ---------------------------------------------------------------------------------


def mixed(folder: Path) -> LogSubject:
    subject = LogSubject(folder)
    subject.log.append(Opened(subject.now_us(), 1, "public-1", [TRADES]))
    for _ in range(10):
        subject.written(2, TRADES)
        subject.written(1, ORDERS)
        subject.written(1, TICKERS)
    subject.log.append(Answered(subject.now_us(), 1, 5))
    subject.roll()
    subject.written(1)
    return subject


def test_pass_over_yields_account_events_and_one_record_for_the_rest(tmp_path: Path) -> None:
    subject = mixed(tmp_path)
    until = list_segments(tmp_path)[1].start
    cursor = subject.log.cursor(0)
    found = []

    while cursor.position < until:
        step = cursor.pass_over(until, 10)
        assert len(step) <= 11
        found += step
    records = [record for _, record in found]

    assert short_forms(records) == [
        "Opened", *range(2, 40, 4), "Answered", f"-{TICKERS},{TRADES}",
    ]  # fmt: skip
    spans = {TRADES: (NOW_US, NOW_US + 37), TICKERS: (NOW_US + 3, NOW_US + 39)}
    assert without_end(records[-1]) == Missing(NOW_US + 39, GapCause.OVERFLOW, spans)
    assert short_forms(read_all(cursor)) == [40]


def test_skipped_records_are_reported_before_reading_continues(tmp_path: Path) -> None:
    subject = mixed(tmp_path)
    cursor = subject.log.cursor(0)
    cursor.pass_over(subject.log.end, 3)
    first = cursor.yielded_to

    found = cursor.read(2)

    assert found[0][0] == first
    assert short_forms([record for _, record in found]) == [f"-{TRADES}", 2, 3]


def test_records_pruned_while_they_are_read_are_reported(tmp_path: Path) -> None:
    subject = journal(tmp_path)
    cursor = subject.log.cursor(0)
    assert short_forms([record for _, record in cursor.read(4)]) == [0, 1, 2, 3]

    for segment in list_segments(tmp_path)[:3]:
        segment.path.unlink()

    found = read_all(cursor)
    assert short_forms(found) == ["-*", "SegmentState", *range(12, 20)]
    assert without_end(found[0]) == Missing(NOW_US + 12, GapCause.NOT_IN_JOURNAL, None, NOW_US + 3)


def test_no_read_returns_more_records_than_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path)
    subject.written(3_000)
    fill_disk(monkeypatch)
    subject.written(1_000)
    cursor = subject.log.cursor(0)

    seen = 0
    while found := cursor.read(50):
        assert len(found) <= 50
        seen += len(found)

    assert seen == 4_000


def test_a_cursor_that_is_dropped_leaves_no_file_open(tmp_path: Path) -> None:
    subject = journal(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    for _ in range(5):
        subject.log.cursor(0).read(1)

    if before:
        assert len(os.listdir("/proc/self/fd")) == before
