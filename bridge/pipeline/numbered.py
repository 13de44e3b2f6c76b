"""The line of one numbered stream (trade, depth): what waits, and what an answer means (pure).

Redis decides what is already there. A message whose predecessor is missing is refused; the line
then holds, for a bounded time counted from when that message was heard, and after it writes a gap
that names the missing ids and goes on. It never passes a refused item, and sending again is always
harmless.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile

from bridge.contract.identity import EMPTY, EntryId
from bridge.contract.streams import Stream
from bridge.pipeline.items import (
    AS_THE_LINE,
    START,
    Answer,
    Item,
    Op,
    Recent,
    is_gap,
    numbered_gap,
)
from bridge.pipeline.peers import Company
from bridge.pipeline.tail import Edge
from bridge.pipeline.unnoted import Entry, GapWanted, Unnoted

SKIPPED = "skipped"
LOST = "redis lost entries"
BUFFER_FULL = "buffer full"
RENUMBER_AFTER_US = 5_000_000
RENUMBER_MIN_FRAMES = 3
MAX_SUSPECTS = 50_000
OLDEST_LOOKED_AT = 4096  # the line is nearly in the journal's order
START_GRACE_US = 1_000_000  # for another bridge that heard the stream's beginning earlier
ASK_EVERY_US = 100_000  # whether another bridge has brought what a held line waits for


@dataclass(slots=True)
class Counters:
    """What has happened to a line's items since the bridge started."""

    published: int = 0
    duplicates: int = 0  # Redis had it already
    doubles: int = 0  # heard over another connection already
    late: int = 0
    gaps: int = 0
    repaired: int = 0
    snapshots: int = 0
    misplaced_snapshots: int = 0
    overflowed: int = 0


def _order(item: Item) -> tuple[int, str]:
    # At one position: the message (A), then a gap (G), then the snapshot (S).
    return item.position, item.op


def _is_before(item: Item, other: Item) -> bool:
    return item.position <= other.position and _order(item) < _order(other)


