"""The journal that is written now: one writer, which may fail and be mended.

A journal that cannot be written (disk full) is said loudly and done without, and `mend` tries
again. It knows nothing of what its lines mean to an intake.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import structlog

from bridge.journal.loss import Loss
from bridge.journal.record import Record, read
from bridge.journal.segments import (
    JournalInUse,
    SegmentWriter,
    WriteFailed,
    list_segments,
    read_lines,
)
from bridge.journal.unwritten import Unwritten

log = structlog.get_logger(__name__)

MAX_HOLES = 1_000


class Journal:
    """Where records go and are read again. Without a writer there is none (yet, or any more).

    `on_unwritten` gets the lines that were given to it and could not be written; `unwritten` is
    what was heard since then and can only be told of.
    """

    def __init__(self) -> None:
        self.writer: SegmentWriter | None = None
        self.is_awaited = False  # it could not be opened yet
        self.trouble = ""  # why nothing can be journaled just now
        self.upkeep_trouble = ""  # why it is not synced, tidied, or its checkpoint not written
        self.on_unwritten: Callable[[Sequence[bytes]], None] = lambda _: None
        self.on_gone: Callable[[], None] = lambda: None  # what was written is there no more
        self.unwritten = Unwritten()
        # where it could be written again: what was heard before that, and is not in it, is put
        # down as standing there
        self.holes: deque[int] = deque(maxlen=MAX_HOLES)
        self._sync_each_flush = False
        self.broken: SegmentWriter | None = None  # the writer while it cannot write

    def attach(self, writer: SegmentWriter, *, sync_each_flush: bool) -> None:
        """From now on there is a journal; one that was awaited has to be mended first."""
        self._sync_each_flush = sync_each_flush
        if self.is_awaited:
            self.broken, self.is_awaited = writer, False
        else:
            self.writer = writer

    def await_writer(self, trouble: str) -> None:
        """It cannot be opened: publishing goes on without, and `attach` comes later."""
        self.is_awaited, self.trouble = True, trouble
        log.error("journal_failed", reason=trouble)

    @property
    def loss(self) -> Loss:
        """What was heard and will not be in it, ever."""
        return self.unwritten.loss

    @property
    def is_broken(self) -> bool:
        """Is there to be a journal that cannot be written just now?"""
        return self.writer is None and (self.is_awaited or self.broken is not None)

    @property
    def end(self) -> int:
        """The offset at which the next record will stand."""
        writer = self.writer or self.broken
        return writer.end if writer else 0

    @property
    def written(self) -> int:
        """Up to where it can be read."""
        writer = self.writer or self.broken
        return writer.written if writer else 0

    def starts(self) -> list[int]:
        """Where each segment begins, the oldest first."""
        writer = self.writer or self.broken
        return [segment.start for segment in list_segments(writer.folder)] if writer else []

    def oldest(self) -> int:
        """The offset of the oldest record there is, or of the next where there is none."""
        return next(iter(self.starts()), self.written)

    def records(self, offset: int) -> Iterator[tuple[int, Record | None]]:
        """From `offset` on: (offset of the next record, this one; None where it is damaged)."""
        writer = self.writer or self.broken
        assert writer is not None
        for following, line in read_lines(writer.folder, offset):
            if following > writer.written:
                return  # the rest of a write that failed, and could not be cut off
            yield following, read(line)

    def time_at(self, offset: int) -> int:
        """When the first record from there on came, µs; 0: there is none."""
        records = (record for _, record in self.records(offset) if record is not None)
        return next((record.received_us for record in records), 0)

    def check(self) -> None:
        """Are the files still there? Writing does not tell."""
        self.flush()
        if self.writer is not None and not self.writer.is_in_place():
            self.on_gone()
            self.fail(FileNotFoundError(errno.ENOENT, "its files are gone"))

    def flush(self) -> None:
        """Before anything is published: what it came from is with the operating system."""
        if self.writer is None:
            return
        try:
            self.writer.flush()
            if self._sync_each_flush:
                self.writer.sync()
        except OSError as error:
            self.fail(error)

    def fail(self, error: OSError) -> None:
        """Publishing goes on without the net."""
        log.error("journal_failed", reason=error.strerror or str(error))
        self.trouble = f"cannot write the journal: {error.strerror or error}"
        self.broken, self.writer = self.writer, None
        if isinstance(error, WriteFailed):
            self.on_unwritten(error.lines)

    def mend(self, head: Sequence[bytes], *held: Sequence[bytes]) -> Sequence[int]:
        """After a failure: try whether it can be written again, beginning with `head` and going on
        with what was held. Returns where each of the held begins; nothing where it still fails.
        """
        if self.broken is None:
            return ()
        begin: list[int] = []
        try:
            self.broken.restore()
            for lines in (head, *held):
                begin.append(self.broken.end)
                for line in lines:
                    self.broken.append(line)
            self.broken.flush()
        except (OSError, JournalInUse):
            return ()
        self.holes.append(begin[0])
        self.unwritten.clear()
        self.writer, self.broken = self.broken, None
        self.trouble = ""
        log.info("journal_mended")
        return begin[1:]

    def close(self) -> None:
        """Write what is left and close the files."""
        self.flush()
        if self.writer is not None:
            self.writer.close()
