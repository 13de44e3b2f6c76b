"""The journal that is written now: one writer, which may fail and be mended.

A journal that cannot be written (disk full) is said loudly and done without, and `mend` tries
again. It knows nothing of what its lines mean to an intake.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import structlog

from bridge.journal.loss import Loss, is_frame
from bridge.journal.record import Record, read
from bridge.journal.segments import SegmentWriter, WriteFailed, list_segments, read_lines

log = structlog.get_logger(__name__)


MAX_MISSED = 10_000  # what happened to connections while nothing could be written


class Journal:
    """Where records go and are read again. Without a writer there is none (yet, or any more).

    `on_unwritten` gets the lines that were given to it and could not be written.
    """

    def __init__(self) -> None:
        self.writer: SegmentWriter | None = None
        self.trouble = ""  # why nothing can be journaled just now
        self.upkeep_trouble = ""  # why it is not synced, tidied, or its checkpoint not written
        self.loss = Loss()  # what was heard meanwhile and will not be in it
        self.on_unwritten: Callable[[Sequence[bytes]], None] = lambda _: None
        self._sync_each_flush = False
        self._broken: SegmentWriter | None = None
        self._missed: deque[bytes] = deque(maxlen=MAX_MISSED)

    def attach(self, writer: SegmentWriter, *, sync_each_flush: bool) -> None:
        """From now on there is a journal."""
        self.writer = writer
        self._sync_each_flush = sync_each_flush

    @property
    def end(self) -> int:
        """The offset at which the next record will stand."""
        writer = self.writer or self._broken
        return writer.end if writer else 0

    def starts(self) -> list[int]:
        """Where each segment begins, the oldest first."""
        writer = self.writer or self._broken
        return [segment.start for segment in list_segments(writer.folder)] if writer else []

    def oldest(self) -> int:
        """The offset of the oldest record there is."""
        return next(iter(self.starts()), 0)

    def records(self, offset: int) -> Iterator[tuple[int, Record | None]]:
        """From `offset` on: (offset of the next record, this one; None where it is damaged)."""
        writer = self.writer or self._broken
        assert writer is not None
        for following, line in read_lines(writer.folder, offset):
            yield following, read(line)

    def flush(self) -> None:
        """Before anything is published: what it came from is with the operating system."""
        if self.writer is None:
            return
        try:
            self.writer.flush()
            if self._sync_each_flush:
                self.writer.sync()
        except OSError as error:
            self._go_on_without(error)

    def miss(self, line: bytes) -> None:
        """It cannot be written just now; this line is needed all the same, once it can."""
        if self._broken is not None:
            self._missed.append(line)

    def mend(self, head: bytes, held: Sequence[bytes] | None = None) -> bool:
        """After a failure: try whether it can be written again, beginning with this line and what
        was missed meanwhile; `held`: all of that, where somebody has it.
        """
        if self._broken is None:
            return False
        try:
            for line in (head, *(self._missed if held is None else held)):
                self._broken.append(line)
            self._broken.flush()
        except OSError:
            return False
        self._missed.clear()
        self.writer, self._broken, self.trouble = self._broken, None, ""
        log.info("journal_mended")
        return True

    def close(self) -> None:
        """Write what is left and close the files."""
        self.flush()
        if self.writer is not None:
            self.writer.close()

    def _go_on_without(self, error: OSError) -> None:
        """Publishing goes on without the net."""
        log.error("journal_failed", reason=error.strerror or str(error))
        self.trouble = f"cannot write the journal: {error.strerror or error}"
        self._broken, self.writer = self.writer, None
        if isinstance(error, WriteFailed):
            self._missed.extend(line for line in error.lines if not is_frame(line))
            self.on_unwritten(error.lines)
