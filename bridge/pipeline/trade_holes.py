"""The holes in one trade stream, and what the exchange's history says of them (pure).

A trade whose number does not follow on the last one heard shows a hole, and waits. History comes in
pages, the newest first; each shows a run of trades without anything between them. So it tells which
of the missing there are, and also which numbers there have never been: that is no hole. Where that
happens again and again, the market's numbers are no longer taken to be dense (sparse): a trade then
waits for what is left out before it at most each ten seconds. What was let pass in between is
judged by the next page all the same, and one trade among it makes the market dense again.

Everything is decided by what was heard and when it was heard, so that a replay decides the same: a
reply that was received after the hole's time is not used.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from bridge.contract.events import Trade
from bridge.pipeline.items import Item, from_history
from bridge.pipeline.numbered import SKIPPED

NEVER_WERE = 3  # holes in a row with numbers that never were: they are not dense
MAX_WAITING_BYTES = 16 * 1024 * 1024  # behind one hole
UNTIL_KNOWN_US = 2**63  # what mends it may be in the journal yet
SPARSE_EVERY_US = 10_000_000
MAX_UNJUDGED = 10_000
MAX_HOLES = 1_000  # open at a time; what is more is marked


class Reach(StrEnum):
    """What became of a page of history."""

    DONE = "done"  # nothing is asked for any more
    STALE = "stale"  # it does not yet show what was heard: ask again
    DEEPER = "deeper"  # what is missing is further back


@dataclass(slots=True)
class Hole:
    """Trades `from_`…`to` were not heard; `waiting` is the one behind them."""

    from_: int
    to: int
    waiting: Item
    until_us: int
    cause: str
    waiting_bytes: int = 0
    late: set[int] = field(default_factory=set)  # those that came by another way meanwhile

    def is_closed(self) -> bool:
        """Has everything come by itself?"""
        while self.from_ in self.late:
            self.from_ += 1
        return self.from_ > self.to


@dataclass(frozen=True, slots=True)
class Mended:
    """How a hole ended: ids `from_`…`to` are no longer missing (none: `from_` > `to`)."""

    from_: int
    to: int
    cause: str
    rows: Sequence[Item]
    waiting: Item

    @property
    def never_were(self) -> bool:
        """History has none of them."""
        return not self.rows and self.from_ <= self.to


class TradeHoles:
    """Follows the numbers of one trade stream. `newest` 0: nothing heard yet."""

    def __init__(self, patience_us: int) -> None:
        self.newest = 0
        self.is_sparse = False
        self.unseen: list[tuple[int, int]] = []  # let pass, though history has trades there
        self._unjudged: deque[tuple[int, int]] = deque(maxlen=MAX_UNJUDGED)
        self._ask_again_us = 0
        self.has_given_up = False  # something waits no longer: its line should know
        self._patience_us = patience_us
        self._holes: deque[Hole] = deque()
        self._cause = ""
        self._never_were = 0
        self._rows: dict[int, Trade] = {}
        self._runs: list[tuple[int, int]] = []  # what pages have shown without a break

    def disconnected(self, cause: str) -> None:
        """What is missing before the next trade was missed for this reason."""
        self._cause = cause

    def forget(self) -> None:
        """What follows tells everything anew."""
        self.newest = 0
        self._holes.clear()
        self._unjudged.clear()
        self._forget_pages()

    def hear(self, item: Item) -> bool:
        """A trade came. True: there is a hole before it, and history should be asked."""
        for hole in self._holes:
            hole.waiting_bytes += item.size
        while self._holes and self._is_over(self._holes[0], item.heard_us):
            self._holes.popleft()
        if item.position <= self.newest:
            self._came_late(item.position)
            return False
        newest, self.newest = self.newest, item.position
        cause, self._cause = self._cause, ""
        is_time = item.heard_us >= self._ask_again_us
        if not newest or item.after <= newest:
            return self._asks_for_unjudged(item.heard_us)
        if self.is_sparse and not cause and not is_time:
            self._unjudged.append((newest + 1, item.after))
            item.expected = str(newest)
            return False
        if self.is_sparse:
            self._ask_again_us = item.heard_us + SPARSE_EVERY_US
        return self.missing(newest + 1, item, item.heard_us, cause)

    def _asks_for_unjudged(self, now_us: int) -> bool:
        if not self._unjudged or now_us < self._ask_again_us:
            return False
        self._ask_again_us = now_us + SPARSE_EVERY_US
        return True

    def missing(self, from_: int, waiting: Item, now_us: int, cause: str = "") -> bool:
        """What is before `waiting` from `from_` on is missing. True: history should be asked."""
        if len(self._holes) >= MAX_HOLES:
            return False
        until_us = max(waiting.heard_us, now_us) + self._patience_us
        waiting.hold_until_us = until_us
        cause = cause or waiting.cause or SKIPPED
        self._holes.append(Hole(from_, waiting.after, waiting, until_us, cause))
        self.newest = max(self.newest, waiting.position)
        return True

    def wait_until_known(self, item: Item) -> None:
        """It was heard before: what mends its hole may follow in the journal, however late."""
        item.hold_until_us = UNTIL_KNOWN_US

    def wait_as_usual(self) -> None:
        """What follows is new."""
        for hole in self._holes:
            hole.waiting.hold_until_us = hole.until_us

    def wait_no_longer(self) -> None:
        """There is no room for what waits."""
        for hole in self._holes:
            hole.waiting.hold_until_us = 0
        self._holes.clear()

    def wanted(self, now_us: int) -> int | None:
        """How many of the newest trades history must show to reach the oldest hole; None: none."""
        asked = [hole.from_ for hole in self._holes if hole.until_us > now_us]
        asked += [from_ for from_, _ in islice(self._unjudged, 1)]
        return self.newest - min(asked) + 1 if asked else None

    def marked(self, to: int) -> None:
        """A gap was written up to there: what it names is not put in any more."""
        self._holes = deque(hole for hole in self._holes if hole.to > to)

    def page(self, rows: Iterable[Trade], received_us: int) -> tuple[Reach, list[Mended]]:
        """A page of history, in any order."""
        self._take_page(rows)
        ended: list[Mended] = []
        reach = Reach.DONE
        for hole in [hole for hole in self._holes if hole.until_us >= received_us]:
            run = next(
                (run for run in self._runs if run[0] <= hole.waiting.position <= run[1]), None
            )
            if run is None:
                reach = Reach.STALE
            elif run[0] > hole.from_:
                reach = Reach.DEEPER if reach is Reach.DONE else reach
            else:
                ended.append(self._end(hole, run[0]))
        reach = self._judge(reach)
        if not (self._holes or self._unjudged):
            self._forget_pages()
        return reach, ended

    def _judge(self, reach: Reach) -> Reach:
        """Of what was let pass: is there anything, after all?"""
        open_ones = list(self._unjudged)
        self._unjudged.clear()
        for from_, to in open_ones:
            run = next((run for run in self._runs if run[0] <= to + 1 <= run[1]), None)
            if run is None or run[0] > from_:
                self._unjudged.append((from_, to))
                if reach is Reach.DONE:
                    reach = Reach.STALE if run is None else Reach.DEEPER
            elif any(number in self._rows for number in range(from_, to + 1)):
                self.unseen.append((from_, to))
                self.is_sparse = False
                self._never_were = 0
        return reach

    def end_of_history(self, received_us: int) -> list[Mended]:
        """History reaches no further, or is refused: what it has shown is all there is."""
        ended = []
        for hole in [hole for hole in self._holes if hole.until_us >= received_us]:
            run = next(
                (run for run in self._runs if run[0] <= hole.waiting.position <= run[1]), None
            )
            ended.append(self._end(hole, run[0] if run else hole.to + 1))
        self._unjudged.clear()  # nobody can tell
        self._forget_pages()
        return ended

    def _end(self, hole: Hole, known_from: int) -> Mended:
        """Put in what history has from `known_from` on; what is older stays missing."""
        self._holes.remove(hole)
        hole.waiting.hold_until_us = 0
        first = max(hole.from_, known_from)
        after = first - 1
        rows: list[Item] = []
        for number in sorted(number for number in self._rows if first <= number <= hole.to):
            item = from_history(self._rows[number], after)
            item.cause = hole.cause
            rows.append(item)
            after = number
        if first <= hole.to:
            hole.waiting.expected = str(after)
        mended = Mended(first, hole.to, hole.cause, rows, hole.waiting)
        self._learn(mended)
        return mended

    def _learn(self, mended: Mended) -> None:
        numbers = mended.to - mended.from_ + 1
        if len(mended.rows) < numbers:
            self._never_were += 1
            self.is_sparse = self.is_sparse or self._never_were >= NEVER_WERE
        elif mended.rows:
            self._never_were = 0
            self.is_sparse = False

    def _is_over(self, hole: Hole, now_us: int) -> bool:
        if hole.waiting_bytes <= MAX_WAITING_BYTES and hole.until_us >= now_us:
            return False
        hole.waiting.hold_until_us = 0
        self.has_given_up = True
        return True

    def _came_late(self, number: int) -> None:
        for hole in list(self._holes):
            if hole.from_ <= number <= hole.to:
                hole.late.add(number)
                if hole.is_closed():
                    self._holes.remove(hole)

    def _take_page(self, rows: Iterable[Trade]) -> None:
        page = {row.trade_id: row for row in rows}
        if not page or not (self._holes or self._unjudged):
            return
        self._rows |= page
        low, high = min(page), max(page)
        apart: list[tuple[int, int]] = []
        for run in self._runs:
            if run[0] <= high + 1 and low <= run[1] + 1:
                low, high = min(low, run[0]), max(high, run[1])
            else:
                apart.append(run)
        self._runs = [*apart, (low, high)]

    def _forget_pages(self) -> None:
        self._rows.clear()
        self._runs.clear()
