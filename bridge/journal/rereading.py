"""One reading of the journal into one intake: up to its end, and what is held behind that.

While the journal cannot be written, what comes after its end is held in memory. When there is too
much of it, the reading gives up: it passes over what it has not read yet, so that what is held can
be said.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import structlog

from bridge.journal.held import Held, is_public
from bridge.journal.journal import Journal
from bridge.journal.player import Player
from bridge.journal.record import FRAMES, Record
from bridge.pipeline.intake import Intake
from bridge.pipeline.numbered import BUFFER_FULL
from bridge.pipeline.past import NOT_IN_JOURNAL

log = structlog.get_logger(__name__)


class Rereading:
    """`position`: the offset to read next; all before `since_us` has been said.

    `is_ours(frame)`: is it for these lines; `names()`: which of them the journal tells of.
    `on_said` gets what was held, as it is said: no journal has it.
    """

    def __init__(
        self,
        intake: Intake,
        journal: Journal,
        player: Player,
        position: int,
        since_us: int,
        *,
        is_ours: Callable[[Record], bool],
        names: Callable[[], Iterable[str]],
        on_said: Callable[[Record], None],
        clock_us: Callable[[], int],
    ) -> None:
        self.position = position
        self.held = Held()
        self.gives_up = False
        self._intake = intake
        self._journal = journal
        self._player = player
        self._is_ours = is_ours
        self._names = names
        self._on_said = on_said
        self._clock_us = clock_us
        self._read_us = since_us  # when the record came that was read last
        self._passed: tuple[int, int] | None = None  # public frames passed over: from when to when
        self._passed_frames = 0
        self._shed: dict[str, tuple[int, int]] = {}

    @property
    def is_over(self) -> bool:
        """Is there nothing left to be said?"""
        return self.position >= self._journal.end and not self.held and not self._shed

    def takes(self, record: Record) -> bool:
        """Is it for these lines? What happened to connections always is."""
        return record.kind not in FRAMES or self._is_ours(record)

    def step(self, limit: int) -> None:
        """Say up to `limit` records; what is held in a step of its own, for all of it is new."""
        self._miss_until(self._journal.oldest())
        is_empty = True
        for following, record in islice(self._records(), limit):
            if record is not None and self.takes(record):
                self._player.apply(record, self.position, strict=False)
            self.position, is_empty = following, False
        if is_empty:
            self._miss_until(self._journal.written)
            self._say_held(limit)

    def step_giving_up(self, limit: int) -> None:
        """The same where memory is short: what is not read yet is passed over."""
        if self.pass_over(self._journal.end, limit):
            self._say_held(limit)

    def pass_over(self, until: int, limit: int | None = None) -> bool:
        """Go on at `until`, looking at no more than `limit` records; False: there are more.

        Account events are heard, whatever waits. The rest is marked where no numbers tell.
        """
        seen = 0
        for following, record in islice(self._records(), limit):
            if following > until:
                break
            seen += 1
            if record is not None and self.takes(record):
                self._pass(record)
            self.position = following
        if seen == limit and self.position < until:
            return False
        self._miss_until(until)
        self._mark_passed()
        return True

    def hold(self, record: Record, limit_bytes: int) -> None:
        """It cannot be written: keep it, or its like that is older, or give up what is before."""
        if not self.takes(record):
            return
        self.held.add(record)
        self.gives_up = self.gives_up or self.held.bytes > limit_bytes
        while self.held.bytes > 2 * limit_bytes and self._shed_some():
            pass

    def go_on_at(self, offset: int) -> None:
        """The journal can be written again; what was held is in it."""
        self._mark_passed()
        if offset == self.position:
            self._shed = {}  # what cannot be had is told of further on
        self.held.clear()
        self.gives_up = False
        self.position = offset

    def _records(self) -> Iterator[tuple[int, Record | None]]:
        for following, record in self._journal.records(self.position):
            if record is None:
                self._player.damaged += 1
            else:
                self._read_us = record.received_us
            yield following, record

    def _pass(self, record: Record) -> None:
        if not is_public(record):
            self._player.apply(record, self.position, strict=False)
            return
        first_us, last_us = self._passed or (record.received_us, record.received_us)
        self._passed = first_us, max(last_us, record.received_us)
        self._passed_frames += 1

    def _mark_passed(self) -> None:
        if self._passed is not None:
            log.error("journal_gave_up_oldest", frames=self._passed_frames)
            self._intake.overflowed(*self._passed, self.position)
        self._passed, self._passed_frames = None, 0

    def _miss_until(self, offset: int) -> None:
        """The files are not there: somebody has removed them."""
        if offset <= self.position:
            return
        log.error("journal_vanished", bytes=offset - self.position)
        self._journal.check()
        self.position = offset
        until_us = self._clock_us()
        spans = dict.fromkeys(self._names(), (self._read_us, until_us))
        self._intake.lacks(spans, NOT_IN_JOURNAL, offset)
        if self._journal.is_broken:
            for name, (from_us, to_us) in spans.items():
                self._journal.unwritten.add_span(name, from_us, to_us)

    def _say_held(self, limit: int) -> None:
        if self._shed:
            self._intake.lacks(self._shed, BUFFER_FULL, self._journal.end)
            self._shed = {}
        for _ in range(min(limit, len(self.held))):
            record = self.held.pop()
            self._on_said(record)
            self._player.apply(record, self._journal.end, strict=False)

    def _shed_some(self) -> bool:
        frames = 0
        for name, record in self.held.shed():
            self._on_said(record)  # not to these lines, but no journal has it
            first_us, _ = self._shed.get(name, (record.received_us, 0))
            self._shed[name] = first_us, record.received_us
            frames += 1
        if frames:
            log.error("journal_gave_up_oldest", frames=frames)
        return frames > 0
