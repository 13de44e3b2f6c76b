"""`Log.append` never fails: unwritten records wait in a bounded tail, a drop is reported."""

import os
import shutil
from pathlib import Path

import pytest

from bridge.contract.causes import GapCause
from bridge.core.records import (
    BodyKind,
    CaughtUp,
    Frame,
    Lost,
    Missing,
    Opened,
    Rebased,
    RestBody,
    SegmentState,
    Started,
)
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.log import Log, NullLog
from bridge.journal.segments import SegmentWriter, list_segments
from tests.support.journal_subject import (
    NOW_US,
    ORDERS,
    TICKERS,
    TRADES,
    LogSubject,
    fill_disk,
    frame,
    full,
    read_all,
    short_forms,
)


def test_append_returns_the_position_that_the_record_is_read_from(tmp_path: Path) -> None:
    subject = LogSubject(tmp_path)
    positions = subject.frames(3)

    assert positions[0] == 0
    assert subject.log.end > positions[2]
    assert short_forms(subject.all_from(positions[1])) == [1, 2]


@pytest.mark.parametrize("record", [CaughtUp(1), Rebased(1, 4)])
def test_append_of_a_record_that_is_not_journaled_takes_no_space(
    record: CaughtUp | Rebased, tmp_path: Path
) -> None:
    subject = LogSubject(tmp_path)
    subject.frames(1)

    assert subject.log.append(record) == subject.log.end
    assert short_forms(subject.all_from(0)) == [0]


def test_disk_full_then_room_nothing_is_lost_and_positions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path)
    before = subject.written(2)
    fill_disk(monkeypatch)
    while_full = subject.written(3)
    assert subject.log.is_broken
    assert subject.log.trouble == "cannot write the journal: No space left on device"
    assert not subject.recover()
    monkeypatch.undo()

    assert subject.recover()

    after = subject.written(1)
    assert not subject.log.is_broken
    assert subject.log.trouble == ""
    assert [position for position, _ in subject.log.cursor(0).read(10)] == [
        *before, *while_full, *after,
    ]  # fmt: skip
    assert len(list_segments(tmp_path)) == 1
    assert not subject.log.unwritten_spans
    assert subject.log.loss.frames == 0


def test_a_long_tail_loses_the_oldest_public_frames_and_one_record_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=4_000)
    written = subject.written(1)
    fill_disk(monkeypatch)
    subject.written(1, ORDERS)
    subject.log.append(Opened(subject.now_us(), 2, "public-2", [TRADES]))
    subject.written(30, TRADES)
    subject.written(60, TICKERS)
    assert subject.log.tail_bytes <= 4_000
    monkeypatch.undo()
    subject.recover()
    subject.written(1)

    found = short_forms(subject.all_from(0))

    first, missing, order, opened, *kept = found
    assert (first, order, opened) == (0, 1, "Opened")
    assert missing == f"-{TICKERS},{TRADES}"
    assert kept == list(range(92 - len(kept) + 1, 93))
    assert len(kept) > 20
    assert subject.log.loss.frames == 91 - len(kept) + 0
    assert subject.log.unwritten_spans[-1][0] > written[0]


def test_the_record_of_a_loss_has_its_streams_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.written(5, TICKERS)
    subject.written(40, TRADES)
    monkeypatch.undo()
    subject.recover()

    [missing] = [each for each in subject.all_from(0) if isinstance(each, Missing)]

    assert missing.cause is GapCause.NOT_IN_JOURNAL
    assert missing.spans is not None
    assert missing.spans[TICKERS] == (NOW_US + 1, NOW_US + 5)
    from_us, to_us = missing.spans[TRADES]
    assert from_us == NOW_US + 6
    assert to_us < NOW_US + 45


