"""Looks after the journal while it is written: syncing, checkpoints, compressing, making room."""

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import structlog

from bridge.journal.checkpoint import write_checkpoint
from bridge.journal.hearing import Hearing
from bridge.journal.segments import disk_bytes, list_segments, pack

log = structlog.get_logger(__name__)

FLUSH_EVERY_S = 0.05  # what a killed bridge may lose while Redis is away
UPKEEP_EVERY_S = 1.0  # a checkpoint, and all that takes longer
CATCH_UP_RECORDS = 500  # heard again in one go: keeps the loop responsive
WAIT_S = 0.01  # between two looks whether Redis has taken what was heard again


@dataclass(frozen=True, slots=True)
class Room:
    """What the journal may take of the disk, and for how long."""

    folder: Path
    max_bytes: int
    max_age_s: float
    fsync: Literal["off", "interval", "batch"]


class Keeper:
    """One journal's keeper; both its coroutines run until cancelled."""

    def __init__(self, hearing: Hearing, room: Room) -> None:
        self._hearing = hearing
        self._room = room

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
            await self._keep_once()

    async def _keep_once(self) -> None:
        try:
            self._make_room()
            if self._room.fsync == "interval" and self._hearing.journal.writer is not None:
                await asyncio.to_thread(self._hearing.journal.writer.sync)
            write_checkpoint(self._room.folder, self._hearing.rehearing.checkpoint())
            await asyncio.to_thread(self._pack_closed)
            trouble = ""
        except OSError as error:
            trouble = error.strerror or str(error)
        journal = self._hearing.journal
        if trouble != journal.upkeep_trouble:
            if trouble:
                log.warning("journal_upkeep_failed", reason=trouble)
            else:
                log.info("journal_upkeep_mended")
        journal.upkeep_trouble = trouble
        self._hearing.mend()

    def _pack_closed(self) -> None:
        """Compress what is closed."""
        for segment in list_segments(self._room.folder)[:-1]:
            if not segment.is_packed:
                pack(segment)

    def _make_room(self) -> None:
        """Over budget or age: the oldest segments go, never the one that is written."""
        segments = list_segments(self._room.folder)
        for oldest, following in pairwise(segments):
            over = disk_bytes(self._room.folder) > self._room.max_bytes
            if not over and time.time() - following.path.stat().st_mtime <= self._room.max_age_s:
                return
            self._hearing.rehearing.give_up(following.start)
            oldest.path.unlink()
            log.warning("journal_pruned", segment=oldest.path.name, over_budget=over)
