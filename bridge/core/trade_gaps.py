"""What one trade stream misses, and what the exchange's history says of it (pure).

A trade whose number does not follow on the last one received shows a gap, and waits. History comes
in pages, the newest first; each shows a run of trades without anything between them. So it tells
which of the missing there are, and also which numbers there have never been: that is no gap. Where
that happens again and again, the market's numbers are no longer taken to be dense (sparse): a trade
then waits for what is left out before it at most each ten seconds. What was let pass in between is
judged by the next page all the same, and one trade among it makes the market dense again.

Everything is decided by what came and when it came, so that a replay decides the same: a reply that
came after the gap's time is not used.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from bridge.contract.causes import GapCause
from bridge.contract.events import Trade
from bridge.core.entries import Entry, Slot, slot_of, trade_from_history
from bridge.core.numbering import NONE_YET, Numbering, begins_anew
from bridge.core.outcomes import Reach
from bridge.core.queue import StreamQueue

SPARSE_AFTER = 3  # gaps in a row with numbers that never were: they are not dense
MAX_WAITING_BYTES = 16 * 1024 * 1024  # behind one gap
SPARSE_EVERY_US = 10_000_000
MAX_UNJUDGED = 10_000
MAX_OPEN = 1_000  # gaps at a time; what is more is marked


_numbering = tuple.__new__  # `Numbering(…)` is a function in Python around it


class Run(NamedTuple):
    """Numbers from `first` to `last`, both included; none where `first` is above `last`."""

    first: int
    last: int

    def has(self, number: int) -> bool:
        return self.first <= number <= self.last


@dataclass(slots=True)
class _OpenGap:
    """Trades `first`…`last` were not received; `waiting` is the one behind them."""

    first: int
    last: int
    waiting: Slot
    until_us: int
    cause: GapCause
    waiting_bytes: int = 0
    late: set[int] = field(default_factory=set)  # those that came by another way meanwhile

    def close_up(self) -> bool:
        """Shorten it by what has come; has everything?"""
        while self.first in self.late:
            self.first += 1
        return self.first > self.last


@dataclass(frozen=True, slots=True)
class Recovered:
    """How a gap ended: the numbers of `run` are no longer missing. `rows` are trades to be put
    directly before `waiting`; where there are none, the numbers never were.
    """

    run: Run
    cause: GapCause
    rows: Sequence[Slot]
    waiting: Slot


class TradeGaps:
    """Follows the numbers of one trade stream. `patience_us`: how long a gap may wait."""

    def __init__(self, patience_us: int) -> None:
        self.is_sparse = False
        self._newest = NONE_YET
        self._patience_us = patience_us
        self._open: deque[_OpenGap] = deque()
        self._unjudged: deque[Run] = deque(maxlen=MAX_UNJUDGED)
        self._unseen: list[Run] = []
        self._retry_at_us = 0
        self._has_released = False
        self._cause: GapCause | None = None
        self._sparse_in_a_row = 0
        self._rows: dict[int, Trade] = {}
        self._runs: list[Run] = []  # what pages have shown without a break

    def mark_sparse(self) -> None:
        """The numbers turned out not to be dense, at an earlier time."""
        self.is_sparse = True

    def set_gap_cause(self, cause: GapCause) -> None:
        """What is missing before the next trade is missing for this reason."""
        self._cause = cause

    def goes_on(self, entry: Entry) -> bool:
        """Take a trade that follows directly on the one before, as nearly all. False: it is to be
        received, and nothing was noted.
        """
        _, _, _, number, after, ms, _, _, _, _, _, _ = entry
        is_other = self._open or self._unjudged or self._cause or self._has_released
        if after != self._newest.number or is_other:
            return False
        self._newest = _numbering(Numbering, (number, ms))
        return True

    def receive(self, slot: Slot) -> bool:
        """A trade came. True: there is a gap before it, and history should be asked."""
        entry, at_us = slot.entry, slot.at_us
        if self._open:
            self._age(slot)
        newest = self._newest
        if entry.number <= newest.number:
            is_missed = any(gap.first <= entry.number <= gap.last for gap in self._open)
            if is_missed or not begins_anew(entry.number, entry.ms, newest):
                self._arrived_late(entry.number)
                return False
            # history shows the new numbers only: what is open is marked where it stands
            self.wait_no_longer()
            newest = NONE_YET
        self._newest = Numbering(entry.number, entry.ms)
        cause, self._cause = self._cause, None
        if not newest.number or entry.after <= newest.number:
            return self._asks_for_unjudged(at_us)
        if self.is_sparse and cause is None and at_us < self._retry_at_us:
            self._unjudged.append(Run(newest.number + 1, entry.after))
            slot.follow(newest.number)
            return False
        if self.is_sparse:
            self._retry_at_us = at_us + SPARSE_EVERY_US
        return self.open_before(slot, newest.number + 1, at_us, cause)

    def open_before(
        self, waiting: Slot, first: int, now_us: int, cause: GapCause | None = None
    ) -> bool:
        """What is before `waiting` from `first` on is missing. True: history should be asked."""
        if len(self._open) >= MAX_OPEN:
            return False
        until_us = max(waiting.at_us, now_us) + self._patience_us
        waiting.wait_until(until_us)
        cause = cause or waiting.cause or GapCause.SKIPPED
        self._open.append(_OpenGap(first, waiting.after, waiting, until_us, cause))
        if waiting.entry.number > self._newest.number:
            self._newest = Numbering(waiting.entry.number, waiting.entry.ms)
        return True

    def wait_as_usual(self) -> None:
        """All that the journal has was received again: what is open waits by the clock."""
        for gap in self._open:
            gap.waiting.wait_until(gap.until_us)

    def wait_no_longer(self) -> None:
        """There is no room for what waits: it is marked."""
        for gap in self._open:
            gap.waiting.wait_no_longer()
            self._has_released = True
        self._open.clear()

    def has_released(self) -> bool:
        """Does something wait no longer, so that its queue should ask again? Told once."""
        has_released, self._has_released = self._has_released, False
        return has_released

    def wanted(self, now_us: int) -> int | None:
        """How many of the newest trades history must show to reach the oldest gap; None: none."""
        asked = [gap.first for gap in self._open if gap.until_us > now_us]
        asked += [run.first for run in islice(self._unjudged, 1)]
        return self._newest.number - min(asked) + 1 if asked else None

    def marked(self, to: int) -> None:
        """A gap was written up to there: what it names is not put in any more."""
        self._open = deque(gap for gap in self._open if gap.last > to)

    def page(self, rows: Iterable[Trade], at_us: int) -> tuple[Reach, list[Recovered]]:
        """A page of history, in any order."""
        self._take_page(rows)
        ended: list[Recovered] = []
        reach = Reach.DONE
        for gap in self._in_time(at_us):
            run = self._run_with(gap.waiting.entry.number)
            if run is None:
                reach = Reach.STALE
            elif run.first > gap.first:
                reach = Reach.DEEPER if reach is Reach.DONE else reach
            else:
                ended.append(self._end(gap, run.first, at_us))
        reach = self._judge(reach)
        if not (self._open or self._unjudged):
            self._forget_pages()
        return reach, ended

    def end_of_history(self, at_us: int) -> list[Recovered]:
        """History reaches no further, or is refused: what it has shown is all there is."""
        ended = []
        for gap in self._in_time(at_us):
            run = self._run_with(gap.waiting.entry.number)
            ended.append(self._end(gap, run.first if run else gap.last + 1, at_us))
        self._unjudged.clear()  # it cannot be told any more
        self._forget_pages()
        return ended

    def unseen(self) -> Sequence[Run]:
        """What was let pass, though history has trades there. Told once."""
        unseen, self._unseen = self._unseen, []
        return unseen

    # ---- inside --------------------------------------------------------------------------------

    def _age(self, slot: Slot) -> None:
        """Another one waits behind what is open; what is over by time or size waits no longer."""
        for gap in self._open:
            gap.waiting_bytes += slot.size
        while self._open and self._is_over(self._open[0], slot.at_us):
            self._open.popleft().waiting.wait_no_longer()
            self._has_released = True

    def _is_over(self, gap: _OpenGap, now_us: int) -> bool:
        return gap.waiting_bytes > MAX_WAITING_BYTES or gap.until_us < now_us

    def _in_time(self, at_us: int) -> list[_OpenGap]:
        return [gap for gap in self._open if gap.until_us >= at_us]

    def _run_with(self, number: int) -> Run | None:
        return next((run for run in self._runs if run.has(number)), None)

    def _asks_for_unjudged(self, now_us: int) -> bool:
        if not self._unjudged or now_us < self._retry_at_us:
            return False
        self._retry_at_us = now_us + SPARSE_EVERY_US
        return True

    def _judge(self, reach: Reach) -> Reach:
        """Of what was let pass: is there anything, after all?"""
        let_pass = list(self._unjudged)
        self._unjudged.clear()
        for each in let_pass:
            run = self._run_with(each.last + 1)
            if run is None or run.first > each.first:
                self._unjudged.append(each)
                if reach is Reach.DONE:
                    reach = Reach.STALE if run is None else Reach.DEEPER
            elif any(map(each.has, self._rows)):
                self._unseen.append(each)
                self.is_sparse = False
                self._sparse_in_a_row = 0
        return reach

    def _end(self, gap: _OpenGap, known_from: int, at_us: int) -> Recovered:
        """Put in what history has from `known_from` on; what is older stays missing."""
        self._open.remove(gap)
        gap.waiting.wait_no_longer()
        first = max(gap.first, known_from)
        after = first - 1
        rows: list[Slot] = []
        for number in sorted(number for number in self._rows if first <= number <= gap.last):
            row = slot_of(trade_from_history(self._rows[number]), gap.waiting.position, at_us)
            row.follow(after)
            row.wait_no_longer()
            row.explain(gap.cause)
            rows.append(row)
            after = number
        if first <= gap.last:
            gap.waiting.follow(after)
        recovered = Recovered(Run(first, gap.last), gap.cause, rows, gap.waiting)
        self._learn(recovered)
        return recovered

    def _learn(self, recovered: Recovered) -> None:
        numbers = recovered.run.last - recovered.run.first + 1
        if len(recovered.rows) < numbers:
            self._sparse_in_a_row += 1
            self.is_sparse = self.is_sparse or self._sparse_in_a_row >= SPARSE_AFTER
        elif recovered.rows:
            self._sparse_in_a_row = 0
            self.is_sparse = False

    def _arrived_late(self, number: int) -> None:
        for gap in list(self._open):
            if gap.first <= number <= gap.last:
                gap.late.add(number)
                if gap.close_up():
                    self._open.remove(gap)

    def _take_page(self, rows: Iterable[Trade]) -> None:
        page = {row.trade_id: row for row in rows}
        if not page or not (self._open or self._unjudged):
            return
        self._rows |= page
        shown = Run(min(page), max(page))
        apart: list[Run] = []
        for run in self._runs:
            if run.first <= shown.last + 1 and shown.first <= run.last + 1:
                shown = Run(min(shown.first, run.first), max(shown.last, run.last))
            else:
                apart.append(run)
        self._runs = [*apart, shown]

    def _forget_pages(self) -> None:
        self._rows.clear()
        self._runs.clear()


class TradeStream(NamedTuple):
    """A trade stream's queue, and what it misses."""

    queue: StreamQueue
    gaps: TradeGaps
