"""Hearing the journal again: at the start, after Redis has lost entries, when memory was full.

While it is `behind`, what is heard goes into the journal only; `catch_up` reads the journal from
the place that is settled and says it to the intake, as fast as Redis takes it, until its end is
reached: then live again. The lines get the same calls in the same order either way.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import structlog

from bridge.contract.identity import EMPTY
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.journal import Journal
from bridge.journal.player import Player
from bridge.journal.record import Record, read
from bridge.journal.refill import Refill
from bridge.journal.rereading import Rereading
from bridge.pipeline.intake import Intake
from bridge.pipeline.missing import Line

log = structlog.get_logger(__name__)

PARKED_SHARE = 16  # of the memory, for each stream that fails alone
REFILL_SHARE = 8  # of the memory, for the streams that are refilled
LOW_SHARE = 2  # catching up goes on while less than 1/2 of the memory waits
HELD_SHARE = 4  # of the memory, for what can neither be heard yet nor written
TWINS_BYTES = 1024 * 1024  # of the journal before the settled place that are heard for their counts


class Rehearing:
    """Says to one intake what a journal holds.

    Unless `keep_private`, the journal says nothing of private streams.
    """

    def __init__(
        self,
        intake: Intake,
        journal: Journal,
        buffer_bytes: int,
        clock_us: Callable[[], int],
        *,
        keep_private: bool,
    ) -> None:
        self.player = Player(intake)
        self._intake = intake
        self._journal = journal
        self._buffer_bytes = buffer_bytes
        self._clock_us = clock_us
        self._keep_private = keep_private
        self._begun = Checkpoint(0, "")
        self._kept: Checkpoint | None = None  # of those that are published to at other times
        self._target = ""
        self._reading: Rereading | None = None  # None: live
        self._refill: Refill | None = None  # of some streams, while the others go on
        journal.on_unwritten = self._keep_unwritten
        journal.on_gone = self._tell_of_waiting
        intake.on_new_line = self._begin_line

    @property
    def behind(self) -> int | None:
        """The offset to read next; None: live."""
        return self._reading.position if self._reading else None

    @property
    def damaged_lines(self) -> int:
        """Lines and records of the journal that could not be made sense of."""
        return self.player.damaged

    def begin(self, checkpoint: Checkpoint | None, target: str) -> None:
        """A process starts: go on from where an earlier one was.

        `target` names the Redis and prefix that is published to; empty: nothing is, and what others
        need stays as it is.
        """
        self._target = target
        end = self._journal.end
        if not target:
            self._kept, checkpoint = checkpoint, Checkpoint(end)
        elif checkpoint is not None and checkpoint.target not in ("", target):
            log.warning("journal_other_redis", journal_is_of=checkpoint.target, now=target)
        oldest = Checkpoint(self._journal.oldest(), target)
        begun = checkpoint.turned_to(target) if checkpoint is not None else oldest
        self._begun = replace(begun, offset=min(begun.offset, end))
        self._read_from(min([self._begun.offset, *self._begun.parked.values()]))
        for _, line in self._lines():
            self._begin_line(line)

    def begin_late(self, checkpoint: Checkpoint | None, target: str) -> None:
        """A journal can be written at last: go on at its end. What an earlier process has left in
        it was passed by what has been published since.
        """
        self._target = target
        others = checkpoint.turned_to(target).others if checkpoint is not None else {}
        self._begun = Checkpoint(self._journal.end, target, others=others)
        for _, line in self._lines():
            line.resume_from = self._begun.offset
            for item in line.pending:
                item.offset = self._begun.offset

    def take_over(self) -> None:
        """Memory is full: from here on the journal remembers, and is heard when there is room."""
        self._journal.flush()
        if self._journal.writer is not None:
            self._reading = self._new_reading(self._journal.end, self._clock_us())
            self._intake.is_rehearing = True

    def refill(self) -> None:
        """Redis lost entries of some streams: hear the journal again for these, if there is one."""
        lost = {name for name, line in self._lines() if line.lost_at is not None}
        has_journal = self._journal.writer is not None
        for name, line in self._lines():
            if name in lost:
                log.error("redis_lost_entries", stream=name, redis_has=line.lost_at,
                          acknowledged=line.confirmed, journal=has_journal)  # fmt: skip
                self._intake.dirty[name] = line
        self._journal.flush()
        for name, line in self._lines():
            if name in lost and not (self._journal.writer and self._is_journaled(line)):
                line.accept_loss()  # it is in no journal
                lost.discard(name)
        if not lost:
            return
        if self._reading is None and lost <= self._intake.lines.keys():
            self._refill_alone(lost)
        else:
            self._refill_all(lost)

    def _refill_alone(self, lost: set[str]) -> None:
        """For these streams, and those that are read for already, from the beginning."""
        if self._refill is not None:
            lost |= self._refill.lines.keys()
            self._intake.drop_branch()
        oldest, oldest_us = self._oldest()
        lines = [self._intake.lines[name] for name in lost]
        for line in lines:
            line.rewind(oldest, oldest_us)
            line.hear_again()
        self._refill = Refill(
            self._intake,
            self._journal,
            lines,
            oldest_us,
            on_said=self._journal.unwritten.add,
            clock_us=self._clock_us,
        )

    def _refill_all(self, lost: set[str]) -> None:
        """Everything is being heard again, or what was refused is lost, which may be anything."""
        if self._refill is not None:
            lost |= self._refill.lines.keys()
            self._intake.drop_branch()
            self._refill = None
        oldest, oldest_us = self._oldest()
        for name, line in self._lines():
            if self._is_journaled(line):
                line.rewind(oldest if name in lost else self._settled(line), oldest_us)
        self._read_from(oldest)

    def _oldest(self) -> tuple[int, int]:
        """Offset and time of the journal's oldest record."""
        oldest = self._journal.oldest()
        return oldest, self._journal.time_at(oldest) or self._clock_us()

    def catch_up(self, limit: int) -> bool:
        """Hear up to `limit` records again; False where there is nothing to do just now."""
        if self._reading is None and self._refill is None:
            return False
        self._journal.flush()
        self._intake.bound_parked(self._buffer_bytes // PARKED_SHARE)
        if self._reading is not None:
            return self._step(self._reading, limit)
        return self._refill is not None and self._step_refill(self._refill, limit)

    def _step(self, reading: Rereading, limit: int) -> bool:
        if reading.gives_up:
            reading.step_giving_up(limit)
            self._intake.bound(self._buffer_bytes // LOW_SHARE)
        elif self._intake.pending_bytes() > self._buffer_bytes // LOW_SHARE:
            self._intake.missing.wait_no_longer()
            return False
        else:
            reading.step(limit)
        if reading.is_over:
            self._live_again()
        elif reading.position >= self._journal.end:
            self._caught_up()  # what is held is new
        return True

    def _step_refill(self, refill: Refill, limit: int) -> bool:
        if refill.reading.gives_up:
            refill.reading.step_giving_up(limit)
            self._intake.bound(self._buffer_bytes)
        elif refill.waiting_bytes() > self._buffer_bytes // REFILL_SHARE:
            return False
        else:
            refill.reading.step(limit)
        if refill.reading.is_over:
            refill.end(self._clock_us())
            self._refill = None
            log.info("streams_refilled", streams=len(refill.lines))
        return True

    def give_up(self, until: int, limit: int) -> bool:
        """The journal must make room: what stands before `until` and is not heard yet goes. Looks
        at no more than `limit` records; False: there are more.

        Account events last: they are heard now, whatever waits. The rest is marked.
        """
        return all(
            reading.position >= until or reading.pass_over(until, limit)
            for reading in self._readings()
        )

    def hold(self, record: Record) -> None:
        """The journal cannot be written: keep this in memory, for whoever is behind. Who is live
        has heard it.
        """
        if self._reading is not None:
            self._reading.hold(record, self._buffer_bytes // HELD_SHARE)
        elif self._journal.is_broken:
            self._is_said(record)

    def mend(self, head: Sequence[bytes]) -> None:
        """After a failure: try whether the journal can be written again, beginning with `head`."""
        behind = self._readings()
        at_end = [reading for reading in behind if reading.position >= self._journal.end]
        held = [reading.held.lines() for reading in behind]
        for reading, begins in zip(behind, self._journal.mend(head, *held), strict=False):
            reading.go_on_at(begins if reading in at_end else reading.position)

    def held_lines(self) -> list[bytes]:
        """What `hold` was given and is not heard yet, as lines of the journal."""
        return [line for reading in self._readings() for line in reading.held.lines()]

    def checkpoint(self) -> Checkpoint:
        """Up to where everything is settled, for the next start."""
        if self._kept is not None and self._kept.target:
            return self._kept
        lines = list(self._lines())
        apart = [(name, line) for name, line in lines if line.parked or self._is_refilled(name)]
        settled = (self._settled(line) for name, line in lines if (name, line) not in apart)
        return Checkpoint(
            min(settled, default=self._journal.end),
            self._target,
            {name: line.confirmed for name, line in lines if line.confirmed != EMPTY},
            {name: self._settled(line) for name, line in apart},
            self._begun.others,
        )

    def _lines(self) -> Iterator[tuple[str, Line]]:
        for line in self._intake.every_line():
            yield line.stream.name, line

    def _begin_line(self, line: Line) -> None:
        """A line begins where the checkpoint says; streams may come to be known at any time."""
        name, begun = line.stream.name, self._begun
        line.confirmed = begun.confirmed.get(name, EMPTY)
        line.resume_from = min(begun.offset, begun.parked.get(name, begun.offset))
        if self.behind is not None and self._is_journaled(line):
            line.hear_again()

    def _is_refilled(self, name: str) -> bool:
        return self._refill is not None and name in self._refill.lines

    def _is_journaled(self, line: Line) -> bool:
        return self._keep_private or not line.stream.is_private

    def _settled(self, line: Line) -> int:
        """From which offset on a line would have to be heard again if memory were lost now."""
        reading = self._journal.end if self._reading is None else self._reading.position
        if self._refill is not None and line.stream.name in self._refill.lines:
            reading = min(reading, self._refill.reading.position)
        oldest = line.oldest_offset()
        return reading if oldest is None else min(oldest, reading)

    def _read_from(self, offset: int) -> None:
        """Catch up from here; begin at a segment's start, where connections are known, and early
        enough that twins of what was settled last are counted.
        """
        oldest, oldest_us = self._oldest()
        early = max(0, offset - TWINS_BYTES)
        begin = max((start for start in self._journal.starts() if start <= early), default=oldest)
        self._reading = self._new_reading(begin, oldest_us)
        for _, line in self._lines():
            if self._is_journaled(line):
                line.hear_again()
        self.player.begin()
        self._intake.is_rehearing = True
        self._intake.forget()

    def _new_reading(self, position: int, since_us: int) -> Rereading:
        return Rereading(
            self._intake,
            self._journal,
            self.player,
            position,
            since_us,
            is_ours=lambda _: True,
            names=self._journaled_names,
            on_said=self._is_said,
            clock_us=self._clock_us,
        )

    def _readings(self) -> list[Rereading]:
        """All there are; what one holds is older than what the next one does."""
        refilling = [self._refill.reading] if self._refill else []
        return refilling + ([self._reading] if self._reading else [])

    def _journaled_names(self) -> Iterable[str]:
        lines = self._intake.lines.items()
        return [name for name, line in lines if self._is_journaled(line)]

    def _caught_up(self) -> None:
        for name, line in self._lines():
            if not self._is_refilled(name):
                line.caught_up()

    def _live_again(self) -> None:
        self._reading = None
        self._caught_up()
        self._intake.is_rehearing = False
        self._intake.ask_for_missing(self._clock_us())
        log.info("journal_caught_up", damaged_lines=self.damaged_lines)

    def _is_said(self, record: Record) -> None:
        """The intake has heard it and no journal has it: it is the refill's, or told of later."""
        if self._refill is not None and self._refill.reading.takes(record):
            self._refill.reading.hold(record, self._buffer_bytes // HELD_SHARE)
        else:
            self._journal.unwritten.add(record)

    def _keep_unwritten(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            if (record := read(line.rstrip(b"\n"))) is not None:
                self.hold(record)

    def _tell_of_waiting(self) -> None:
        """The journal's files are gone: what waits for Redis was in them."""
        for name, line in self._lines():
            if line.pending and self._is_journaled(line):
                heard_us = [item.heard_us for item in line.pending]
                self._journal.unwritten.add_span(name, min(heard_us), max(heard_us))
