"""The gaps of one trade stream, and their recovery from the exchange's history (pure).

A trade whose number does not follow the last one received shows a gap, and waits. History comes in
pages, the newest first; each has a run of trades without any other between them. So it shows which
missing trades exist, and also which numbers never existed: those are no gap. If that happens
repeatedly, the market's numbers are treated as sparse, not dense: then at most one trade in ten
seconds waits for the numbers left out before it. The next page also checks the numbers skipped in
between, and one trade among them makes the market dense again.

All decisions depend only on the records and their times of receipt, so that a replay decides the
same: a reply after the gap's time limit is not used.
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

SPARSE_AFTER = 3  # successive gaps with numbers that never existed make the market sparse
MAX_WAITING_BYTES = 16 * 1024 * 1024  # behind one gap
SPARSE_EVERY_US = 10_000_000
MAX_UNJUDGED = 10_000
MAX_OPEN = 1_000  # gaps that wait at a time; further ones are marked


_numbering = tuple.__new__  # faster than `Numbering(…)`, which is a Python function around it


class Run(NamedTuple):
    """Numbers from `first` to `last`, both included; empty if `first` is above `last`."""

    first: int
    last: int

    def has(self, number: int) -> bool:
        return self.first <= number <= self.last


@dataclass(slots=True)
class _OpenGap:
    """A gap: trades `first`…`last` were not received; `waiting` is the trade after them."""

    first: int
    last: int
    waiting: Slot
    until_us: int
    cause: GapCause
    waiting_bytes: int = 0
    late: set[int] = field(default_factory=set)  # missing trades that were received late

    def close_up(self) -> bool:
        """Shorten the gap by its late trades. Returns whether it is closed."""
        while self.first in self.late:
            self.first += 1
        return self.first > self.last


@dataclass(frozen=True, slots=True)
class Recovered:
    """The end of a gap: the numbers of `run` are no longer missing. `rows`: trades to be put
    directly before `waiting`; if there are none, the numbers never existed.
    """

    run: Run
    cause: GapCause
    rows: Sequence[Slot]
    waiting: Slot


class TradeGaps:
    """Follows the numbers of one trade stream. `recover_us`: how long a trade waits for a gap."""

    def __init__(self, recover_us: int) -> None:
        self.is_sparse = False
        self._newest = NONE_YET
        self._recover_us = recover_us
        self._open: deque[_OpenGap] = deque()
        self._unjudged: deque[Run] = deque(maxlen=MAX_UNJUDGED)
        self._unseen: list[Run] = []
        self._retry_at_us = 0
        self._has_released = False
        self._cause: GapCause | None = None
        self._sparse_in_a_row = 0
        self._rows: dict[int, Trade] = {}
        self._runs: list[Run] = []  # numbers that pages have covered

    def mark_sparse(self) -> None:
        """Treat the numbers as sparse, as they proved to be earlier."""
        self.is_sparse = True

    def set_gap_cause(self, cause: GapCause) -> None:
        """Set the cause of a gap before the next trade."""
        self._cause = cause

    def try_receive(self, entry: Entry) -> bool:
        """Take a trade that directly follows the one before, the usual case. False: `receive` is
        needed, and nothing was noted.
        """
        _, _, _, number, after, ms, _, _, _, _, _, _ = entry
        is_other = self._open or self._unjudged or self._cause or self._has_released
        if after != self._newest.number or is_other:
            return False
        self._newest = _numbering(Numbering, (number, ms))
        return True

    def receive(self, slot: Slot) -> bool:
        """Take a trade. True: there is a gap before it, and history should be fetched."""
        entry, at_us = slot.entry, slot.at_us
        if self._open:
            self._age(slot)
        newest = self._newest
        if entry.number <= newest.number:
            is_missed = any(gap.first <= entry.number <= gap.last for gap in self._open)
            if is_missed or not begins_anew(entry.number, entry.ms, newest):
                self._arrived_late(entry.number)
                return False
            # history has the new numbers only: open gaps are marked at their place
            self.wait_no_longer()
            newest = NONE_YET
        self._newest = Numbering(entry.number, entry.ms)
        cause, self._cause = self._cause, None
        if not newest.number or entry.after <= newest.number:
            return self._is_check_due(at_us)
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
        """Open a gap from `first` up to `waiting`. True: history should be fetched."""
        if len(self._open) >= MAX_OPEN:
            return False
        until_us = max(waiting.at_us, now_us) + self._recover_us
        waiting.wait_until(until_us)
        cause = cause or waiting.cause or GapCause.SKIPPED
        self._open.append(_OpenGap(first, waiting.after, waiting, until_us, cause))
        if waiting.entry.number > self._newest.number:
            self._newest = Numbering(waiting.entry.number, waiting.entry.ms)
        return True

    def wait_as_usual(self) -> None:
        """End of the replay: trades behind open gaps wait by the clock."""
        for gap in self._open:
            gap.waiting.wait_until(gap.until_us)

    def wait_no_longer(self) -> None:
        """End all waits, for lack of memory: the gaps are marked."""
        for gap in self._open:
            gap.waiting.wait_no_longer()
            self._has_released = True
        self._open.clear()

    def has_released(self) -> bool:
        """Whether a wait has ended, so that the queue should try its head again. True once."""
        has_released, self._has_released = self._has_released, False
        return has_released

    def wanted(self, now_us: int) -> int | None:
        """How many of the newest trades history must return to reach the oldest gap, or None."""
        firsts = [gap.first for gap in self._open if gap.until_us > now_us]
        firsts += [run.first for run in islice(self._unjudged, 1)]
        return self._newest.number - min(firsts) + 1 if firsts else None

    def marked(self, to: int) -> None:
        """Note that a gap was written up to this number: its trades are not recovered any more.
        Nothing else ends the wait of the trades behind them, which may be of a new numbering.
        """
        for gap in self._open:
            if gap.last <= to:
                gap.waiting.wait_no_longer()
        self._open = deque(gap for gap in self._open if gap.last > to)

    def page(self, rows: Iterable[Trade], at_us: int) -> tuple[Reach, list[Recovered]]:
        """Take a page of history, in any order. Returns its result and the gaps that ended."""
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
        self._forget_settled()
        return reach, ended

    def end_of_history(self, at_us: int) -> list[Recovered]:
        """Take the end of history (no further page, or refused). Returns the gaps that ended."""
        ended = []
        for gap in self._in_time(at_us):
            run = self._run_with(gap.waiting.entry.number)
            ended.append(self._end(gap, run.first if run else gap.last + 1, at_us))
        self._unjudged.clear()  # it cannot be checked any more
        self._forget_pages()
        return ended

    def unseen(self) -> Sequence[Run]:
        """Skipped numbers that do have trades in history; returned once."""
        unseen, self._unseen = self._unseen, []
        return unseen

    # ---- inside --------------------------------------------------------------------------------

    def _age(self, slot: Slot) -> None:
        """Count a slot that waits behind the open gaps; end those beyond their time or size."""
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

    def _is_check_due(self, now_us: int) -> bool:
        """Whether skipped numbers are to be checked against history now."""
        if not self._unjudged or now_us < self._retry_at_us:
            return False
        self._retry_at_us = now_us + SPARSE_EVERY_US
        return True

    def _judge(self, reach: Reach) -> Reach:
        """Check the skipped numbers against the pages. Returns the result, with what is needed."""
        skipped = list(self._unjudged)
        self._unjudged.clear()
        for each in skipped:
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
        """End a gap with the trades of history from `known_from` on; older ones stay missing."""
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

    def _forget_settled(self) -> None:
        """Forget what pages showed before the oldest number that is still missing or to be checked:
        in a busy sparse market there is always one that is newer than the page.
        """
        firsts = [gap.first for gap in self._open]
        firsts += [run.first for run in islice(self._unjudged, 1)]
        if not firsts:
            self._forget_pages()
            return
        oldest = min(firsts)
        self._rows = {number: row for number, row in self._rows.items() if number >= oldest}
        self._runs = [
            Run(max(run.first, oldest), run.last) for run in self._runs if run.last >= oldest
        ]

    def _forget_pages(self) -> None:
        self._rows.clear()
        self._runs.clear()


class TradeStream(NamedTuple):
    """A trade stream's queue and gaps."""

    queue: StreamQueue
    gaps: TradeGaps
