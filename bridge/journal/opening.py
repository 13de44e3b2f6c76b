"""Opens a journal: its settings, its files, and the log that is written to them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from bridge.journal.checkpoint import Checkpoint, read_checkpoint
from bridge.journal.log import Log
from bridge.journal.owner import Owner
from bridge.journal.segments import SegmentWriter

log = structlog.get_logger(__name__)

OTHERS = 0o007  # the bits of a folder's mode for other users


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """The settings of a journal. `max_bytes` and `max_age_s` limit its files; `tail_limit_bytes`:
    the memory for records while it cannot be written.
    """

    folder: Path
    owner: Owner
    segment_bytes: int
    max_bytes: int
    max_age_s: float
    fsync: Literal["off", "interval", "batch"]
    tail_limit_bytes: int


def open_log(
    settings: JournalSettings, clock_us: Callable[[], int]
) -> tuple[Log, Checkpoint | None]:
    """Open the log. Returns it, and the checkpoint to continue from. If the folder cannot be used,
    the log keeps its tail in memory, and `open_late` tries again. Raises JournalInUse.
    """
    writer, trouble = None, ""
    try:
        writer = open_writer(settings)
    except OSError as error:
        trouble = f"cannot write {settings.folder}: {error.strerror or error}"
    opened = Log(
        writer,
        tail_limit_bytes=settings.tail_limit_bytes,
        clock_us=clock_us,
        syncs_each_flush=settings.fsync == "batch",
        trouble=trouble,
    )
    checkpoint = read_checkpoint(settings.folder) if writer is not None else None
    return opened, opened.trusted(checkpoint)


def open_late(opened: Log, settings: JournalSettings) -> tuple[int, Checkpoint | None]:
    """Try again to open it. Returns by how much all positions are raised, and the checkpoint.
    Raises OSError or Fatal if it cannot be opened.
    """
    writer = open_writer(settings)
    checkpoint = read_checkpoint(settings.folder)
    by = opened.open_late(writer, checkpoint)
    return by, checkpoint.believed(by) if checkpoint is not None else None


def open_writer(settings: JournalSettings) -> SegmentWriter:
    """Open the journal's files for this process alone. Raises OSError and JournalInUse."""
    writer = SegmentWriter(
        settings.folder, settings.segment_bytes, settings.owner, syncs=settings.fsync != "off"
    )
    if writer.set_aside:
        log.warning("journal_of_another_set_aside", dir=str(writer.set_aside))
    if settings.folder.stat().st_mode & OTHERS:
        log.warning("journal_open_to_others", dir=str(settings.folder))
    return writer
