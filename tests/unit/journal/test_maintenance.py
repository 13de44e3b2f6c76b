"""Upkeep of a journal: disk budget, age, rolling, removed files, late opening, power loss."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from bridge.core.records import Frame, Missing, Record, SegmentState
from bridge.journal import maintenance, opening
from bridge.journal.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from bridge.journal.cursor import Cursor
from bridge.journal.maintenance import ROLL_SHARE, Maintenance
from bridge.journal.opening import JournalSettings, open_log
from bridge.journal.owner import Owner
from bridge.journal.segments import SegmentWriter, list_segments, pack
from tests.support.eventually import eventually_async
from tests.support.journal_subject import (
    NOW_US,
    ORDERS,
    TICKERS,
    TRADES,
    fill_disk,
    frame,
    full,
    read_all,
    short_forms,
)

DAY_S = 86_400
SECOND_US = 1_000_000
TARGET = "127.0.0.1:6379/0"


class Bridge:
    """The part of a bridge that the upkeep uses; records up to `settled` are published."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.settings = settings_of(folder, **settings)
        self.at_us = NOW_US
        self.log, self.begun = open_log(self.settings, self.now_us)
        self.upkeep = Maintenance(self.log, self.settings, self)
        self.behind: list[Cursor] = []
        self.found: list[Record] = []
        self.unsettled: dict[str, tuple[int, int]] = {}
        self.settled: int | None = None
        self.rebased_by: list[int] = []
        self.count = 0

    def now_us(self) -> int:
        return self.at_us

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.log.end if self.settled is None else self.settled, TARGET)

    def skip_before(self, until: int, limit: int) -> bool:
        for cursor in self.behind:
            if cursor.position < until:
                self.found += [record for _, record in cursor.pass_over(until, limit)]
                if cursor.position < until:
                    return False
        return True

    def state(self) -> SegmentState:
        return SegmentState(self.now_us(), {1: {TRADES: NOW_US}}, {}, ())

    def waiting(self) -> Mapping[str, tuple[int, int]]:
        return self.unsettled

    def rebased(self, by: int, checkpoint: Checkpoint | None) -> None:
        self.rebased_by.append(by)

    def receives(self, count: int, stream: str = TRADES) -> None:
        """Append `count` frames, each flushed."""
        for _ in range(count):
            self.log.append(frame(self.count, stream))
            self.log.flush()
            self.count += 1

    def all_from(self, position: int) -> list[Record]:
        return read_all(self.log.cursor(position))


def settings_of(
    folder: Path,
    *,
    segment_bytes: int = 1_000_000,
    max_bytes: int = 1 << 30,
    max_age_s: float = DAY_S,
    fsync: Literal["off", "interval", "batch"] = "off",
    tail_limit_bytes: int = 1_000_000,
) -> JournalSettings:
    owner = Owner("ws://127.0.0.1:8765")
    return JournalSettings(
        folder, owner, segment_bytes, max_bytes, max_age_s, fsync, tail_limit_bytes
    )


def written_at(path: Path, us: int) -> None:
    os.utime(path, (us / 1e6, us / 1e6))


def several_segments(folder: Path, **settings: object) -> Bridge:
    """A bridge with 20 published frames in five segments, all modified now."""
    bridge = Bridge(folder, **settings)
    for number in range(5):
        if number:
            bridge.log.roll(bridge.state())
        bridge.receives(4)
    for segment in list_segments(folder):
        written_at(segment.path, NOW_US)
    return bridge


# ---- room ----------------------------------------------------------------------------------------


async def test_over_budget_the_oldest_segment_is_removed_and_never_the_current_one(
    tmp_path: Path,
) -> None:
    bridge = several_segments(tmp_path)
    before = list_segments(tmp_path)
    room = sum(segment.path.stat().st_size for segment in before[-3:])
    tight = settings_of(tmp_path, max_bytes=room)

    await Maintenance(bridge.log, tight, bridge).once()

    assert [each.start for each in list_segments(tmp_path)] == [each.start for each in before[-3:]]
    await Maintenance(bridge.log, settings_of(tmp_path, max_bytes=1), bridge).once()
    assert [each.start for each in list_segments(tmp_path)] == [before[-1].start]


async def test_a_reader_behind_pruned_records_skips_and_reports_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SKIP_RECORDS", 3)
    bridge = Bridge(tmp_path, max_bytes=1)
    reader = bridge.log.cursor(0)
    bridge.behind = [reader]
    bridge.receives(10)
    bridge.receives(1, ORDERS)
    bridge.receives(1, TICKERS)
    bridge.log.roll(bridge.state())
    bridge.receives(1)

    await bridge.upkeep.once()

    assert len(list_segments(tmp_path)) == 1
    assert short_forms(bridge.found) == [10, f"-{TICKERS},{TRADES}"]
    assert short_forms(read_all(reader)) == [12]


