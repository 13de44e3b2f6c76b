"""Disk budget, age, segments that are written for too long, files that somebody removes, a journal
that cannot be opened yet.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.journal.checkpoint import Checkpoint, read_checkpoint
from bridge.journal.keeper import ROLL_SHARE, Keeper, Room
from bridge.journal.segments import SegmentWriter, list_segments, pack
from tests.support import frames
from tests.support.hearing_subject import (
    NOW_US,
    ORDERS,
    TARGET,
    TICKERS,
    TRADES,
    Subject,
    full,
    gaps,
    numbers,
)
from tests.support.items import fields

DAY_S = 86_400
SECOND_US = 1_000_000


def never() -> None:
    raise AssertionError("the journal was open")


def keeper(
    subject: Subject,
    folder: Path,
    *,
    max_bytes: int = 1 << 30,
    max_age_s: float = DAY_S,
    now_us: int = NOW_US,
    reopen: Callable[[], None] = never,
) -> Keeper:
    return Keeper(
        subject.hearing, Room(folder, max_bytes, max_age_s, "off"), lambda: now_us, reopen
    )


def written_at(path: Path, us: int) -> None:
    os.utime(path, (us / 1e6, us / 1e6))


def heard(folder: Path, count: int, segment_bytes: int = 2_000) -> Subject:
    """Trades over several segments, all written now; Redis has them."""
    subject = Subject(folder, segment_bytes=segment_bytes).begin()
    subject.open()
    for _ in range(count):
        subject.trades(1)
        subject.hearing.journal.flush()
    subject.hearing.journal.flush()
    for segment in list_segments(folder):
        written_at(segment.path, NOW_US)
    return subject


async def test_over_budget_the_oldest_goes_and_never_what_is_written_now(tmp_path: Path) -> None:
    subject = heard(tmp_path, 40)
    before = list_segments(tmp_path)
    assert len(before) > 4
    room = sum(segment.path.stat().st_size for segment in before[-3:])

    await keeper(subject, tmp_path, max_bytes=room).keep_once()

    assert [each.start for each in list_segments(tmp_path)] == [each.start for each in before[-3:]]
    await keeper(subject, tmp_path, max_bytes=1).keep_once()
    assert [each.start for each in list_segments(tmp_path)] == [before[-1].start]


async def test_what_goes_before_redis_has_it_is_marked(tmp_path: Path) -> None:
    subject = Subject(tmp_path, buffer_bytes=150_000, segment_bytes=20_000).begin()
    subject.open()
    subject.trades(2000)
    tick = frames.TICKER.replace("1790134358087727", str(NOW_US))
    subject.hearing.hear(tick, NOW_US, 1)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US + 2000, 1)
    assert not subject.hearing.is_live
    waiting = subject.waiting()
    subject.hearing.journal.flush()
    subject.trades(1)
    subject.hearing.journal.flush()

    await keeper(subject, tmp_path, max_bytes=1).keep_once()
    subject.all_settled()
    subject.catch_up()

    assert len(list_segments(tmp_path)) == 1
    assert waiting[-1] not in subject.waiting()
    assert [fields(item)["type"] for item in subject.intake.lines[ORDERS].pending] == [
        "orderAccepted"
    ]
    assert [fields(item)["cause"] for item in subject.intake.lines[TICKERS].pending] == [
        "buffer full"
    ]


@pytest.mark.parametrize("packed", [False, True])
async def test_a_segment_goes_when_its_own_last_line_is_too_old(
    packed: bool, tmp_path: Path
) -> None:
    """Not when the one behind it is, and compressing makes nothing younger."""
    subject = heard(tmp_path, 30)
    old, kept = list_segments(tmp_path)[:2]
    written_at(old.path, NOW_US - (DAY_S + 60) * SECOND_US)
    written_at(kept.path, NOW_US - (DAY_S - 60) * SECOND_US)
    if packed:
        old, kept = pack(old), pack(kept)

    await keeper(subject, tmp_path).keep_once()

    assert list_segments(tmp_path)[0].start == kept.start


async def test_a_segment_is_not_written_for_longer_than_a_part_of_the_age(tmp_path: Path) -> None:
    """An account alone fills one in weeks."""
    subject = Subject(tmp_path).begin()
    subject.open()
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    subject.hearing.journal.flush()
    share_us = DAY_S * SECOND_US // ROLL_SHARE

    await keeper(subject, tmp_path, now_us=NOW_US + share_us - SECOND_US).keep_once()
    assert len(list_segments(tmp_path)) == 1
    await keeper(subject, tmp_path, now_us=NOW_US + share_us + SECOND_US).keep_once()
    first, _ = list_segments(tmp_path)
    written_at(first.path, NOW_US)
    await keeper(subject, tmp_path, now_us=NOW_US + (DAY_S + 1) * SECOND_US).keep_once()

    left = b"".join(segment.path.read_bytes() for segment in list_segments(tmp_path))
    assert b"59887375336" not in left


async def test_what_rolls_by_time_is_heard_again_whole(tmp_path: Path) -> None:
    subject = Subject(tmp_path).begin()
    subject.open()
    for hour in range(5):
        subject.trades(2)
        await keeper(subject, tmp_path, now_us=NOW_US + (hour + 2) * 3600 * SECOND_US).keep_once()
    subject.hearing.journal.close()

    assert len(list_segments(tmp_path)) > 1
    assert Subject(tmp_path).begin().waiting() == numbers(0, 10)


async def test_no_new_segment_can_be_made_the_old_one_goes_on_and_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tmp_path, segment_bytes=1_000).begin()
    subject.open()
    assert subject.hearing.journal.writer is not None
    monkeypatch.setattr(SegmentWriter, "_open", full)

    subject.trades(20)
    subject.hearing.journal.flush()
    subject.trades(1)
    await keeper(subject, tmp_path).keep_once()

    assert subject.hearing.journal.trouble == ""
    assert "No space left" in subject.hearing.journal.upkeep_trouble
    monkeypatch.undo()
    await keeper(subject, tmp_path).keep_once()
    assert subject.hearing.journal.upkeep_trouble == ""
    subject.hearing.journal.close()
    assert Subject(tmp_path).begin().waiting() == numbers(0, 21)


# ---- files that somebody removes ---------------------------------------------------------------


def cause_of(item: object) -> str:
    return fields(item).get("cause", "")  # type: ignore[arg-type]


async def test_the_folder_is_removed_it_is_told_and_a_new_one_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    subject = Subject(folder).begin()
    subject.open([TRADES, ORDERS])
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    subject.trades(2)
    subject.hearing.journal.flush()
    shutil.rmtree(folder)
    subject.trades(1)

    upkeep = keeper(subject, folder)
    await upkeep.keep_once()
    subject.trades(2)
    await upkeep.keep_once()

    assert subject.hearing.journal.trouble == ""
    assert subject.hearing.journal.upkeep_trouble == ""
    subject.hearing.journal.close()
    again = Subject(folder).begin(read_checkpoint(folder))
    assert again.waiting() == numbers(3, 2)
    assert [cause_of(item) for item in again.intake.lines[ORDERS].pending] == ["not in the journal"]


def test_the_folder_is_removed_while_a_stream_is_refilled(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    subject = Subject(folder).begin()
    subject.open([TRADES, ORDERS])
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    line = subject.intake.lines[ORDERS]
    line.pending.clear()
    line.confirmed, line.lost_at = "9-0", "0-0"
    subject.hearing.rehearing.refill()
    shutil.rmtree(folder)

    for _ in range(10):
        subject.hearing.catch_up(500)
    subject.hearing.mend()

    assert not subject.hearing.catch_up(500)
    assert "not in the journal" in [cause_of(item) for item in line.pending]
    subject.hearing.hear(frames.ORDER_CANCELLED, NOW_US + SECOND_US, 1)
    assert fields(line.pending[-1])["type"] == "orderCancelled"


def test_the_folder_is_removed_while_more_is_in_it_than_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    subject = Subject(folder, buffer_bytes=150_000).begin()
    subject.open([TRADES, ORDERS])
    subject.trades(1000)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US + 1000, 1)
    subject.hearing.journal.flush()
    assert not subject.hearing.is_live
    shutil.rmtree(folder)
    subject.all_settled()

    subject.hearing.catch_up(500)
    subject.hearing.mend()
    subject.catch_up()

    assert subject.hearing.is_live
    assert "not in the journal" in [cause_of(item) for item in subject.intake.lines[ORDERS].pending]


def test_redis_loses_a_stream_when_the_folder_was_removed(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    subject = Subject(folder, buffer_bytes=150_000).begin()
    subject.open([TRADES, ORDERS])
    subject.trades(1000)
    assert not subject.hearing.is_live
    shutil.rmtree(folder)
    line = subject.intake.lines[ORDERS]
    line.confirmed, line.lost_at = "9-0", "0-0"

    subject.hearing.rehearing.refill()
    subject.catch_up()

    assert subject.hearing.is_live
    assert "redis lost entries" in [cause_of(item) for item in line.pending]


# ---- a journal that cannot be opened yet -------------------------------------------------------


class Late:
    """A subject without a journal, whose keeper opens one in the folder once it may."""

    def __init__(self, folder: Path) -> None:
        self.subject = Subject(None)
        self.subject.hearing.begin_without("cannot write it")
        self.may = False
        self._folder = folder

        def reopen() -> None:
            if not self.may:
                raise PermissionError(13, "Permission denied")
            writer = SegmentWriter(folder, 1_000_000)
            self.subject.hearing.attach(writer, sync_each_flush=False)
            self.subject.hearing.begin_late(None, TARGET)

        self.keeper = keeper(self.subject, folder, reopen=reopen)


async def test_a_journal_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    earlier = Subject(tmp_path).begin()
    earlier.open([TRADES, ORDERS])
    earlier.trades(3)
    earlier.hearing.journal.close()
    late = Late(tmp_path)
    subject, subject.heard = late.subject, 3
    subject.open([TRADES, ORDERS])
    subject.trades(1)
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)

    await late.keeper.keep_once()
    assert subject.hearing.journal.trouble == "cannot open the journal: Permission denied"
    late.may = True
    await late.keeper.keep_once()
    subject.trades(2)
    await late.keeper.keep_once()

    assert subject.hearing.journal.trouble == ""
    assert subject.waiting() == numbers(3, 3)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None
    subject.hearing.journal.close()
    again = Subject(tmp_path).begin(Checkpoint(checkpoint.offset, TARGET))
    assert again.waiting() == numbers(4, 2)
    assert [cause_of(item) for item in again.intake.lines[ORDERS].pending] == [
        "bridge was not running",
        "not in the journal",
    ]
    assert not again.intake.quarantine.pending


async def test_what_was_heard_before_it_could_be_opened_is_told_of_to_a_refill(
    tmp_path: Path,
) -> None:
    late = Late(tmp_path)
    subject = late.subject
    subject.open([TRADES, ORDERS])
    subject.hearing.hear(frames.ORDER_ACCEPTED, NOW_US, 1)
    late.may = True
    await late.keeper.keep_once()
    line = subject.intake.lines[ORDERS]
    line.pending.clear()
    line.confirmed, line.lost_at = "9-0", "0-0"

    subject.hearing.rehearing.refill()
    subject.catch_up()

    assert gaps(subject)
    assert "not in the journal" in [cause_of(item) for item in line.pending]
