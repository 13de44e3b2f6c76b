"""The upkeep of a journal: syncing, segments, checkpoints, pruning, recovery."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import structlog

from bridge.core.records import SegmentState
from bridge.errors import Fatal
from bridge.journal.checkpoint import Checkpoint, write_checkpoint
from bridge.journal.log import Log
from bridge.journal.opening import JournalSettings, open_late
from bridge.journal.segments import disk_bytes, list_segments, pack

log = structlog.get_logger(__name__)

FLUSH_EVERY_S = 0.05  # the time of records that a killed bridge may lose while Redis is unavailable
UPKEEP_EVERY_S = 1.0  # checkpoints, and everything that takes longer
SKIP_RECORDS = 500  # records skipped in one call: keeps the event loop responsive
ROLL_SHARE = 24  # a segment is written for the maximal age of records divided by this


class Ingest(Protocol):
    """The interface of a journal's upkeep to the ingest, which writes and reads it."""

    def checkpoint(self) -> Checkpoint:
        """The position up to which everything is settled."""

    def skip_before(self, until: int, limit: int) -> bool:
        """Skip ahead to `until`, at most so many records, since the journal is to be pruned up to
        there. True: no record before it is needed.
        """

    def state(self) -> SegmentState:
        """The state needed to begin reading at the log's end."""

    def waiting(self) -> Mapping[str, tuple[int, int]]:
        """Each stream with entries that wait for Redis → when they were received (from, to; µs)."""

    def rebased(self, by: int, checkpoint: Checkpoint | None) -> None:
        """The journal was opened late: raise all positions by `by`; `checkpoint`: of an earlier
        process.
        """


class Maintenance:
    """The upkeep of one journal. `run` until cancelled. `trouble`: why the last upkeep failed.
    `disk_bytes` and `checkpoint_us` are of the last upkeep.
    """

    def __init__(self, journal: Log, settings: JournalSettings, ingest: Ingest) -> None:
        self.trouble = ""
        self.disk_bytes = 0  # size of the segments
        self.checkpoint_us = 0  # when the last checkpoint was written; 0: none yet
        self._log = journal
        self._settings = settings
        self._ingest = ingest
        self._begun = (-1, 0)  # the segment that is written: where it begins, and when

    async def run(self) -> None:
        """Flush often, so that records soon reach the operating system; do upkeep once a second."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flush(), name="journal-flush")
            tasks.create_task(self._keep(), name="journal-upkeep")

    async def once(self) -> None:
        """One second's upkeep."""
        if not self._log.is_open:
            self._open()
        if self._log.is_open:
            self._log_trouble(await self._tidy())

    def close(self) -> None:
        """The last upkeep: write what can be written, the checkpoint too, and close the files."""
        self._recover()
        if self._log.is_open:
            self._log.flush()
            with suppress(OSError):  # then the next process continues from an older one
                self._write_checkpoint()
        self._log.close()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self._log.flush()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_EVERY_S)
            await self.once()

    def _open(self) -> None:
        try:
            by, checkpoint = open_late(self._log, self._settings)
        except (OSError, Fatal) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._log.trouble = f"cannot open the journal: {reason or error}"
        else:
            self._ingest.rebased(by, checkpoint)

    def _recover(self) -> None:
        if self._log.is_broken:
            self._log.recover(self._ingest.state())

    def _log_trouble(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("journal_upkeep_failed", reason=trouble)
        elif self.trouble and not trouble:
            log.info("journal_upkeep_recovered")
        self.trouble = trouble

    async def _tidy(self) -> str:
        """All upkeep but opening. Returns the error, or an empty text."""
        try:
            if not self._log.is_broken and not self._log.check():
                self._log.lacks(self._ingest.waiting())  # their records were in the removed files
            await self._make_room()
            self._recover()
            self._roll()
            if self._settings.fsync == "interval":
                await asyncio.to_thread(self._log.sync)
            self._write_checkpoint()
            self.disk_bytes = await asyncio.to_thread(self._pack_closed)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _write_checkpoint(self) -> None:
        # The end includes the tail even if that is not written: if this process is killed now, the
        # next one finds the journal shorter, and knows that records are missing.
        checkpoint = self._ingest.checkpoint()
        write_checkpoint(self._settings.folder, replace(checkpoint, end=self._log.end))
        self.checkpoint_us = self._log.now_us()

    def _roll(self) -> None:
        """Begin a new segment if this one is full or old: a segment is pruned as a whole."""
        start, now_us = self._log.segment_start, self._log.now_us()
        if start != self._begun[0]:
            begun_us = self._log.time_at(start)
            self._begun = (start, begun_us) if begun_us else self._begun
        is_old = now_us - (self._begun[1] or now_us) > self._settings.max_age_s * 1e6 / ROLL_SHARE
        if is_old or self._log.is_full:
            self._log.roll(self._ingest.state())

    def _pack_closed(self) -> int:
        """Compress closed segments. Returns the size of all segments on the disk."""
        for segment in list_segments(self._settings.folder)[:-1]:
            if not segment.is_packed:
                pack(segment)
        return disk_bytes(self._settings.folder)

    async def _make_room(self) -> None:
        """Remove the oldest segments beyond budget or age, never the one being written."""
        settings = self._settings
        for oldest, following in pairwise(list_segments(settings.folder)):
            over = disk_bytes(settings.folder) > settings.max_bytes
            age_s = self._log.now_us() / 1e6 - oldest.path.stat().st_mtime
            if not over and age_s <= settings.max_age_s:
                return
            while True:
                if self._ingest.skip_before(following.start, SKIP_RECORDS):
                    break
                await asyncio.sleep(0)
            oldest.path.unlink()
            log.warning("journal_pruned", segment=oldest.path.name, over_budget=over)
