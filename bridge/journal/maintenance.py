"""Looks after a journal while it is written: syncing, segments, checkpoints, room, recovery."""

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

FLUSH_EVERY_S = 0.05  # what a killed bridge may lose while Redis is unavailable
UPKEEP_EVERY_S = 1.0  # a checkpoint, and all that takes longer
SKIP_RECORDS = 500  # passed over in one go: keeps the loop responsive
ROLL_SHARE = 24  # of the age that records may reach, for how long a segment is written


class Ingest(Protocol):
    """What a journal's upkeep has to know of those who write and read it."""

    def checkpoint(self) -> Checkpoint:
        """Up to where everything is settled."""

    def skip_before(self, until: int, limit: int) -> bool:
        """The journal must make room: who has not read up to there yet passes over it, at most so
        many records. True: what is before is not needed.
        """

    def state(self) -> SegmentState:
        """What must be known to begin reading at the log's end."""

    def waiting(self) -> Mapping[str, tuple[int, int]]:
        """The streams of which something waits for Redis, and when that was received (µs)."""

    def rebased(self, by: int, checkpoint: Checkpoint | None) -> None:
        """All positions given so far move up by so much; an earlier process has left this."""


class Maintenance:
    """One journal's. `run` goes on until cancelled. `trouble`: why it is not synced, tidied, or its
    checkpoint not written. `disk_bytes` and `checkpoint_us` are as of the last second's upkeep.
    """

    def __init__(self, journal: Log, settings: JournalSettings, ingest: Ingest) -> None:
        self.trouble = ""
        self.disk_bytes = 0  # what the segments take
        self.checkpoint_us = 0  # when the last checkpoint was written; 0: none yet
        self._log = journal
        self._settings = settings
        self._ingest = ingest
        self._begun = (-1, 0)  # the segment that is written: where it begins, and when

    async def run(self) -> None:
        """What was received is soon with the operating system; once a second, the rest, which may
        take its time.
        """
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
            with suppress(OSError):  # the next process goes on from an older one
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
            told = error.strerror if isinstance(error, OSError) else str(error)
            self._log.trouble = f"cannot open the journal: {told or error}"
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
        """Everything but opening it. Returns what went wrong."""
        try:
            if not self._log.is_broken and not self._log.check():
                self._log.lacks(self._ingest.waiting())  # it was in those files
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
        # The end is said even where the tail is not written: if this process is killed now, the
        # next one finds its journal shorter than that, and knows that something is missing.
        checkpoint = self._ingest.checkpoint()
        write_checkpoint(self._settings.folder, replace(checkpoint, end=self._log.end))
        self.checkpoint_us = self._log.now_us()

    def _roll(self) -> None:
        """What is in one segment goes together, so it must not be written for too long."""
        start, now_us = self._log.segment_start, self._log.now_us()
        if start != self._begun[0]:
            begun_us = self._log.time_at(start)
            self._begun = (start, begun_us) if begun_us else self._begun
        is_old = now_us - (self._begun[1] or now_us) > self._settings.max_age_s * 1e6 / ROLL_SHARE
        if is_old or self._log.is_full:
            self._log.roll(self._ingest.state())

    def _pack_closed(self) -> int:
        """Compress what is closed. Returns what all takes on the disk."""
        for segment in list_segments(self._settings.folder)[:-1]:
            if not segment.is_packed:
                pack(segment)
        return disk_bytes(self._settings.folder)

    async def _make_room(self) -> None:
        """Over budget or age: the oldest segments go, never the one that is written."""
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
