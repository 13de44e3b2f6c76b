"""The line of one unnumbered stream: account events, liquidations, and states (pure).

Nothing numbers these messages, so each batch is appended only if the stream's last ID is still the
one this line reasoned on. Otherwise somebody wrote (or an answer was lost): the line reads the
stream's tail, drops what is there already, told by content, and sends the rest.

States (tickers, candles, prices) are ordered by update id or time: one that is not above the last
is late and dropped, an equal one with other content is kept.

Where another bridge publishes the stream (`company`), a message is this line's to send only after a
while, and if the tail still lacks it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from bridge.contract.identity import EMPTY, EntryId
from bridge.contract.streams import Identity, Stream
from bridge.pipeline.ear import UNSURE_US
from bridge.pipeline.giving_up import give_up
from bridge.pipeline.items import Answer, Item, Recent, is_account_snapshot, unnumbered_gap
from bridge.pipeline.numbered import LOST, OLDEST_LOOKED_AT, Counters
from bridge.pipeline.peers import Company, DeafMark
from bridge.pipeline.states import SAMPLED_EVERY_US, Newest, Place, Samples
from bridge.pipeline.tail import (
    NEWEST_STATES,
    NOTHING_STORED,
    TAIL_MS,
    Edge,
    Stored,
    Tail,
    TailWanted,
)

MAX_FETCHED = 20_000
FLOOR_US = 10_000_000  # two bridges hear one message no further apart


@dataclass(slots=True)
class UnnumberedLine:
    """One unnumbered stream's queue towards Redis. Times are the caller's, in µs."""

    stream: Stream
    company: Company = field(default_factory=Company)
    pending: deque[Item] = field(default_factory=deque)
    counters: Counters = field(default_factory=Counters)
    confirmed: str = EMPTY
    parked: str = ""
    pending_bytes: int = 0
    heard: int = 0  # messages put, ever
    written_gaps: list[Item] = field(default_factory=list)  # until somebody takes note of them
    resume_from: int = 0  # records of the journal before this offset are settled
    lost_at: str | None = None  # Redis lost acknowledged entries; its last ID. Nothing is sent then
    rehearing: bool = False  # what is put may be in the stream already: heard before a restart
    there_until_us: int = 0  # while refilling: what was heard until then is there (our clock)
    _is_refilled: bool = False  # what marks say of the stream is of what Redis has lost
    _kept: Edge | None = None  # after a loss: the last entry that Redis kept
    _floor_us: int = 0  # while refilling: what was heard before is there already
    _stored: Stored = NOTHING_STORED
    _in_flight: int = 0
    _look_first: bool = False  # something waits that may be in the stream already
    _fetched: dict[tuple[str, ...], None] = field(default_factory=dict)  # lately, over REST
    _last: str | None = None  # the ID the next batch expects; None: the tail must be read first
    _tail_is_fresh: bool = False  # read since the last take: where another bridge publishes
    _newest: Newest = field(default_factory=Newest)
    _recent: Recent = field(default_factory=Recent)
    _samples: Samples = field(default_factory=Samples)

    def knows(self, item: Item) -> bool:
        """Was the same message heard already, over another connection?"""
        every_us = SAMPLED_EVERY_US.get(self.stream.type)
        if every_us is None or not item.order:
            return self._recent.has(item.key, item.connection, item.heard_us)
        return self._samples.has(item, every_us)

    def forget_heard(self) -> None:
        """Nothing can come over a second connection any more."""
        self._recent.clear()

    def put(self, item: Item) -> None:
        """Add what was heard, unless it is a state that a newer one has overtaken."""
        self.heard += 1
        was_kept = self._floor_us and self._was_kept(item)
        if was_kept or item.key in self._fetched or self._was_seen(item):
            self.counters.duplicates += 1
            return
        match self._newest.take(item) if self._is_state(item) else Place.NEW:
            case Place.LATE:
                self.counters.late += 1
                return
            case Place.SAME:
                self.counters.duplicates += 1
                return
        self.pending_bytes += item.size
        self.pending.append(item)

    def put_missing(self, items: Iterable[Item]) -> None:
        """Add what may have been missed, and may as well be in the stream already."""
        known = {item.key for item in self.pending}
        for item in items:
            if item.key in known or item.key in self._fetched:
                continue
            self._fetched[item.key] = None
            self.pending.append(item)
            self.pending_bytes += item.size
            self._look_first = True
        while len(self._fetched) > MAX_FETCHED:
            del self._fetched[next(iter(self._fetched))]
        if self._look_first and not self._in_flight:
            self._last = None

    def put_gap(
        self, *, from_us: int, to_us: int, cause: str, heard_us: int, offset: int = 0
    ) -> None:
        """Say that nobody was listening from then until then (the exchange's time), before the
        first that was heard at `heard_us` (ours) or later.
        """
        if heard_us < self._floor_us:
            return
        gap = unnumbered_gap(
            symbol=self.stream.symbol,
            from_us=from_us,
            to_us=to_us,
            cause=cause,
            received_us=heard_us,
        )
        gap.offset, gap.cause = offset, cause
        if not self._is_refilled or self.company.live:
            gap.deaf_us = from_us, to_us
        place = len(self.pending)
        while place > self._in_flight and self.pending[place - 1].heard_us >= heard_us:
            place -= 1
        self.pending.insert(place, gap)
        self.pending_bytes += gap.size

    def tail_wanted(self, now_us: int) -> TailWanted | None:
        """What must be read of the tail before anything can be sent, or None."""
        if self._in_flight or not self._can_send():
            return None
        if self._last is None:
            self._look_first = False
            return TailWanted(max(0, min(item.ms for item in self.pending) - TAIL_MS))
        turn_us = self._turn_us
        if turn_us and not self._tail_is_fresh and self.pending[0].heard_us + turn_us <= now_us:
            is_state = self.stream.identity is Identity.STATES
            oldest_ms = max(0, self.pending[0].ms - TAIL_MS)
            return TailWanted(oldest_ms, NEWEST_STATES if is_state else None)
        return None

    def take(self, now_us: int, limit: int) -> Sequence[Item]:
        """The next items to send, in order; the first carries the ID the batch expects."""
        if self._in_flight or self._last is None or not self._can_send():
            return ()
        if self._turn_us and not self._tail_is_fresh:
            return ()
        self._tail_is_fresh = False
        if self._waits_at_the_head(now_us):
            return ()
        batch = list(self._sendable(now_us, limit))
        if not batch:
            return ()
        batch[0].expected = self._last
        for item in batch[1:]:
            item.expected = ""
        self._in_flight = len(batch)
        return batch

    def oldest_offset(self) -> int | None:
        """Where the journal has the oldest record that is not settled; None where all is."""
        return min((item.offset for item in islice(self.pending, OLDEST_LOOKED_AT)), default=None)

    def due_us(self) -> int | None:
        """When the head is this line's to send, where another bridge publishes the stream."""
        if not self._turn_us or self._in_flight or not self._can_send() or self._is_deaf_head():
            return None
        return self.pending[0].heard_us + self._turn_us

    def settled_until_us(self, heard_until_us: int) -> int:
        """Up to when all is in the stream, where all was heard until then; 0: not known.

        An engine time is never above the time a message was emitted.
        """
        if len(self.pending) > OLDEST_LOOKED_AT or self.lost_at is not None or self._has_gaps():
            return 0
        return min([heard_until_us, *(item.ms * 1000 - UNSURE_US for item in self.pending)])

    def is_deaf(self) -> bool:
        """Does an interval wait here in which this bridge did not listen?"""
        return any(item.deaf_us for item in self.pending)

    def unanswered(self) -> None:
        """No reply came: the tail will say what is there."""
        self._in_flight = 0
        self._last = None

    def settle(self, answer: Answer, now_us: int) -> None:
        """What Redis said of the batch taken last."""
        self._in_flight = 0
        self._tail_is_fresh = False
        for _ in range(answer.settled):
            item = self.pending.popleft()
            self.pending_bytes -= item.size
            self._count(item)
        if answer.status == "foreign":
            self.fail(
                f"the last entry ID {answer.last} of {self.stream.name} is beyond 2^53: somebody "
                "else wrote to this key; rename it in Redis and the stream starts anew"
            )
        elif answer.status == "moved":
            self._last = None
        else:
            self.confirmed = answer.last
            self._last = None if self._look_first else answer.last

    def read_tail(self, tail: Tail) -> None:
        """Go on from what the stream really holds."""
        if EntryId.parse(tail.last) < EntryId.parse(self.confirmed):
            self.lost_at, self._kept = tail.last, tail.newest
            return
        self.confirmed = tail.last
        self._last = None if self._look_first else tail.last  # more came while it was read
        self._tail_is_fresh = True
        self._stored = stored = tail.stored()
        if self.stream.identity is Identity.STATES:
            self._newest.learn(stored.newest, stored.keys)
        kept = deque(item for item in self.pending if not self._is_stored(item))
        self.written_gaps += [
            item for item in self.pending if item.values[0] == "gap" and self._is_stored(item)
        ]
        self.counters.duplicates += len(self.pending) - len(kept)
        self.pending = kept
        self.pending_bytes = sum(item.size for item in kept)

    def fail(self, reason: str) -> None:
        """This stream fails alone; the others go on."""
        self._in_flight = 0
        self._last = None
        self.parked = reason

    def look(self, last: str, newest: Edge | None = None) -> None:
        """The stream's last ID and entry were read while nothing waited: is all still there?"""
        if not self.pending and EntryId.parse(last) < EntryId.parse(self.confirmed):
            self.lost_at, self._kept = last, newest

    def accept_loss(self) -> None:
        """Nobody can refill what Redis lost: go on, and mark it."""
        until_us = EntryId.parse(self.confirmed).ms * 1000 + 999
        if self.pending:
            until_us = max(until_us, self.pending[0].ms * 1000)
        self._begin_again()
        self._put_first_gap(until_us)

    def rewind(self, offset: int, oldest_us: int) -> None:
        """What waits will be heard again, from the journal's `offset` on: forget it here.

        After a loss, what is older than the journal's oldest record (`oldest_us`) is marked.
        """
        self.resume_from = offset
        self.pending.clear()
        self.pending_bytes = 0
        self._newest = Newest()
        self._fetched.clear()
        self._recent.clear()
        self._samples = Samples()
        self._last = None
        if self.lost_at is not None:
            kept = self._kept
            kept_us = kept.heard_us if kept else EntryId.parse(self.lost_at).ms * 1000
            self._is_refilled, self.there_until_us = True, kept.heard_us if kept else 0
            self._begin_again()
            if kept_us < oldest_us:
                self._put_first_gap(oldest_us)
            self._floor_us = min(kept.heard_us, kept.moment_us) - FLOOR_US if kept else 0

    def hear_again(self) -> None:
        """What follows was heard before: a tail that is read counts for all of it."""
        self.rehearing = True

    def caught_up(self) -> None:
        """What follows is new here, though perhaps not in the stream."""
        self.rehearing = self._is_refilled = False
        self._floor_us = self.there_until_us = 0

    def redeem(self) -> None:
        """Try a parked stream again."""
        self.parked = ""

    def drop_oldest(self, share: int) -> int:
        """Give up the oldest `1/share` of what waits and mark it. Returns bytes freed: 0 where
        nothing can go.
        """
        waiting = list(self.pending)
        keep, rest = waiting[: self._in_flight], waiting[self._in_flight :]
        given_up = give_up(self.stream.symbol, rest, share)
        if given_up is None:
            return 0
        self.pending = deque([*keep, given_up.gap, *rest[given_up.items :]])
        self.pending_bytes -= given_up.freed
        self.counters.overflowed += given_up.messages
        return given_up.freed

    def _count(self, item: Item) -> None:
        if item.values[0] == "gap":
            self.counters.gaps += 1
            self.written_gaps.append(item)
        elif item.values[0].endswith("_snapshot"):
            self.counters.snapshots += 1
        else:
            self.counters.published += 1

    def _can_send(self) -> bool:
        is_ours = bool(self.pending) and not self.parked and self.lost_at is None
        return is_ours and self.company.knows

    @property
    def _turn_us(self) -> int:
        return self.company.turn_us(self.stream.name)

    def _sendable(self, now_us: int, limit: int) -> Iterator[Item]:
        """From the head: what is ours to send, up to what must be thought about at the head."""
        turn_us = self._turn_us
        for number, item in enumerate(islice(self.pending, limit)):
            must_be_head = self._may_be_covered(item) or (turn_us and is_account_snapshot(item))
            is_early = turn_us and item.heard_us + turn_us > now_us
            if is_early or (number and must_be_head):
                return
            yield item

    def _may_be_covered(self, item: Item) -> bool:
        """Does it say that nobody listened, where another bridge may have?"""
        company = self.company
        return item.deaf_us is not None and (
            bool(company.live) or company.marks.get(self.stream.name, 0) > item.deaf_us[0]
        )

    def _has_gaps(self) -> bool:
        return any(item.values[0] == "gap" for item in self.pending)

    def _is_deaf_head(self) -> bool:
        return bool(self.pending and self.pending[0].deaf_us)

    def _waits_at_the_head(self, now_us: int) -> bool:
        """Settle what stands first and need not be written, since another bridge was listening."""
        while self.pending and (deaf_us := self.pending[0].deaf_us):
            match self.company.judge_deafness(self.stream.name, deaf_us[1], now_us):
                case DeafMark.WAIT:
                    return True
                case DeafMark.TRUE:
                    self._shorten_head(*deaf_us)
                    return False
                case DeafMark.COVERED:
                    self._drop(self.pending[0])
                    for snapshot in [item for item in self.pending if is_account_snapshot(item)]:
                        self._drop(snapshot)  # what came after it is there, and it would step back
        while self._turn_us and self.pending and is_account_snapshot(self.pending[0]):
            self._drop(self.pending[0])
        return not self.pending

    def _shorten_head(self, from_us: int, to_us: int) -> None:
        """Somebody listened for a part of the interval."""
        known_us = self.company.marks.get(self.stream.name, 0)
        if known_us <= from_us:
            return
        gap = self.pending.popleft()
        self.pending_bytes -= gap.size
        self.put_gap(
            from_us=known_us, to_us=to_us, cause=gap.cause, heard_us=gap.heard_us, offset=gap.offset
        )

    def _drop(self, item: Item) -> None:
        self.pending.remove(item)
        self.pending_bytes -= item.size
        self.counters.duplicates += 1

    def _begin_again(self) -> None:
        self.confirmed, self.lost_at = self.lost_at or EMPTY, None
        self._last = None
        self._stored = NOTHING_STORED

    def _put_first_gap(self, until_us: int) -> None:
        """Redis lost what it had acknowledged: from its last ID (or from the start) until then."""
        last_us, kept = EntryId.parse(self.confirmed).ms * 1000, self._kept
        from_us = min(last_us, kept.moment_us, kept.heard_us) if kept else last_us
        gap = unnumbered_gap(
            symbol=self.stream.symbol,
            from_us=from_us or None,
            to_us=until_us,
            cause=LOST,
            received_us=until_us,
        )
        gap.offset = self.pending[0].offset if self.pending else self.resume_from
        self.pending.appendleft(gap)
        self.pending_bytes += gap.size

    def _was_kept(self, item: Item) -> bool:
        """While refilling: was it heard long before the last entry that Redis kept?

        IDs do not tell: they are raised to the stream's own time, and the exchange's may step back.
        Nor does one clock alone: another bridge's may go wrong. The first that was not heard before
        ends it; from there on the tail tells.
        """
        if max(item.heard_us, item.moment_us) < self._floor_us:
            return True
        self._floor_us = 0
        return False

    def _was_seen(self, item: Item) -> bool:
        """Was it in the tail that was read last? Another bridge may have written it long before we
        came to hear it. Of states the order tells, once they are heard for the first time.
        """
        if self.stream.identity is Identity.STATES and not self.rehearing:
            return False
        return self._is_stored(item)

    def _is_state(self, item: Item) -> bool:
        """Does its place among the others say whether it is wanted?"""
        return self.stream.identity is Identity.STATES and item.order != 0

    def _is_stored(self, item: Item) -> bool:
        """Is it in the tail already, or a state that what is there has overtaken?"""
        if self._is_state(item):
            return self._stored.overtakes(item)
        return self._stored.has(item)
