"""Hearing the journal again for some streams alone, while the others go on.

Redis has lost entries of them. Until the end of the journal is reached, what is heard of them goes
into the journal only, and from there through an intake of their own into the same lines.
"""

from collections.abc import Iterable
from itertools import islice

from bridge.journal.journal import Journal
from bridge.journal.player import Player
from bridge.journal.record import Kind, Record
from bridge.pipeline.intake import Intake
from bridge.pipeline.missing import Line

STREAM_IS = b'"stream":"'


class Refill:
    """One reading for these lines. `position`: the offset to read next."""

    def __init__(self, intake: Intake, journal: Journal, lines: Iterable[Line]) -> None:
        self.lines = {line.stream.name: line for line in lines}
        self.position = journal.oldest()
        self._intake = intake
        self._journal = journal
        self._branch = intake.branch(self.lines)
        self._player = Player(self._branch)

    def step(self, limit: int) -> bool:
        """Hear up to `limit` records. True: the end is reached, the lines are live again."""
        self.pass_over(self._journal.oldest())
        for following, record in islice(self._journal.records(self.position), limit):
            if record is not None and self._is_theirs(record):
                self._player.apply(record, self.position, strict=False)
            self.position = following
        return self.position >= self._journal.end

    def pass_over(self, until: int) -> None:
        """The journal's oldest goes before it was heard: mark it where no numbers tell."""
        if until <= self.position:
            return
        first_us = last_us = 0
        for following, record in self._journal.records(self.position):
            if self.position >= until:
                break
            if record is not None and record.kind is not Kind.FRAME:
                self._player.apply(record, self.position, strict=False)
            elif record is not None:
                first_us = first_us or record.received_us
                last_us = max(last_us, record.received_us)
            self.position = following
        self.position = max(self.position, until)
        if first_us:
            self._branch.overflowed(first_us, last_us, self.position)

    def end(self, now_us: int) -> None:
        """What comes goes into the lines directly again."""
        self._intake.join_branch(now_us)
        for line in self.lines.values():
            line.caught_up()

    def _is_theirs(self, record: Record) -> bool:
        if record.kind is not Kind.FRAME:
            return True
        before, told, after = record.body.rpartition(STREAM_IS)
        if not told:
            return bool(before or after)  # written otherwise: the intake reads it
        return after.partition(b'"')[0].decode(errors="replace") in self.lines
