"""Hearing the journal again: at the start, after Redis has lost entries, when memory was full.

While it is `behind`, what is heard goes into the journal only; `catch_up` reads the journal from
the place that is settled and says it to the intake, as fast as Redis takes it, until its end is
reached: then live again. The lines get the same calls in the same order either way.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import structlog

from bridge.contract.identity import EMPTY
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.journal import Journal
from bridge.journal.player import Player
from bridge.journal.record import Kind, Record, read, render_record
from bridge.journal.refill import Refill
from bridge.pipeline.intake import Intake
from bridge.pipeline.missing import Line

log = structlog.get_logger(__name__)

PARKED_SHARE = 16  # of the memory, for each stream that fails alone
REFILL_SHARE = 8  # of the memory, for the streams that are refilled
LOW_SHARE = 2  # catching up goes on while less than 1/2 of the memory waits
TWINS_BYTES = 1024 * 1024  # of the journal before the settled place that are heard for their counts
PRIVATE_STREAM = b'"stream":"account.'
NOTHING = Record(0, Kind.STATE, 0, b"{}")


class Rehearing:
    """Says to one intake what a journal holds. `behind`: the offset to read next; None: live.

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
        self.behind: int | None = None
        self.player = Player(intake)
        self._intake = intake
        self._journal = journal
        self._buffer_bytes = buffer_bytes
        self._clock_us = clock_us
        self._keep_private = keep_private
        self._begun = Checkpoint(0, "")
        self._kept: Checkpoint | None = None  # of those that are published to at other times
        self._target = ""
        self._held: deque[Record] = deque()  # behind, and the journal cannot be written
        self._held_bytes = 0
        self._refill: Refill | None = None  # of some streams, while the others go on
        journal.on_unwritten = self._keep_unwritten
        intake.on_new_line = self._begin_line

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

    def take_over(self) -> None:
        """Memory is full: from here on the journal remembers, and is heard when there is room."""
        self._journal.flush()
        self.behind = self._journal.end
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
        if self.behind is None and lost <= self._intake.lines.keys():
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
        self._refill = Refill(self._intake, self._journal, lines)

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
        return oldest, next((record.received_us for _, record in self._records(oldest)), 0)

    def _step_refill(self, refill: Refill, limit: int) -> bool:
        self._journal.flush()
        self._intake.bound_parked(self._buffer_bytes // PARKED_SHARE)
        waiting = sum(line.pending_bytes for line in refill.lines.values() if not line.parked)
        if waiting > self._buffer_bytes // REFILL_SHARE:
            return False
        if refill.step(limit):
            refill.end(self._clock_us())
            self._refill = None
            log.info("streams_refilled", streams=len(refill.lines))
        return True

    def catch_up(self, limit: int) -> bool:
        """Hear up to `limit` records again; False where there is nothing to do just now."""
        if self.behind is None:
            return self._refill is not None and self._step_refill(self._refill, limit)
        self._journal.flush()
        self._intake.bound_parked(self._buffer_bytes // PARKED_SHARE)
        if self._intake.pending_bytes() > self._buffer_bytes // LOW_SHARE:
            self._intake.missing.wait_no_longer()
            return False
        self._pass_over(self._journal.oldest())
        for following, record in islice(self._records(self.behind), limit):
            self.player.apply(record, self.behind, strict=False)
            self.behind = following
        if self.behind >= self._journal.end:
            self._live_again()
        return True

    def give_up(self, until: int) -> None:
        """The journal must make room: what stands before `until` and is not heard yet goes.

        Account events last: they are heard now, whatever waits. The rest is marked.
        """
        if self.behind is not None:
            self._pass_over(until)
        if self._refill is not None:
            self._refill.pass_over(until)

    def hold(self, record: Record) -> None:
        """Behind, and the journal cannot be written: keep it in memory until the end is reached."""
        self._held.append(record)
        self._held_bytes += len(record.body)
        if self._held_bytes > self._buffer_bytes // LOW_SHARE:
            self._pass_over(self._journal.end)
            self._live_again()

    def held_lines(self) -> list[bytes]:
        """What `hold` was given and is not heard yet, as lines of the journal."""
        return [render_record(record) for record in self._held]

    def forget_held(self) -> None:
        """It is in the journal now."""
        self._held.clear()
        self._held_bytes = 0

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
        reading = self._journal.end if self.behind is None else self.behind
        if self._refill is not None and line.stream.name in self._refill.lines:
            reading = min(reading, self._refill.position)
        oldest = line.oldest_offset()
        return reading if oldest is None else min(oldest, reading)

    def _records(self, offset: int) -> Iterator[tuple[int, Record]]:
        for following, record in self._journal.records(offset):
            if record is None:
                self.player.damaged += 1
            yield following, record or NOTHING

    def _read_from(self, offset: int) -> None:
        """Catch up from here; begin at a segment's start, where connections are known, and early
        enough that twins of what was settled last are counted.
        """
        starts = self._journal.starts()
        early = max(0, offset - TWINS_BYTES)
        self.behind = max((start for start in starts if start <= early), default=starts[0])
        for _, line in self._lines():
            if self._is_journaled(line):
                line.hear_again()
        self.player.begin()
        self._intake.is_rehearing = True
        self._intake.forget()

    def _live_again(self) -> None:
        self.behind = None
        for name, line in self._lines():
            if not self._is_refilled(name):
                line.caught_up()
        held, self._held = self._held, deque()
        self._held_bytes = 0
        self._journal.loss.add_lines(map(render_record, held))
        for record in held:
            self.player.apply(record, self._journal.end, strict=False)
        self._intake.is_rehearing = False
        self._intake.ask_for_missing(self._clock_us())
        log.info("journal_caught_up", damaged_lines=self.damaged_lines)

    def _pass_over(self, until: int) -> None:
        """Go on reading at `until`; what is left out is marked where no numbers tell."""
        if self.behind is None or until <= self.behind:
            return
        first_us = last_us = passed = 0
        for following, record in self._records(self.behind):
            if self.behind >= until:
                break
            is_public = record.kind is Kind.FRAME and PRIVATE_STREAM not in record.body
            if is_public:
                first_us = first_us or record.received_us
                last_us = max(last_us, record.received_us)
                passed += 1
            else:
                self.player.apply(record, self.behind, strict=False)
            self.behind = following
        self.behind = max(self.behind, until)
        if passed:
            log.error("journal_gave_up_oldest", frames=passed)
            self._intake.overflowed(first_us, last_us, self.behind)

    def _keep_unwritten(self, lines: Sequence[bytes]) -> None:
        if self.behind is None:
            self._journal.loss.add_lines(lines)
            return
        for line in lines:
            if (record := read(line.rstrip(b"\n"))) is not None:
                self.hold(record)
