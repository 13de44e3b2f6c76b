"""Hearing the journal again for some streams alone, while the others go on.

Redis has lost entries of them. Until the end of the journal is reached, what is heard of them goes
into the journal only, and from there through an intake of their own into the same lines.
"""

from collections.abc import Callable, Iterable

from bridge.journal.journal import Journal
from bridge.journal.player import Player
from bridge.journal.record import Record
from bridge.journal.rereading import Rereading
from bridge.pipeline.intake import Intake
from bridge.pipeline.missing import Line

STREAM_IS = b'"stream":"'


class Refill:
    """For these lines: the `reading`, and its end. The journal's oldest record is `oldest_us`'."""

    def __init__(
        self,
        intake: Intake,
        journal: Journal,
        lines: Iterable[Line],
        oldest_us: int,
        *,
        on_said: Callable[[Record], None],
        clock_us: Callable[[], int],
    ) -> None:
        self.lines = {line.stream.name: line for line in lines}
        self._intake = intake
        branch = intake.branch(self.lines)
        self.reading = Rereading(
            branch,
            journal,
            Player(branch),
            journal.oldest(),
            oldest_us,
            is_ours=self._is_theirs,
            names=lambda: self.lines,
            on_said=on_said,
            clock_us=clock_us,
        )

    def waiting_bytes(self) -> int:
        """How much of them waits for Redis; streams that fail alone are bounded apart."""
        return sum(line.pending_bytes for line in self.lines.values() if not line.parked)

    def end(self, now_us: int) -> None:
        """All is said: what comes goes into the lines directly again."""
        self._intake.join_branch(now_us)
        for line in self.lines.values():
            line.caught_up()

    def _is_theirs(self, frame: Record) -> bool:
        before, told, after = frame.body.rpartition(STREAM_IS)
        if not told:
            return bool(before or after)  # written otherwise: the intake reads it
        return after.partition(b'"')[0].decode(errors="replace") in self.lines