@pytest.mark.parametrize("packed", [False, True])
async def test_a_segment_is_removed_when_its_own_last_line_is_too_old(
    packed: bool, tmp_path: Path
) -> None:
    """The age is of its own last line, not the next segment's; compressing does not change it."""
    bridge = several_segments(tmp_path)
    old, kept = list_segments(tmp_path)[:2]
    written_at(old.path, NOW_US - (DAY_S + 60) * SECOND_US)
    written_at(kept.path, NOW_US - (DAY_S - 60) * SECOND_US)
    if packed:
        old, kept = pack(old), pack(kept)

    await bridge.upkeep.once()

    assert list_segments(tmp_path)[0].start == kept.start


async def test_a_segment_is_not_written_for_longer_than_a_part_of_the_age(tmp_path: Path) -> None:
    """Account events alone would take weeks to fill one."""
    bridge = Bridge(tmp_path)
    bridge.receives(1, ORDERS)
    share_us = DAY_S * SECOND_US // ROLL_SHARE

    bridge.at_us = NOW_US + share_us - SECOND_US
    await bridge.upkeep.once()
    assert len(list_segments(tmp_path)) == 1
    bridge.at_us = NOW_US + share_us + SECOND_US
    await bridge.upkeep.once()
    first, _ = list_segments(tmp_path)
    written_at(first.path, NOW_US)
    bridge.at_us = NOW_US + (DAY_S + 1) * SECOND_US
    await bridge.upkeep.once()

    assert not any(isinstance(each, Frame) for each in bridge.all_from(bridge.log.oldest()))


