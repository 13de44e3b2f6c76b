"""Looks after the journal while it is written: syncing, checkpoints, compressing, making room."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import structlog

from bridge.errors import Fatal
from bridge.journal.checkpoint import write_checkpoint
from bridge.journal.hearing import Hearing
from bridge.journal.segments import SegmentWriter, disk_bytes, list_segments, pack

log = structlog.get_logger(__name__)

FLUSH_EVERY_S = 0.05  # what a killed bridge may lose while Redis is away
UPKEEP_EVERY_S = 1.0  # a checkpoint, and all that takes longer
CATCH_UP_RECORDS = 500  # heard again in one go: keeps the loop responsive
WAIT_S = 0.01  # between two looks whether Redis has taken what was heard again
ROLL_SHARE = 24  # of the age that records may reach, for how long a segment is written


@dataclass(frozen=True, slots=True)
class Room:
    """What the journal may take of the disk, and for how long."""

    folder: Path
    max_bytes: int
    max_age_s: float
    fsync: Literal["off", "interval", "batch"]


class Keeper:
    """One journal's keeper; both its coroutines run until cancelled.

    `reopen` is called each second while the journal could not be opened yet; it raises OSError or
    Fatal where it still cannot. `clock_us` is the wall clock.
    """

    def __init__(
        self,
        hearing: Hearing,
        room: Room,
        clock_us: Callable[[], int],
        reopen: Callable[[], None],
    ) -> None:
        self._hearing = hearing
        self._room = room
        self._clock_us = clock_us
        self._reopen = reopen
        self._begun = (-1, 0)  # the segment that is written: where it begins, and when

    async def catch_up(self) -> None:
        """Hear the journal again whenever there is something left of it."""
        while True:
            did_something = self._hearing.catch_up(CATCH_UP_RECORDS)
            await asyncio.sleep(0 if did_something else WAIT_S)

    async def keep(self) -> None:
        """What was heard is soon with the operating system; once a second, the rest, which may take
        its time.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flush(), name="journal-flush")
            tasks.create_task(self._keep(), name="journal-upkeep")

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self._hearing.journal.flush()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_EVERY_S)
            await self.keep_once()

    async def keep_once(self) -> None:
        """One second's upkeep."""
        journal = self._hearing.journal
        if journal.is_awaited:
            self._open()
        else:
            trouble = await self._tidy()
            if trouble != journal.upkeep_trouble:
                if trouble:
                    log.warning("journal_upkeep_failed", reason=trouble)
                else:
                    log.info("journal_upkeep_mended")
            journal.upkeep_trouble = trouble
        self._hearing.mend()

    def _open(self) -> None:
        try:
            self._reopen()
        except (OSError, Fatal) as error:
            told = error.strerror if isinstance(error, OSError) else str(error)
            self._hearing.journal.trouble = f"cannot open the journal: {told or error}"

    async def _tidy(self) -> str:
        """Everything but mending. Returns what went wrong."""
        journal = self._hearing.journal
        try:
            journal.check()
            await self._make_room()
            if journal.writer is not None:
                self._roll(journal.writer)
            if self._room.fsync == "interval" and journal.writer is not None:
                await asyncio.to_thread(journal.writer.sync)
            write_checkpoint(self._room.folder, self._hearing.rehearing.checkpoint())
            await asyncio.to_thread(self._pack_closed)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _roll(self, writer: SegmentWriter) -> None:
        """What is in one segment goes together, so it must not be written for too long."""
        journal, now_us = self._hearing.journal, self._clock_us()
        if writer.start != self._begun[0]:
            begun_us = journal.time_at(writer.start)
            self._begun = (writer.start, begun_us) if begun_us else self._begun
        is_old = now_us - (self._begun[1] or now_us) > self._room.max_age_s * 1e6 / ROLL_SHARE
        if is_old or writer.is_full:
            journal.flush()
            if journal.writer is writer:
                writer.roll()

    def _pack_closed(self) -> None:
        """Compress what is closed."""
        for segment in list_segments(self._room.folder)[:-1]:
            if not segment.is_packed:
                pack(segment)

    async def _make_room(self) -> None:
        """Over budget or age: the oldest segments go, never the one that is written."""
        for oldest, following in pairwise(list_segments(self._room.folder)):
            over = disk_bytes(self._room.folder) > self._room.max_bytes
            age_s = self._clock_us() / 1e6 - oldest.path.stat().st_mtime
            if not over and age_s <= self._room.max_age_s:
                return
            while True:
                if self._hearing.rehearing.give_up(following.start, CATCH_UP_RECORDS):
                    break
                await asyncio.sleep(0)
            oldest.path.unlink()
            log.warning("journal_pruned", segment=oldest.path.name, over_budget=over)
