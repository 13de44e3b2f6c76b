"""The queue of a sequenced stream (trade, depth): what an answer of Redis means (pure).

Redis decides what is already there. A message whose predecessor is missing is refused; the queue
then waits, for a bounded time counted from when that message came, and after it writes a gap that
names the missing numbers and goes on. It never passes a refused entry, and sending again is always
harmless.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from bridge.contract.causes import GapCause
from bridge.contract.identity import EMPTY, EntryId
from bridge.contract.streams import Stream
from bridge.core.dedup import DedupWindow
from bridge.core.entries import (
    APPEND,
    Answer,
    Entry,
    Op,
    Slot,
    Wait,
    is_start,
    sequenced_gap,
    slot_of,
)
from bridge.core.numbering import FAR, Numbering, begins_anew, has_ended
from bridge.core.old_numbers import count_old, may_be_old, where_stored
from bridge.core.peers import BEHIND_US, Peers
from bridge.core.queue import (
    IN_FLIGHT,
    OLDEST_SCANNED,
    OPEN,
    Batch,
    QueueState,
    Resume,
    StoredEntry,
    StreamQueue,
    is_before,
)
from bridge.core.unlogged import Read, UnloggedGaps

RENUMBER_AFTER_US = 5_000_000
RENUMBER_MIN_MESSAGES = 3
MAX_SUSPECTS = 50_000
START_GRACE_US = 1_000_000  # for another bridge that received the stream's beginning earlier
PROBE_EVERY_US = 100_000  # whether another bridge has brought what a waiting queue needs
MOST_PASSED = 10_000  # entries that one that came late may be put before


@dataclass(frozen=True, slots=True)
class _GapWait:
    """What the head needs is missing; it is waited for until then. None: not by time alone, what
    recovers it may follow in the journal.
    """

    until_us: int | None


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The stream, or a numbering, begins with the next message: that is to be said first."""

    cause: GapCause

    @property
    def is_stream(self) -> bool:
        """Does the stream itself begin, so that another bridge may have older messages?"""
        return self.cause in (GapCause.START, GapCause.REDIS_LOST)