def test_account_frames_are_dropped_before_records_of_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    fill_disk(monkeypatch)
    subject.log.append(Started(subject.now_us()))
    subject.log.append(Opened(subject.now_us(), 1, "account-1", [ORDERS]))
    subject.written(60, ORDERS)
    monkeypatch.undo()
    subject.recover()

    found = short_forms(subject.all_from(0))

    assert found[:4] == [f"-{ORDERS}", "SegmentState", "Started", "Opened"]
    assert found[4:] == list(range(60 - len(found[4:]), 60))


def test_records_of_connections_are_dropped_last_and_may_concern_every_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.log.append(RestBody(subject.now_us(), TRADES, BodyKind.MAIN, b"x" * 900))
    for number in range(40):
        subject.log.append(Lost(NOW_US + 10 + number, number, GapCause.CONNECTION_LOST))
    subject.log.flush()
    assert subject.log.tail_bytes <= 2_000
    monkeypatch.undo()
    subject.recover()

    _, missing, state, *kept = subject.all_from(0)

    assert isinstance(missing, Missing)
    assert missing.spans is None
    assert missing.from_us == NOW_US + 10
    assert isinstance(state, SegmentState)
    assert {type(record) for record in kept} == {Lost}


def test_a_tail_with_a_loss_is_read_from_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=3_000)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.written(100)
    reader = subject.log.cursor(0)

    found = read_all(reader)

    assert short_forms(found[:2]) == [0, f"-{TRADES}"]
    assert isinstance(found[1], Missing)
    assert found[1].cause is GapCause.OVERFLOW
    assert short_forms(found[2:]) == list(range(101 - len(found[2:]), 101))
    assert reader.at_end


def test_a_reader_in_the_tail_gets_a_loss_of_unread_records_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=3_000)
    fill_disk(monkeypatch)
    subject.written(20)
    reader = subject.log.cursor(0)
    assert short_forms(read_all(reader)) == list(range(20))

    subject.written(10)
    assert short_forms([record for _, record in reader.read(2)]) == [20, 21]
    subject.written(100)
    found = [record for _, record in reader.read(100)]

    assert isinstance(found[0], Missing)
    assert found[0].spans is not None
    assert found[0].spans[TRADES][0] == NOW_US + 22
    monkeypatch.undo()
    subject.recover()
    subject.written(1)
    assert short_forms(read_all(reader)) == [130]


def test_twice_broken_each_loss_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    subject.written(1)
    for stream in (TRADES, TICKERS):
        fill_disk(monkeypatch)
        subject.written(60, stream)
        monkeypatch.undo()
        subject.recover()
        subject.written(1)

    found = short_forms(subject.all_from(0))

    assert [each for each in found if isinstance(each, str)] == [f"-{TRADES}", f"-{TICKERS}"]
    assert found[-1] == 122


def test_a_write_that_fails_half_way_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path)
    subject.written(1)
    really_write = os.write

    def half_then_full(descriptor: int, data: bytes) -> int:
        if len(data) > 30:
            return really_write(descriptor, data[:30])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half_then_full)
    monkeypatch.setattr(os, "ftruncate", full)  # the partial line cannot be cut off
    subject.written(2)
    assert short_forms(subject.all_from(0)) == [0, 1, 2]
    monkeypatch.undo()
    subject.recover()
    subject.written(1)
    subject.log.close()

    assert short_forms(LogSubject(tmp_path).all_from(0)) == [0, 1, 2, 3]


def test_a_segment_after_a_loss_that_cannot_be_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.written(60)
    assert not subject.recover()
    subject.written(60)
    assert not subject.recover()
    monkeypatch.undo()

    assert subject.recover()

    found = short_forms(subject.all_from(0))
    assert found[:2] == [0, f"-{TRADES}"]
    assert found[2:] == list(range(121 - len(found[2:]), 121))


