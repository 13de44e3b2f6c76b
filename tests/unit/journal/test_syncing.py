"""What a power loss takes, for each `journal.fsync`: the file is cut to what was synced last."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from bridge.contract.streams import parse_stream
from bridge.journal import keeper
from bridge.journal.hearing import Hearing
from bridge.journal.keeper import Keeper, Room
from bridge.journal.segments import SegmentWriter, list_segments
from bridge.pipeline.intake import Intake
from tests.support import frames
from tests.support.eventually import eventually_async

NOW_US = 1790915531026999
FIRST = 99419870
TRADES = "trade.BTC_USDC_PERP"


class Disk:
    """Knows what of each file is on the disk for good; folders too."""

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
            aside = self.synced.get(f"{segment.path}.new", 0)  # compressed, and renamed since
            os.truncate(segment.path, self.synced.get(str(segment.path), aside))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell which file is synced")
    monkeypatch.setattr(keeper, "FLUSH_EVERY_S", 0.001)
    monkeypatch.setattr(keeper, "UPKEEP_EVERY_S", 0.02)
    return Disk(monkeypatch)


def never() -> None:
    raise AssertionError("the journal was open")


def hearing(folder: Path, fsync: str, segment_bytes: int = 4_000) -> Hearing:
    intake = Intake([parse_stream(TRADES)], hold_us=0, snapshot_every=0, ask=lambda _: None)
    heard = Hearing(
        intake,
        buffer_bytes=10_000_000,
        keep_private=True,
        clock_us=lambda: NOW_US,
        on_items=lambda: None,
    )
    writer = SegmentWriter(folder, segment_bytes, syncs=fsync != "off")
    heard.attach(writer, sync_each_flush=fsync == "batch")
    heard.begin(None, "here")
    while heard.catch_up(1000):
        pass
    return heard


def trades(heard: Hearing, start: int, count: int) -> None:
    for number in range(start, start + count):
        heard.hear(frames.TRADE.replace(str(FIRST), str(FIRST + number)), NOW_US + number, 1)


def after_power_loss(disk: Disk, folder: Path) -> list[int]:
    """Close as a dead machine does, start again, and say which trades are heard again."""
    disk.lose_power(folder)
    again = hearing(folder, "off")
    found = [item.position - FIRST for item in again.intake.lines[TRADES].pending]
    again.journal.close()
    return found


async def test_batch_loses_nothing_that_was_published(disk: Disk, tmp_path: Path) -> None:
    heard = hearing(tmp_path, "batch")
    heard.opened("public-1", [TRADES])
    for start in range(0, 90, 10):  # over several segments
        trades(heard, start, 10)
        heard.journal.flush()  # what the publisher does before it sends
    trades(heard, 90, 10)  # heard, and nobody has been told yet
    heard.journal.writer.close()  # type: ignore[union-attr]

    assert len(list_segments(tmp_path)) > 3
    assert after_power_loss(disk, tmp_path) == list(range(90))
    assert str(tmp_path) in disk.synced, "a new segment's name must be on the disk too"


@pytest.mark.parametrize(("fsync", "is_kept"), [("interval", True), ("off", False)])
async def test_interval_loses_the_last_second_and_off_what_the_system_had_not_written(
    fsync: Literal["interval", "off"], is_kept: bool, disk: Disk, tmp_path: Path
) -> None:
    # compressing a segment that has ended syncs it, whatever the mode
    heard = hearing(tmp_path, fsync, segment_bytes=4_000 if is_kept else 1_000_000)
    heard.opened("public-1", [TRADES])
    for start in range(0, 50, 5):  # over several segments
        trades(heard, start, 5)
        heard.journal.flush()
    upkeep = Keeper(heard, Room(tmp_path, 1 << 30, 1e9, fsync), lambda: NOW_US, never)
    checkpoint = tmp_path / "checkpoint.json"
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(upkeep.keep())
        await eventually_async(checkpoint.exists, "a second's upkeep was done")
        keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    trades(heard, 50, 5)
    heard.journal.flush()
    heard.journal.writer.close()  # type: ignore[union-attr]

    assert after_power_loss(disk, tmp_path) == (list(range(50)) if is_kept else [])