@dataclass(slots=True)
class NumberedLine:
    """One numbered stream's queue towards Redis. Times are the caller's, in µs."""

    stream: Stream
    hold_us: int
    company: Company = field(default_factory=Company)
    pending: deque[Item] = field(default_factory=deque)
    counters: Counters = field(default_factory=Counters)
    confirmed: str = EMPTY
    parked: str = ""
    pending_bytes: int = 0
    heard: int = 0  # messages put, ever
    resume_from: int = 0  # records of the journal before this offset are settled
    lost_at: str | None = None  # Redis lost acknowledged entries; its last ID. Nothing is sent then
    written_gaps: list[Item] = field(default_factory=list)  # until somebody takes note of them
    snapshot_tries: int = 0  # a snapshot found no place: it is to be tried again at a later message
    _is_book_void: bool = False  # a gap was written, and no snapshot since
    _unplaced: Item | None = None
    _in_flight: int = 0
    _held_until_us: int | None = None
    _hurried: bool = False
    _ask_at_us: int = 0  # while held: when to ask whether another bridge has brought it
    _waited_since_us: int | None = None  # for other bridges; a backlog with many holes waits once
    _start_cause: str | None = None
    _followed: bool = False  # another bridge published this stream, where bridges take turns
    _cause: str = ""  # why something may be missing before the next message
    _suspects: list[Item] = field(default_factory=list)
    _recent: Recent = field(default_factory=Recent)
    _is_rehearing: bool = False
    _unnoted: Unnoted = field(default_factory=Unnoted)

    def knows(self, item: Item) -> bool:
        """Was the same message heard already, over another connection? Numbers that begin anew
        have another time.
        """
        key = item.position, item.expected, item.ms
        return self._recent.has(key, item.connection, item.heard_us)

    def forget_heard(self) -> None:
        """Nothing can come over a second connection any more."""
        self._recent.clear()

    def put(self, item: Item) -> None:
        """Add what was heard; out of order only where two connections hear the same stream."""
        self.heard += 1
        if self._is_rehearing:
            self._unnoted.heard_until = max(self._unnoted.heard_until, item.offset)
        item.cause, self._cause = self._cause, ""
        self.pending_bytes += item.size
        self.pending.append(item)
        if len(self.pending) > 1 + self._in_flight and _is_before(item, self.pending[-2]):
            self._sort()
            if self.pending[self._in_flight] is item:
                self.release()  # perhaps it is what the line waits for

    def put_missing(self, items: Iterable[Item]) -> None:
        """Add what was missing before something that waits, and is to be heard again as long as
        that is: `oldest_offset` does not look far behind it.
        """
        oldest = self.oldest_offset()
        for item in items:
            item.offset = item.offset if oldest is None else min(item.offset, oldest)
            self.pending_bytes += item.size
            self.pending.append(item)
        self._sort()
        self.release()

    def release(self) -> None:
        """Something has changed for what is held: ask Redis again."""
        self._held_until_us = None

    def held_without_reason(self) -> Item | None:
        """What Redis has refused though nobody knew of a hole before it."""
        if self._held_until_us is None or self.pending[0].hold_until_us != AS_THE_LINE:
            return None
        return self.pending[0]

    def take(self, now_us: int, limit: int) -> Sequence[Item]:
        """The next items to send, in order; empty while held or parked, or with some in flight."""
        if self._in_flight or self.parked or self.lost_at is not None or not self.pending:
            return ()
        if self._is_held and not self._goes_on(now_us):
            return ()
        batch = list(islice(self.pending, 1 if self._is_held else limit))  # held: one, to ask
        if self.stream.window:
            batch = self._our_turn(batch, now_us)
        self._in_flight = len(batch)
        return batch

    def oldest_offset(self) -> int | None:
        """Where the journal has the oldest record that is not settled; None where all is."""
        offsets = [item.offset for item in islice(self.pending, OLDEST_LOOKED_AT)]
        offsets += [item.offset for item in self._suspects[:1]]
        if (unnoted := self._unnoted.oldest_offset()) is not None:
            offsets.append(unnoted)
        return min(offsets, default=None)

    def gaps_wanted(self) -> Sequence[GapWanted]:
        """Where a gap may stand that an earlier process wrote, and was killed before it was noted:
        what must be read of the stream.
        """
        return () if self.parked else self._unnoted.wanted()

    def read_gaps(self, pages: Sequence[Sequence[Entry]]) -> None:
        """What was read for `gaps_wanted`, for each of them."""
        self.written_gaps += self._unnoted.found(pages)

    def takes_void_book(self) -> bool:
        """True once after a gap, unless a snapshot waits already."""
        if not self._is_book_void or any(item.op is Op.SNAPSHOT for item in self.pending):
            return False
        self._is_book_void = False
        return True

    def due_us(self) -> int | None:
        """When a line that waits wants to be asked again."""
        if self.parked or self.lost_at is not None or not self.pending or not self.company.knows:
            return None
        if self._is_held:
            return self._ask_at_us if self.company.live else self._held_until_us
        return self.pending[0].heard_us + self._turn_us if self._turn_us else None

    def held_after(self) -> int | None:
        """The position that the waiting message needs before it; None where nothing is held."""
        return self.pending[0].after if self._is_held and self.pending else None

    def unanswered(self) -> None:
        """No reply came: nothing is known, everything is sent again, the script settles it."""
        for item in islice(self.pending, self._in_flight):
            item.in_doubt = True
        self._in_flight = 0

    def settle(self, answer: Answer, now_us: int) -> None:
        """What Redis said of the batch taken last."""
        self._in_flight = 0
        for sign in answer.signs:
            self._settle_one(sign, now_us)
        if answer.status != "empty" and self._start_cause in (START, LOST):
            self._start_cause = None  # another bridge has begun it
        unplaced, self._unplaced = self._unplaced, None
        if unplaced is not None:
            self._try_again(unplaced, answer)
        if answer.status == "ok":
            self.confirmed = answer.last
            self._held_until_us = None
            if not self.pending:
                self._waited_since_us = None
            return
        self._ask_at_us = now_us + ASK_EVERY_US
        self._refused(answer)

    def fail(self, reason: str) -> None:
        """This stream fails alone (a wrong type at its key, say); the others go on."""
        self._in_flight = 0
        self.parked = reason

    def look(self, last: str, newest: Edge | None = None) -> None:
        """The stream's last ID was read while nothing waited: is all still there?

        `newest`, its last entry, is of no use here: numbers tell what has to be refilled.
        """
        if not self.pending and EntryId.parse(last) < EntryId.parse(self.confirmed):
            self.lost_at = last

    def accept_loss(self) -> None:
        """Nobody can refill what Redis lost: go on, and mark it."""
        last, self.lost_at = self.lost_at or EMPTY, None
        self.confirmed = last
        if last == EMPTY:
            self._start_cause = LOST
        elif self.pending:
            self.pending[0].cause = LOST
            self._hold(last)
        else:
            self._cause = LOST

    def rewind(self, offset: int, oldest_us: int) -> None:
        """What waits will be heard again, from the journal's `offset` on: forget it here.

        `oldest_us`, the time of the journal's oldest record, is of no use here: numbers tell what
        cannot be refilled.
        """
        if self.lost_at is not None:
            self.accept_loss()
            self._cause = LOST if self.confirmed != EMPTY else ""
        self.resume_from = offset
        self.pending.clear()
        self.pending_bytes = 0
        self._held_until_us = None
        self._suspects = []
        self._recent.clear()
        self._unnoted.forget()

    def hear_again(self) -> None:
        """What follows was heard before: the script settles that."""
        self._is_rehearing = True

    def caught_up(self) -> None:
        """What follows is new."""
        self._is_rehearing = False

    def redeem(self) -> None:
        """Try a parked stream again."""
        self.parked = ""

    def hurry(self) -> None:
        """The bridge is stopping: hold no longer, say what is missing now."""
        self._hurried = True
        if self._held_until_us is not None:
            self._held_until_us = 0

    def disconnected(self, cause: str) -> None:
        """What is missing before the next message was missed for this reason."""
        self._cause = cause

    def drop_oldest(self, share: int) -> int:
        """Give up the oldest `1/share` of what waits; the hole becomes a gap. Returns bytes freed:
        0 where nothing can go.

        What is in flight stays: an answer about it is on its way. So does a gap that was sent and
        not answered: it may be there, and has to be noted. At least one message goes: only then
        the numbers tell of it, and a book whose snapshot goes too begins anew.
        """
        waiting, kept = list(self.pending), self._in_flight
        while kept < len(waiting) and waiting[kept].op is Op.GAP:
            kept += 1
        rest = waiting[kept:]
        first = next((at for at, item in enumerate(rest) if item.op is Op.APPEND), None)
        if first is None:
            return 0
        dropped = rest[: max(first + 1, len(rest) // share)]
        freed = sum(item.size for item in dropped)
        self.pending = deque([*waiting[:kept], *rest[len(dropped) :]])
        self.pending_bytes -= freed
        self.counters.overflowed += sum(item.op is Op.APPEND for item in dropped)
        following = next((item for item in rest[len(dropped) :] if item.op is Op.APPEND), None)
        if following is not None:
            following.cause = BUFFER_FULL
        else:
            self._cause = BUFFER_FULL
        return freed

    def _settle_one(self, sign: str, now_us: int) -> None:
        item = self.pending.popleft()
        self.pending_bytes -= item.size
        if item.op is Op.APPEND:
            self._settle_message(sign, item, now_us)
        elif item.op is Op.GAP:
            # alone, a gap that was sent and has no place can only be there already
            is_ours = sign == "+" or (item.in_doubt and not self.company.live)
            if is_ours and is_gap(item):
                self.counters.gaps += 1
                self._is_book_void = True
                self.written_gaps.append(item)
            if sign == "+":
                self._unnoted.settled(item, item.ms)
        elif sign == "+":
            self.counters.snapshots += 1
            self._is_book_void = False
        elif sign == "=":
            self.counters.duplicates += 1  # another bridge's is there
        elif not self._followed:
            self._unplaced = item

    def _try_again(self, snapshot: Item, answer: Answer) -> None:
        """A snapshot found no place: the stream is elsewhere."""
        last = EntryId.parse(answer.last)
        if snapshot.stands and last.position < snapshot.position:
            # nothing moves and it is not reached: what leads up to it was missed
            from_ = None if answer.last == EMPTY else last.position + 1
            cause = START if from_ is None else snapshot.cause or SKIPPED
            gap = numbered_gap(
                snapshot, symbol=self.stream.symbol, last=answer.last, from_=from_, cause=cause
            )
            gap.offset = snapshot.offset
            snapshot.stands = False
            self._put_first(snapshot)
            self._put_first(gap)
            return
        self.counters.misplaced_snapshots += 1
        self.snapshot_tries = snapshot.tries

    def _settle_message(self, sign: str, item: Item, now_us: int) -> None:
        self._unnoted.settled(item, item.ms or EntryId.parse(self.confirmed).ms)
        if sign == "+":
            self.counters.published += 1
            self._suspects.clear()
            return
        self.counters.duplicates += 1
        if sign == "!":
            self._suspect(item, now_us)

    def _suspect(self, item: Item, now_us: int) -> None:
        """Not newer by number, newer by time: a true duplicate never is. Numbers may begin anew.

        Kept until a message is appended again (a false alarm), or until it has gone on long enough:
        then the stream goes on with the new numbering, from the first of them.
        """
        if len(self._suspects) < MAX_SUSPECTS:
            self._suspects.append(item)
        first = self._suspects[0]
        lasted = now_us - first.heard_us >= RENUMBER_AFTER_US
        if lasted and len(self._suspects) >= RENUMBER_MIN_FRAMES:
            self._start_cause = "renumbered"
            self.pending.extendleft(reversed(self._suspects))
            self.pending_bytes += sum(suspect.size for suspect in self._suspects)
            self._suspects = []

    def _refused(self, answer: Answer) -> None:
        if answer.status == "foreign":
            self.fail(
                f"the last entry ID {answer.last} of {self.stream.name} is beyond 2^53: somebody "
                "else wrote to this key; rename it in Redis and the stream starts anew"
            )
        elif EntryId.parse(answer.last) < EntryId.parse(self.confirmed):
            self.lost_at = answer.last
        elif answer.status == "empty":
            self._start_cause = START
        elif self._is_foreign(EntryId.parse(answer.last)):
            self._start_cause = "foreign"
            self.confirmed = answer.last
        else:
            self._hold(answer.last)

    def _is_foreign(self, last: EntryId) -> bool:
        """A later ID with a lower position, or the sequence of a plain `XADD *`, is not ours."""
        return last.seq == 0 or last.position < EntryId.parse(self.confirmed).position

    @property
    def _is_held(self) -> bool:
        return self._held_until_us is not None or self._start_cause is not None

    @property
    def _turn_us(self) -> int:
        return self.company.turn_us(self.stream.name) if self.stream.window else 0

    def _hold(self, last: str) -> None:
        self.confirmed = last
        self._sort()
        first = self.pending[0]
        if self._hurried:
            self._held_until_us = 0
        elif first.hold_until_us == AS_THE_LINE:
            self._held_until_us = self.company.waits_from_us(first.heard_us) + self.hold_us
        else:
            self._held_until_us = first.hold_until_us

    def _goes_on(self, now_us: int) -> bool:
        """Held: is it time to go on without what is missing, or to ask for it again?"""
        if self._may_mark(now_us):
            if self._held_until_us is not None:
                self._write_gap()
            if self._start_cause is not None:
                self._write_start()
            return True
        if self.company.live:
            return now_us >= self._ask_at_us
        if self._held_until_us is not None and now_us >= self._held_until_us:
            self._held_until_us = now_us + ASK_EVERY_US  # until the others have been looked at
        return False

    def _may_mark(self, now_us: int) -> bool:
        """Has everybody had time to bring what is missing?"""
        company, is_start = self.company, self._start_cause in (START, LOST)
        is_hole = self._held_until_us is not None
        if self._held_until_us is not None and now_us < self._held_until_us:
            return False
        if not (is_start or is_hole):
            return True
        if self._waited_since_us is None:
            self._waited_since_us = now_us
        if company.live and is_start and now_us - self._waited_since_us < START_GRACE_US:
            return False
        waiting = next((item for item in self.pending if item.op is Op.APPEND), self.pending[0])
        return company.may_mark(
            self.stream.name,
            waiting.after,
            waiting.ms * 1000 or waiting.heard_us,
            waited_since_us=self._waited_since_us,
            now_us=now_us,
        )

    def _our_turn(self, batch: list[Item], now_us: int) -> list[Item]:
        """Windows of depth are cut differently for each bridge: they are published in turn."""
        turn_us = self._turn_us
        if self._followed and not turn_us:
            self._is_book_void = True  # its snapshots came too late to have a place
        self._followed = turn_us > 0
        if not self.company.knows:
            return []
        if not turn_us:
            return batch
        return list(takewhile(lambda item: item.heard_us + turn_us <= now_us, batch))

    def _write_gap(self) -> None:
        """The predecessor did not come in time: say what is missing and go on."""
        self._held_until_us = None
        waiting = self.pending[0]
        missing_from = EntryId.parse(self.confirmed).position + 1
        if waiting.op is Op.APPEND and waiting.after >= missing_from:
            self._put_first(self._gap(waiting, missing_from, waiting.cause or SKIPPED))

    def _write_start(self) -> None:
        waiting = next((item for item in self.pending if item.op is Op.APPEND), None)
        if waiting is not None and self._start_cause is not None:
            self._put_first(self._gap(waiting, None, self._start_cause))
            self._start_cause = None

    def _gap(self, waiting: Item, from_: int | None, cause: str) -> Item:
        gap = numbered_gap(
            waiting, symbol=self.stream.symbol, last=self.confirmed, from_=from_, cause=cause
        )
        gap.offset = waiting.offset
        return gap

    def _put_first(self, item: Item) -> None:
        self.pending_bytes += item.size
        self.pending.appendleft(item)

    def _sort(self) -> None:
        """Bring what is not in flight into the order of positions."""
        flying = [self.pending.popleft() for _ in range(self._in_flight)]
        self.pending = deque([*flying, *sorted(self.pending, key=_order)])