def test_the_head_of_a_segment_after_a_loss_is_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tail's records are later than this state."""
    subject = LogSubject(tmp_path, tail_limit_bytes=2_000)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.written(1)
    subject.log.recover(SegmentState(7, {1: {TRADES: 1}}, {}, ()))
    subject.log.append(Lost(subject.now_us(), 1, GapCause.CONNECTION_LOST))
    subject.written(60)
    monkeypatch.undo()
    subject.log.recover(SegmentState(8, {}, {}, ()))
    start = list_segments(tmp_path)[-1].start

    found = subject.all_from(start)

    assert found[0] == SegmentState(7, {1: {TRADES: 1}}, {}, ())
    assert short_forms(found[1:3]) == [f"-{TRADES}", "Lost"]


# ---- removed files -------------------------------------------------------------------------------


def test_a_removed_folder_is_noticed_and_a_new_one_continues(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    subject = LogSubject(folder)
    subject.written(3)
    reader = subject.log.cursor(0)
    shutil.rmtree(folder)

    assert not subject.log.check()
    subject.log.lacks({ORDERS: (NOW_US, NOW_US + 1)})
    subject.frames(1)
    assert subject.log.is_broken
    assert subject.recover()
    assert subject.log.check()
    subject.written(1)

    assert short_forms(read_all(reader)) == ["-*", "SegmentState", f"-{ORDERS}", 3, 4]
    subject.log.close()
    again = LogSubject(folder)
    assert short_forms(again.all_from(again.log.oldest())) == ["SegmentState", f"-{ORDERS}", 3, 4]


def test_a_reader_at_the_end_misses_nothing_when_the_folder_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    subject = LogSubject(folder)
    subject.written(3)
    reader = subject.log.cursor(0)
    assert short_forms(read_all(reader)) == [0, 1, 2]
    shutil.rmtree(folder)
    subject.log.check()
    subject.log.lacks({ORDERS: (NOW_US, NOW_US + 1)})
    subject.recover()
    subject.written(1)

    assert short_forms(read_all(reader)) == [3]


# ---- a journal that is opened late, or shorter than it was ---------------------------------------


def test_records_from_before_the_journal_could_be_opened_are_in_it(tmp_path: Path) -> None:
    earlier = LogSubject(tmp_path)
    earlier.written(3)
    earlier.log.close()
    subject = LogSubject(None)
    subject.count = 10
    assert subject.log.is_broken
    assert not subject.recover()
    position = subject.written(2)[1]
    reader = subject.log.cursor(position)

    by = subject.log.open_late(SegmentWriter(tmp_path, 1_000_000))
    assert subject.recover()

    assert by == earlier.log.end
    assert short_forms(subject.all_from(0)) == [0, 1, 2, 10, 11]
    assert short_forms(subject.all_from(position + by)) == [11]
    assert short_forms(read_all(reader)) == [11]


def test_records_dropped_before_it_could_be_opened_are_reported(tmp_path: Path) -> None:
    earlier = LogSubject(tmp_path)
    earlier.written(3)
    earlier.log.close()
    subject = LogSubject(None, tail_limit_bytes=2_000)
    subject.count = 10
    subject.written(60)
    reader = subject.log.cursor(0)

    subject.log.open_late(SegmentWriter(tmp_path, 1_000_000))
    subject.recover()

    found = short_forms(subject.all_from(0))
    assert found[:4] == [0, 1, 2, f"-{TRADES}"]
    assert found[4:] == list(range(70 - len(found[4:]), 70))
    assert short_forms(read_all(reader)) == [f"-{TRADES}", "SegmentState", *found[4:]]


def test_a_journal_shorter_than_in_its_checkpoint_has_lost_its_end(
    tmp_path: Path,
) -> None:
    first = LogSubject(tmp_path)
    positions = first.written(10)
    first.log.close()
    end = first.log.end
    os.truncate(list_segments(tmp_path)[0].path, positions[6])
    second = LogSubject(tmp_path)
    second.count = 20

    checkpoint = second.log.trusted(Checkpoint(positions[2], "here", end=end))
    second.written(1)

    assert checkpoint is not None
    assert second.log.oldest() == 0
    found = second.all_from(0)
    assert short_forms(found) == [*range(6), "-*", 20]
    assert isinstance(found[6], Missing)
    assert (found[6].from_us, found[6].received_us) == (NOW_US + 5, NOW_US + 20)
    second.log.close()
    assert short_forms(LogSubject(tmp_path).all_from(0)) == short_forms(found), "after a restart"


@pytest.mark.parametrize(
    "checkpoint",
    [Checkpoint(10**9, "here"), Checkpoint(0, "here", suspended={TRADES: 10**9})],
)
def test_a_checkpoint_beyond_the_end_is_not_used(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A checkpoint of an earlier version, without the length of the journal."""
    subject = LogSubject(tmp_path)
    subject.written(3)

    assert subject.log.trusted(checkpoint) is None
    assert short_forms(subject.all_from(subject.log.oldest())) == [0, 1, 2]


# ---- syncing, rolling, closing -------------------------------------------------------------------


def test_roll_begins_a_segment_with_the_state(tmp_path: Path) -> None:
    subject = LogSubject(tmp_path)
    subject.frames(2)
    subject.roll()
    subject.roll()  # the segment has only its head: no new one
    subject.written(2)

    first, second, third = list_segments(tmp_path)
    assert short_forms(subject.all_from(second.start)) == ["SegmentState", 2, 3]
    assert short_forms(subject.all_from(0)) == [0, 1, 2, 3]
    assert subject.log.start_before(third.start + 5) == third.start
    assert first.start == 0


def test_flush_never_rolls_even_a_full_segment(tmp_path: Path) -> None:
    subject = LogSubject(tmp_path, segment_bytes=100)
    subject.written(50)

    assert len(list_segments(tmp_path)) == 1
    assert subject.log.is_full


def test_close_counts_the_frames_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path)
    subject.written(1)
    fill_disk(monkeypatch)
    subject.written(2)
    subject.log.append(Started(subject.now_us()))

    subject.log.close()

    assert (subject.log.loss.frames, subject.log.loss.first_us, subject.log.loss.last_us) == (
        2, NOW_US + 1, NOW_US + 2,
    )  # fmt: skip


def test_close_writes_the_remaining_records(tmp_path: Path) -> None:
    subject = LogSubject(tmp_path)
    subject.frames(2)
    subject.log.close()

    assert short_forms(LogSubject(tmp_path).all_from(0)) == [0, 1]


def test_a_sync_that_fails_breaks_the_log_and_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = LogSubject(tmp_path, syncs_each_flush=True)
    monkeypatch.setattr(os, "fsync", full)
    subject.written(1)
    assert subject.log.is_broken
    assert not subject.recover()
    monkeypatch.undo()

    assert subject.recover()
    assert short_forms(subject.all_from(0)) == [0]


def test_time_at_is_when_the_first_record_from_there_came(tmp_path: Path) -> None:
    subject = LogSubject(tmp_path)
    positions = subject.written(3)

    assert subject.log.time_at(positions[1]) == NOW_US + 1
    assert subject.log.time_at(subject.log.end) == 0


def test_a_log_that_keeps_nothing_is_always_at_its_end() -> None:
    log = NullLog()

    assert log.append(Started(1)) == log.end == 0
    assert log.append_frames(1, 1, [b"{}", b"{}"]) == [0, 0]
    assert log.cursor(0).read(10) == log.cursor(0).pass_over(1, 10) == []
    assert log.cursor(0).at_end
    assert not log.is_broken


def test_both_kinds_of_log_have_the_same_shape(tmp_path: Path) -> None:
    only_with_files = {
        "check", "fail", "is_full", "is_open", "lacks", "missed", "now_us", "open_late",
        "segment_start", "segments", "tail", "tail_edition", "tail_start", "trusted",
    }  # fmt: skip
    names = {name for name in dir(LogSubject(tmp_path).log) if not name.startswith("_")}

    assert names - only_with_files <= set(dir(NullLog()))
    assert isinstance(frame(1), Frame)
    assert Log is not NullLog