async def test_segments_rolled_by_time_are_read_again_whole(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    for hour in range(5):
        bridge.receives(2)
        bridge.at_us = NOW_US + (hour + 2) * 3600 * SECOND_US
        await bridge.upkeep.once()
    bridge.upkeep.close()

    assert len(list_segments(tmp_path)) > 1
    assert short_forms(Bridge(tmp_path).all_from(0)) == list(range(10))


async def test_a_full_segment_ends_and_is_compressed(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path, segment_bytes=500)
    bridge.receives(20)

    await bridge.upkeep.once()

    first, second = list_segments(tmp_path)
    assert first.is_packed
    assert short_forms(bridge.all_from(0)) == list(range(20))
    assert isinstance(bridge.all_from(second.start)[0], SegmentState)


async def test_no_new_segment_can_be_made_the_old_one_continues_and_it_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge(tmp_path, segment_bytes=1_000)
    monkeypatch.setattr(SegmentWriter, "_open", full)
    bridge.receives(21)

    await bridge.upkeep.once()

    assert bridge.log.trouble == ""
    assert "No space left" in bridge.upkeep.trouble
    monkeypatch.undo()
    await bridge.upkeep.once()
    assert bridge.upkeep.trouble == ""
    bridge.upkeep.close()
    assert short_forms(Bridge(tmp_path).all_from(0)) == list(range(21))


# ---- failure and recovery ------------------------------------------------------------------------


async def test_the_disk_is_full_for_a_while_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge(tmp_path)
    bridge.receives(2)
    fill_disk(monkeypatch)
    bridge.receives(2)
    await bridge.upkeep.once()
    assert bridge.log.is_broken
    bridge.receives(2)
    monkeypatch.undo()

    await bridge.upkeep.once()

    assert bridge.log.trouble == bridge.upkeep.trouble == ""
    assert short_forms(bridge.all_from(0)) == list(range(6))


async def test_killed_while_the_disk_is_full_the_next_process_knows_that_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint could be written, the journal could not."""
    bridge = Bridge(tmp_path)
    bridge.receives(2)
    fill_disk(monkeypatch)
    bridge.receives(2, ORDERS)
    await bridge.upkeep.once()
    assert bridge.log.is_broken
    monkeypatch.undo()
    bridge.log._writer.close()  # type: ignore[union-attr]  # killed

    again = Bridge(tmp_path)
    again.at_us = NOW_US + 50
    again.receives(1)

    found = again.all_from(0)
    assert short_forms(found) == [0, 1, "-*", 0]
    assert isinstance(found[2], Missing)
    assert found[2].from_us == NOW_US + 1


async def test_the_folder_is_removed_it_is_reported_and_a_new_one_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    bridge = Bridge(folder)
    bridge.receives(1, ORDERS)
    bridge.receives(2)
    shutil.rmtree(folder)
    bridge.unsettled = {ORDERS: (NOW_US, NOW_US)}

    await bridge.upkeep.once()
    bridge.receives(2)
    await bridge.upkeep.once()

    assert bridge.log.trouble == bridge.upkeep.trouble == ""
    bridge.upkeep.close()
    again = Bridge(folder)
    found = again.all_from(again.log.oldest())
    assert short_forms(found) == ["SegmentState", f"-{ORDERS}", 3, 4]
    assert again.begun is not None


# ---- opening -------------------------------------------------------------------------------------


async def test_a_journal_that_cannot_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Bridge(tmp_path)
    earlier.receives(3)
    earlier.upkeep.close()
    monkeypatch.setattr(opening, "SegmentWriter", refuse)
    late = Bridge(tmp_path)
    late.count = 10
    late.receives(2)
    assert late.log.trouble == f"cannot write {tmp_path}: Permission denied"

    await late.upkeep.once()
    assert late.log.trouble == "cannot open the journal: Permission denied"
    monkeypatch.undo()
    await late.upkeep.once()
    late.receives(1)

    assert late.log.trouble == ""
    assert late.rebased_by == [earlier.log.end]
    assert short_forms(late.all_from(0)) == [0, 1, 2, 10, 11, 12]
    assert read_checkpoint(tmp_path) is not None


def refuse(*_: object, **__: object) -> SegmentWriter:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("offset", [10**9, 400])
def test_a_checkpoint_beyond_the_journals_end_is_not_used(offset: int, tmp_path: Path) -> None:
    earlier = Bridge(tmp_path)
    earlier.receives(3)
    earlier.upkeep.close()
    text = f'{{"offset": {offset}, "target": "{TARGET}", "confirmed": {{}}, "parked": {{}}}}'
    (tmp_path / "checkpoint.json").write_text(text)

    assert Bridge(tmp_path).begun is None


def test_a_stop_writes_the_checkpoint_and_the_frames_received_last(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    bridge.log.append(frame(0))
    bridge.upkeep.close()

    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint == Checkpoint(bridge.log.end, TARGET, end=bridge.log.end)
    assert Bridge(tmp_path).begun == checkpoint


def test_a_stop_with_a_full_disk_keeps_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge(tmp_path)
    write_checkpoint(tmp_path, Checkpoint(0, "before"))
    bridge.log.append(frame(0))
    monkeypatch.setattr(os, "open", full)
    fill_disk(monkeypatch)
    bridge.upkeep.close()
    monkeypatch.undo()

    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.target == "before"
    assert bridge.log.loss.frames == 1


# ---- power loss ----------------------------------------------------------------------------------


class Disk:
    """Records the size of each file and folder at its last fsync; `lose_power` cuts to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: dict[str, int] = {}
        really = os.fsync

        def fsync(descriptor: int) -> None:
            really(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            self.synced[path] = os.fstat(descriptor).st_size

        monkeypatch.setattr(os, "fsync", fsync)

    def lose_power(self, folder: Path) -> None:
        for segment in list_segments(folder):
            aside = self.synced.get(f"{segment.path}.new", 0)  # synced before its rename
            os.truncate(segment.path, self.synced.get(str(segment.path), aside))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to find the synced file")
    monkeypatch.setattr(maintenance, "FLUSH_EVERY_S", 0.001)
    monkeypatch.setattr(maintenance, "UPKEEP_EVERY_S", 0.02)
    return Disk(monkeypatch)


def after_power_loss(disk: Disk, bridge: Bridge) -> list[int | str]:
    """Close as after a crash of the machine, start again, and return the records read."""
    bridge.log._writer.close()  # type: ignore[union-attr]
    disk.lose_power(bridge.settings.folder)
    again = Bridge(bridge.settings.folder)
    return [each for each in short_forms(again.all_from(0)) if isinstance(each, int)]


async def test_batch_loses_nothing_that_was_published(disk: Disk, tmp_path: Path) -> None:
    bridge = Bridge(tmp_path, fsync="batch")
    for _ in range(5):
        bridge.receives(10)
        bridge.log.roll(bridge.state())
    bridge.log.append(frame(50))  # not flushed

    assert len(list_segments(tmp_path)) > 3
    assert after_power_loss(disk, bridge) == list(range(50))
    assert str(tmp_path) in disk.synced, "the folder must be synced after a segment is created"


@pytest.mark.parametrize(("fsync", "is_kept"), [("interval", True), ("off", False)])
async def test_interval_loses_the_last_second_and_off_all_that_the_system_had_not_written(
    fsync: Literal["interval", "off"], is_kept: bool, disk: Disk, tmp_path: Path
) -> None:
    bridge = Bridge(tmp_path, fsync=fsync)
    bridge.receives(25)
    if is_kept:  # compressing a closed segment always syncs it
        bridge.log.roll(bridge.state())
    bridge.receives(25)
    keeping = asyncio.create_task(bridge.upkeep.run())
    await eventually_async((tmp_path / "checkpoint.json").exists, "the checkpoint is written")
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    bridge.receives(5)

    assert after_power_loss(disk, bridge) == (list(range(50)) if is_kept else [])


async def test_a_sync_that_fails_is_reported_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge(tmp_path, fsync="interval")
    bridge.receives(1)
    monkeypatch.setattr(os, "fsync", full)

    await bridge.upkeep.once()

    assert bridge.upkeep.trouble == "No space left on device"
    assert not bridge.log.is_broken
    monkeypatch.undo()
    await bridge.upkeep.once()
    assert bridge.upkeep.trouble == ""


async def test_appended_records_are_soon_written_to_the_operating_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "FLUSH_EVERY_S", 0.001)
    bridge = Bridge(tmp_path)
    bridge.log.append(frame(0))
    keeping = asyncio.create_task(bridge.upkeep.run())

    await eventually_async(lambda: bridge.log.written == bridge.log.end, "the log is flushed")

    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