class Sequenced(StreamQueue):
    """`hold_us`: how long a message waits for its predecessor."""

    def __init__(self, stream: Stream, peers: Peers, resume: Resume, hold_us: int) -> None:
        super().__init__(stream, peers, resume)
        self._hold_us = hold_us
        self._newest_number = self._newest_ms = 0  # of what was put in last, while something waits
        self._gap_wait: _GapWait | None = None  # WAITING
        self._beginning: _Beginning | None = None  # WAITING
        self._waited_since_us: int | None = None  # for peers; a backlog with many gaps waits once
        self._probe_at_us = 0  # WAITING: when to ask whether another bridge has brought it
        self._is_draining = False
        self._was_delayed = False  # another bridge published this stream, where bridges take turns
        self._cause: GapCause | None = None  # why something may be missing before the next message
        self._suspects: list[Slot] = []  # not newer by number, newer by time
        self._behind_flight: list[Slot] = []  # put there, though they come before some of it
        self._suspected_at = 0  # the stream's position when the first of them was refused
        self._settled_number = 0  # of the last message that Redis took or had
        self._window = DedupWindow()
        self._is_book_void = False  # a gap was written, and no snapshot since
        self._unplaced: Slot | None = None
        self._tries = 0
        self._unlogged = UnloggedGaps()
        self._probed_slot: Slot | None = None  # the stream was asked whether it has gone past this
        self._is_looking = False  # it is asked just now

    # ---- what comes in -------------------------------------------------------------------------

    def has_received(self, entry: Entry) -> bool:
        # numbers that begin anew have another time
        return self._window.is_duplicate(
            (entry.number, entry.after, entry.ms), entry.connection, entry.received_us
        )

    def forget_received(self) -> None:
        self._window.clear()

    def set_gap_cause(self, cause: GapCause) -> None:
        self._cause = cause

    def put_outage(
        self,
        *,
        from_us: int,
        to_us: int,
        cause: GapCause,
        received_us: int,
        position: int,
        at_us: int,
    ) -> None:
        """Numbers tell what is missing: only the cause is noted, by `set_gap_cause`."""

    def put(self, slot: Slot) -> None:
        """Add what was received; out of order only where two connections receive the stream."""
        entry = slot.entry
        self.counters.received += 1
        if slot.position < self.replay_until:
            self._unlogged.replayed(slot.position)
        if self._cause is not None:
            slot.cause, self._cause = self._cause, None
        if entry.number >= self._newest_number or not self.slots:
            self._newest_number, self._newest_ms = entry.number, entry.ms
            self.bytes += slot.size
            self.slots.append(slot)
        else:
            self._put_late(slot)

    def _put_late(self, slot: Slot) -> None:
        """One whose number is not above the newest came late, or its numbering is another."""
        entry, index = slot.entry, self._place_of(slot)
        newest = Numbering(self._newest_number, self._newest_ms)
        if begins_anew(entry.number, entry.ms, newest) and not self._is_missed_at(index, entry):
            # It must not be put before what is older by the old numbers: Redis would take those as
            # already there. Its answer will say that the stream is renumbered.
            slot.begins_numbering = True
            self._newest_number, self._newest_ms = entry.number, entry.ms
            self._add(slot)
            return
        if index < len(self.slots) and self.slots[index].begins_numbering:
            # it is the first of them now
            slot.begins_numbering, self.slots[index].begins_numbering = True, False
        self._insert(index, (slot,))
        if index == self.in_flight:
            self.release()  # perhaps it is what the queue waits for
        if self.in_flight and _order(slot) < _order(self.slots[self.in_flight - 1]):
            self._behind_flight.append(slot)

    def _place_of(self, slot: Slot) -> int:
        """Where it belongs: behind all that it does not come before, in its numbering."""
        index = len(self.slots)
        lowest = max(self.in_flight, index - MOST_PASSED)  # bounded work, whatever numbers come
        order = _order(slot)
        while index > lowest and order < _order(self.slots[index - 1]):
            index -= 1
            if self.slots[index].begins_numbering:
                break  # what is before it has other numbers
        return index

    def _is_missed_at(self, index: int, entry: Entry) -> bool:
        """Is its number missing between what is before and behind that place? Far below the newest
        one it is none that came late.
        """
        if self._newest_number - entry.number > FAR:
            return False
        behind = (slot for slot in islice(self.slots, index, None) if slot.entry.op is Op.APPEND)
        following = next(behind, None)
        if index > 0:
            before = self.slots[index - 1].entry.number
        else:
            before = EntryId.parse(self.confirmed).position
        return following is not None and before < entry.number <= following.after and before > 0

    def _put_before_unsettled(self) -> None:
        """What came late while what it comes before was in flight goes before what was refused, or
        got no reply: else that would wait for what is directly behind it.
        """
        late, self._behind_flight = self._behind_flight, []
        if not late:
            return
        waiting = set(map(id, late)).intersection(map(id, self.slots))
        self._replace([slot for slot in self.slots if id(slot) not in waiting])
        for slot in late:
            if id(slot) in waiting:
                self._put_late(slot)

    def put_recovered(self, slots: Sequence[Slot], before: Slot | None = None) -> None:
        """Directly before the slot that waits for them, in order of numbers.

        They are to be received again as long as that one is: `oldest_position` does not look far
        behind it.
        """
        oldest = self.oldest_position()
        for slot in slots:
            slot.move_to(slot.position if oldest is None else min(slot.position, oldest))
        index = self._index_of(before)
        if index is None:
            index = self.in_flight  # it is settled: Redis tells each whether it is there already
        self._insert(index, slots)
        self.release()

    def _index_of(self, wanted: Slot | None) -> int | None:
        if wanted is None:
            return None
        return next((index for index, slot in enumerate(self.slots) if slot is wanted), None)

    def release(self) -> None:
        """Something has changed for what waits: ask Redis again."""
        self._gap_wait = None
        if self.state is QueueState.WAITING and self._beginning is None:
            self.state = QueueState.OPEN

    def unexplained_head(self) -> Slot | None:
        """What Redis has refused though no number told of a gap before it."""
        if self._gap_wait is None or not self.slots or self.slots[0].wait is not Wait.AS_QUEUE:
            return None
        return self.slots[0]

    # ---- what goes out -------------------------------------------------------------------------

    def take(self, now_us: int, limit: int) -> Batch | None:
        if not self.slots:
            return None
        if self.state is not OPEN:
            is_waiting = self.state is QueueState.WAITING
            if not (is_waiting and self._goes_on(now_us)):
                return None
        # one that waits asks with its head alone
        count = limit if self._gap_wait is None and self._beginning is None else 1
        slots = list(islice(self.slots, count))
        if self.stream.window:
            slots = self._by_publish_delay(slots, now_us)
            if not slots:
                return None
        self.in_flight, self.state = len(slots), IN_FLIGHT
        return Batch(self, slots)

    def due_us(self) -> int | None:
        if not self.slots or not self._peers.may_publish(self.name):
            return None
        if self.state is QueueState.WAITING:
            if self._peers.live:
                return self._probe_at_us
            return self._gap_wait.until_us if self._gap_wait else None
        delay_us = self._delay_us
        return self.slots[0].at_us + delay_us if delay_us and not self.in_flight else None

    def _goes_on(self, now_us: int) -> bool:
        """WAITING: is it time to go on without what is missing, or to ask for it again?"""
        if self._may_mark(now_us):
            if self._gap_wait is not None:
                self._write_gap()
            elif self._beginning is not None:
                self._write_beginning()
            return True
        if self._peers.live:
            return now_us >= self._probe_at_us
        until_us = self._gap_wait.until_us if self._gap_wait else None
        if until_us is not None and now_us >= until_us:
            # No peer is known to be alive: one more poll of their statuses decides.
            self._gap_wait = _GapWait(now_us + PROBE_EVERY_US)
        return False

    def _may_mark(self, now_us: int) -> bool:
        """Have all bridges had time to bring what is missing?"""
        peers, wait, beginning = self._peers, self._gap_wait, self._beginning
        if wait is not None and (wait.until_us is None or now_us < wait.until_us):
            return False
        if wait is None and not (beginning and beginning.is_stream):
            return True  # renumbered, or foreign: no other bridge can help
        if self._waited_since_us is None:
            self._waited_since_us = now_us
        is_early = now_us - self._waited_since_us < START_GRACE_US
        if peers.live and wait is None and is_early:
            return False
        waiting = next((slot for slot in self.slots if slot.entry.op is Op.APPEND), self.slots[0])
        return peers.may_mark_gap(
            self.name,
            waiting.after,
            waiting.entry.ms * 1000 or waiting.entry.received_us,
            waited_since_us=self._waited_since_us,
            now_us=now_us,
        )

    @property
    def _delay_us(self) -> int:
        """Windows of depth are cut differently for each bridge: they are published in turn."""
        return self._peers.publish_delay_us(self.name) if self.stream.window else 0

    def _by_publish_delay(self, slots: list[Slot], now_us: int) -> list[Slot]:
        delay_us = self._delay_us
        if self._was_delayed and not delay_us:
            self._is_book_void = True  # its snapshots came too late to have a place
        self._was_delayed = delay_us > 0
        if not self._peers.may_publish(self.name):
            return []
        if not delay_us:
            return slots
        return list(takewhile(lambda slot: slot.at_us + delay_us <= now_us, slots))

    # ---- what Redis says -----------------------------------------------------------------------

    def no_reply(self) -> None:
        """Everything is sent again, and the script tells what is there."""
        for slot in islice(self.slots, self.in_flight):
            slot.in_doubt = True
        self.in_flight = 0
        if self.state is QueueState.IN_FLIGHT:
            self.state = self._at_rest()
        self._put_before_unsettled()

    def fail(self, reason: str) -> None:
        super().fail(reason)
        self._put_before_unsettled()

    def settle(self, answer: Answer, now_us: int) -> None:
        self._settle(answer, now_us)
        self._put_before_unsettled()

    def _settle(self, answer: Answer, now_us: int) -> None:
        self.in_flight = 0
        end: int | None = None  # the position that the stream has now, where it is asked for
        replayed_until = self._unlogged.replayed_until
        for sign, slot in zip(answer.signs, self._drop_head(len(answer.signs)), strict=True):
            if sign == "+" and slot.entry.op is APPEND and slot.position > replayed_until:
                self.counters.published += 1  # nearly always
                self._settled_number = slot.entry.number
                if self._suspects:
                    self._suspects.clear()
            else:
                end = EntryId.parse(answer.last).position if end is None else end
                self._settle_one(sign, slot, end)
        is_head = not self._suspects or not self._put_suspects_back(
            EntryId.parse(answer.last).position, now_us
        )
        beginning = self._beginning
        if beginning is not None and beginning.is_stream and answer.status != "empty":
            self._beginning = None  # another bridge has begun it
        unplaced, self._unplaced = self._unplaced, None
        if unplaced is not None:
            self._try_again(unplaced, answer)
        if answer.status == "ok":
            self.confirmed = answer.last
            self._gap_wait = None
            self.state = self._at_rest()
            if not self.slots:
                self._waited_since_us = None
            return
        self._probe_at_us = now_us + PROBE_EVERY_US
        self._refused(answer, is_head=is_head)

    def _at_rest(self) -> QueueState:
        is_waiting = self._gap_wait is not None or self._beginning is not None
        return QueueState.WAITING if is_waiting else OPEN

    def _refused(self, answer: Answer, *, is_head: bool) -> None:
        """The order matters: a stream that is shorter than it was is lost, whatever else.
        `is_head`: it was the head that Redis refused; nothing was put before it since.
        """
        last = answer.last
        if answer.status == "foreign":
            self._foreign(last)
        elif is_before(last, self.confirmed):
            self._lose(last, None)
        elif answer.status == "empty":
            self._begin(GapCause.START)
        elif answer.status == "mixed":
            self._begin(GapCause.FOREIGN)
            self.confirmed = last
        elif not is_head or self._drop_ended(EntryId.parse(last)):
            self.confirmed, self.state = last, self._at_rest()
        elif self._may_be_old(EntryId.parse(last)):
            self._probed_slot, self._is_looking = self.slots[0], True
            self.confirmed, self._gap_wait = last, _GapWait(None)
            self.state = QueueState.WAITING
        else:
            self._wait(last)

    def _begin(self, cause: GapCause) -> None:
        self._gap_wait, self._beginning = None, _Beginning(cause)
        self.state = QueueState.WAITING

    def _has_ended(self, slot: Slot, end: EntryId) -> bool:
        """Is it of a numbering that was over before the stream's newest entry, by which it is not
        missing but old? Redis went on lower, and later, than it was already: another bridge has
        begun the new numbering, or this one had, before what it receives again now.
        """
        number, entry = end.position, slot.entry
        if entry.op is not Op.APPEND or entry.number <= number:
            return False
        if number < self._settled_number < entry.number:
            return True
        newest = Numbering(number, end.ms)
        return self._unlogged.follows(slot) and has_ended(entry.number, entry.ms, newest)

    def _drop_ended(self, end: EntryId) -> bool:
        """Drop what is of such a numbering, from the head on; was there any?"""
        waiting = len(self.slots)
        while self.slots and self._has_ended(self.slots[0], end):
            self._drop_first()
        self.counters.duplicates += waiting - len(self.slots)
        return len(self.slots) < waiting

    def _may_be_old(self, end: EntryId) -> bool:
        """Is the stream to be asked whether it has gone past the head already?"""
        head = self.slots[0]
        is_new = head is not self._probed_slot
        return is_new and self._unlogged.follows(head) and may_be_old(head, end)

    def _drop_old(self, page: Sequence[StoredEntry]) -> None:
        """This is what the stream has where the head would be: drop what it has gone past."""
        self._is_looking = False
        if not self.slots or self.slots[0] is not self._probed_slot:
            self.release()
            return
        looked_at = list(islice(self.slots, OLDEST_SCANNED))
        count = count_old(looked_at, EntryId.parse(self.confirmed), page)
        for _ in range(count):
            self._settled_number = self._drop_first().entry.number
        self.counters.duplicates += count
        if count:
            self.release()
        else:
            self._wait(self.confirmed)

    def _wait(self, last: str) -> None:
        """The head's predecessor is missing."""
        self.confirmed = last
        head = self.slots[0]
        until_us: int | None
        if self._is_draining or head.wait is Wait.NO_LONGER:
            until_us = 0
        elif head.wait is Wait.AS_QUEUE:
            until_us = self._peers.hold_from_us(self.name, head.at_us) + self._hold_us
        elif head.wait is Wait.WHILE_REPLAYING:
            until_us = None
        else:
            until_us = head.wait
        self._gap_wait = _GapWait(until_us)
        self.state = QueueState.WAITING

    def _settle_one(self, sign: str, slot: Slot, end: int) -> None:
        match slot.entry.op:
            case Op.APPEND:
                self._settle_message(sign, slot, end)
            case Op.GAP:
                self._settle_gap(sign, slot)
            case _ if sign == "+":
                self.counters.snapshots += 1
                self._is_book_void = False
            case _ if sign == "=":
                self.counters.duplicates += 1  # another bridge's is there
            case _ if not self._was_delayed:
                self._unplaced = slot

    def _settle_gap(self, sign: str, slot: Slot) -> None:
        # With no other bridge, a gap that was sent without a reply and has no place is there.
        is_ours = sign == "+" or (slot.in_doubt and not self._peers.live)
        if is_ours and not is_start(slot.entry):
            self.count_gap(slot.entry.fields()["cause"])
            self._is_book_void = True
            self._gaps_written.append(slot)
        if sign == "+":
            self._unlogged.settled(slot, slot.entry.ms)

    def _settle_message(self, sign: str, slot: Slot, end: int) -> None:
        """`end`: the position that the stream has now."""
        self._unlogged.settled(slot, slot.entry.ms or EntryId.parse(self.confirmed).ms)
        if sign == "+":
            self.counters.published += 1
            self._suspects.clear()
        else:
            self.counters.duplicates += 1
        if sign == "!" or (sign == "=" and self._is_below(slot, end)):
            if not self._suspects:
                self._suspected_at = end
            if len(self._suspects) < MAX_SUSPECTS:
                self._suspects.append(slot)
        else:
            self._settled_number = slot.entry.number

    def _is_below(self, slot: Slot, end: int) -> bool:
        """Of a new numbering, as its queue found, though Redis says that its time is not newer?
        The stream's time is raised where the exchange's steps back.
        """
        is_new = slot.begins_numbering or bool(self._suspects)
        return is_new and end - slot.entry.number > FAR and not self._is_replayed(slot)

    def _put_suspects_back(self, end: int, now_us: int) -> bool:
        """Not newer by number, newer by time: a true duplicate never is. Numbers may begin anew.

        Kept until a message is appended again (a false alarm), or until it has gone on long enough:
        then the stream goes on with the new numbering, from the first of them. Where another bridge
        has begun it, Redis tells which of them are there.
        """
        has_begun = end < self._suspected_at
        lasted = now_us - self._suspects[0].at_us >= RENUMBER_AFTER_US
        if not has_begun and not (lasted and len(self._suspects) >= RENUMBER_MIN_MESSAGES):
            return False
        if not has_begun:
            self._beginning = _Beginning(GapCause.RENUMBERED)
        suspects, self._suspects = self._suspects, []
        for suspect in reversed(suspects):
            suspect.begins_numbering = False  # from here on it is the stream's own numbering
            self._add_first(suspect)
        return True

    def _try_again(self, snapshot: Slot, answer: Answer) -> None:
        """A snapshot found no place: the stream is elsewhere."""
        last = EntryId.parse(answer.last)
        if snapshot.rests and last.position < snapshot.entry.number:
            # nothing moves and it is not reached: what leads up to it was missed
            is_beginning = answer.last == EMPTY
            snapshot.rests = False
            self._add_first(snapshot)
            self._mark_before(
                snapshot,
                from_=None if is_beginning else last.position + 1,
                cause=GapCause.START if is_beginning else snapshot.cause or GapCause.SKIPPED,
                last=answer.last,
            )
            return
        self.counters.misplaced_snapshots += 1
        self._tries = snapshot.tries

    @property
    def has_news(self) -> bool:
        is_waiting = self._gap_wait is not None
        return bool(self._gaps_written) or is_waiting or self._is_book_void or self._tries > 0

    def snapshot_tries(self) -> int:
        tries, self._tries = self._tries, 0
        return tries

    def snapshot_due(self) -> bool:
        if not self._is_book_void or any(slot.entry.op is Op.SNAPSHOT for slot in self.slots):
            return False
        self._is_book_void = False
        return True

    # ---- gaps ----------------------------------------------------------------------------------

    def _write_gap(self) -> None:
        """The predecessor did not come in time: say what is missing and go on."""
        self._gap_wait = None
        head = self.slots[0]
        missing_from = EntryId.parse(self.confirmed).position + 1
        if head.entry.op is Op.APPEND and head.after >= missing_from:
            cause = head.cause or GapCause.SKIPPED
            self._mark_before(head, from_=missing_from, cause=cause, last=self.confirmed)

    def _write_beginning(self) -> None:
        first = next((slot for slot in self.slots if slot.entry.op is Op.APPEND), None)
        if first is not None and self._beginning is not None:
            cause, self._beginning = self._beginning.cause, None
            self._mark_before(first, from_=None, cause=cause, last=self.confirmed)

    def _mark_before(self, slot: Slot, *, from_: int | None, cause: GapCause, last: str) -> None:
        """Put a gap (or a start) first, which ends where `slot` needs its predecessor."""
        gap = sequenced_gap(slot, symbol=self.stream.symbol, last=last, from_=from_, cause=cause)
        self._add_first(slot_of(gap, slot.position, slot.at_us))

    @property
    def may_read(self) -> bool:
        return self._is_looking or self._unlogged.has_places

    def pages_wanted(self) -> Sequence[Read]:
        """Where the head would be that may be old; or a gap that an earlier process wrote, and was
        killed before logging it.
        """
        if self.is_suspended:
            return ()
        if self._is_looking and self._probed_slot is not None:
            return [where_stored(self._probed_slot)]
        return self._unlogged.wanted()

    def read_pages(self, pages: Sequence[Sequence[StoredEntry]]) -> None:
        if self._is_looking:
            self._drop_old(pages[0])
            return
        self._gaps_written += self._unlogged.found(pages)

    # ---- losses --------------------------------------------------------------------------------

    def accept_loss(self) -> None:
        self.confirmed, self.state = self.lost_last, QueueState.OPEN
        self._settled_number = 0
        if self.confirmed == EMPTY:
            self._begin(GapCause.REDIS_LOST)
        elif self.slots:
            self.slots[0].cause = GapCause.REDIS_LOST
            self._wait(self.confirmed)
        else:
            self._cause = GapCause.REDIS_LOST

    def rewind(self, position: int, replay_until: int, oldest_us: int) -> None:
        """Numbers tell what cannot be had again: `oldest_us` is of no use here."""
        self._clear()
        self._gap_wait = self._beginning = None
        if self.is_lost:
            self.accept_loss()
        self.state = self._at_rest()
        self.reason = ""
        self.position, self.replay_until = position, replay_until
        self._suspects, self._settled_number = [], 0
        self._window.clear()
        self._unlogged.forget()
        self._is_looking = False

    def discard(self) -> None:
        super().discard()
        self._suspects = []
        self._gap_wait = None
        self._is_looking = False

    def drain(self) -> None:
        """Wait for no predecessor any more: say what is missing now."""
        self._is_draining = True
        if self._gap_wait is not None:
            self._gap_wait = _GapWait(0)

    def replayed(self) -> None:
        self.replay_until = 0

    def drop_oldest(self, share: int) -> int:
        """What is in flight stays: an answer about it is on its way. So does a gap at the head that
        was sent and not answered: it may be there, and has to be logged. At least one message goes:
        only then the numbers tell of it, and a book whose snapshot goes too begins anew.
        """
        waiting, kept = list(self.slots), self.in_flight
        while kept < len(waiting) and waiting[kept].entry.op is Op.GAP:
            kept += 1
        rest = waiting[kept:]
        first = next((at for at, slot in enumerate(rest) if slot.entry.op is Op.APPEND), None)
        if first is None:
            return 0
        count = max(first + 1, len(rest) // share)
        dropped, left = rest[:count], rest[count:]
        self._replace([*waiting[:kept], *left])
        self.counters.overflowed += sum(slot.entry.op is Op.APPEND for slot in dropped)
        following = next((slot for slot in left if slot.entry.op is Op.APPEND), None)
        if following is not None:
            following.cause = GapCause.OVERFLOW
        else:
            self._cause = GapCause.OVERFLOW
        return sum(slot.size for slot in dropped)

    # ---- progress ------------------------------------------------------------------------------

    def oldest_position(self) -> int | None:
        positions = [slot.position for slot in islice(self.slots, OLDEST_SCANNED)]
        positions += [slot.position for slot in self._suspects[:1]]
        if (unlogged := self._unlogged.oldest_position()) is not None:
            positions.append(unlogged)
        return min(positions, default=None)

    def waits_after(self) -> int | None:
        is_waiting = self._gap_wait is not None or self._beginning is not None
        return self.slots[0].after if is_waiting and self.slots else None

    def oldest_waiting_us(self) -> int | None:
        is_told = not (self.stream.window or self.is_suspended)
        if not (is_told and self.slots) or self.waits_after() is not None:
            return None
        return self.slots[0].entry.ms * 1000 or BEHIND_US


def _order(slot: Slot) -> tuple[int, str]:
    # at one number: the message (A), then a gap (G), then the snapshot (S)
    return slot.entry.number, slot.entry.op
