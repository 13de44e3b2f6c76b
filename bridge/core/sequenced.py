"""The queue of a sequenced stream (trade, depth): what a reply of Redis means (pure).

Redis decides which entries it has already. It refuses a message whose predecessor is missing; the
queue then waits for a bounded time, counted from the receipt of that message, then writes a gap
that names the missing numbers, and continues. It never skips a refused entry, and sending an entry
again is always harmless.
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
PROBE_EVERY_US = 100_000  # how often a waiting queue checks if another bridge wrote what it needs
MOST_PASSED = 10_000  # entries in the queue that a late message may be put before


@dataclass(frozen=True, slots=True)
class _GapWait:
    """The head's predecessor is missing, and is waited for until `until_us`. None: no time limit,
    the journal may still bring it.
    """

    until_us: int | None


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The stream, or a numbering, begins with the next message: a start or gap is due before it."""

    cause: GapCause

    @property
    def is_stream(self) -> bool:
        """Whether the stream itself begins, so that another bridge may have older messages."""
        return self.cause in (GapCause.START, GapCause.REDIS_LOST)


class Sequenced(StreamQueue):
    """The queue; `hold_us`: how long a message waits for its predecessor."""

    def __init__(self, stream: Stream, peers: Peers, resume: Resume, hold_us: int) -> None:
        super().__init__(stream, peers, resume)
        self._hold_us = hold_us
        self._newest_number = self._newest_ms = 0  # of the newest entry in the queue
        self._gap_wait: _GapWait | None = None  # WAITING
        self._beginning: _Beginning | None = None  # WAITING
        self._waited_since_us: int | None = None  # for peers; a backlog with many gaps waits once
        self._probe_at_us = 0  # WAITING: when to send the head again, as a probe
        self._is_draining = False
        self._was_delayed = False  # another bridge published this stream, where bridges take turns
        self._cause: GapCause | None = None  # why something may be missing before the next message
        self._suspects: list[Slot] = []  # messages that are not newer by number, but newer by time
        self._behind_flight: list[Slot] = []  # late ones that belong before entries in flight
        self._suspected_at = 0  # the stream's position when the first of them was refused
        self._settled_number = 0  # of the last message that Redis appended or had
        self._window = DedupWindow()
        self._is_book_void = False  # a gap was written, and no snapshot since
        self._unplaced: Slot | None = None
        self._tries = 0
        self._unlogged = UnloggedGaps()
        self._probed_slot: Slot | None = None  # the stream was read for this refused head
        self._is_probing = False  # that read is under way

    # ---- input ---------------------------------------------------------------------------------

    def has_received(self, entry: Entry) -> bool:
        # the time is in the key: after a renumbering the same numbers come with another time
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
        """Ignored: numbers show what is missing, and `set_gap_cause` sets the cause."""

    def put(self, slot: Slot) -> None:
        """Add an entry; out of order only where two connections receive the stream."""
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
        """Add an entry whose number is not above the newest: late, or of another numbering."""
        entry, index = slot.entry, self._place_of(slot)
        newest = Numbering(self._newest_number, self._newest_ms)
        if begins_anew(entry.number, entry.ms, newest) and not self._is_missed_at(index, entry):
            # It must not be put before entries with higher numbers of the old numbering: Redis
            # would treat it as a duplicate. The reply will show that the stream is renumbered.
            slot.begins_numbering = True
            self._newest_number, self._newest_ms = entry.number, entry.ms
            self._add(slot)
            return
        if index < len(self.slots) and self.slots[index].begins_numbering:
            # it is the first of its numbering now
            slot.begins_numbering, self.slots[index].begins_numbering = True, False
        self._insert(index, (slot,))
        if index == self.in_flight:
            self.release()  # it may be what the queue waits for
        if self.in_flight and _order(slot) < _order(self.slots[self.in_flight - 1]):
            self._behind_flight.append(slot)

    def _place_of(self, slot: Slot) -> int:
        """The index where the slot belongs, by its order within its numbering."""
        index = len(self.slots)
        lowest = max(self.in_flight, index - MOST_PASSED)  # bounded work, whatever numbers come
        order = _order(slot)
        while index > lowest and order < _order(self.slots[index - 1]):
            index -= 1
            if self.slots[index].begins_numbering:
                break  # entries before it are of another numbering
        return index

    def _is_missed_at(self, index: int, entry: Entry) -> bool:
        """Whether its number is missing between the neighbours of that index. An entry far below
        the newest number is not a late one.
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
        """Put late entries before the unsettled ones that were in flight: else the head would wait
        for an entry directly behind it.
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
        """Insert directly before the slot that waits for them, in order of numbers.

        They get its journal position at most, since `oldest_position` scans only the first slots.
        """
        oldest = self.oldest_position()
        for slot in slots:
            slot.move_to(slot.position if oldest is None else min(slot.position, oldest))
        index = self._index_of(before)
        if index is None:
            index = self.in_flight  # `before` is settled: Redis answers for each if it has it
        self._insert(index, slots)
        self.release()

    def _index_of(self, sought: Slot | None) -> int | None:
        if sought is None:
            return None
        return next((index for index, slot in enumerate(self.slots) if slot is sought), None)

    def release(self) -> None:
        """End a wait for a predecessor: try the head again."""
        self._gap_wait = None
        if self.state is QueueState.WAITING and self._beginning is None:
            self.state = QueueState.OPEN

    def unexplained_head(self) -> Slot | None:
        """The head that Redis refused although no number showed a gap before it, or None."""
        if self._gap_wait is None or not self.slots or self.slots[0].wait is not Wait.AS_QUEUE:
            return None
        return self.slots[0]

    # ---- output --------------------------------------------------------------------------------

    def take(self, now_us: int, limit: int) -> Batch | None:
        if not self.slots:
            return None
        if self.state is not OPEN:
            is_waiting = self.state is QueueState.WAITING
            if not (is_waiting and self._may_take(now_us)):
                return None
        # a waiting queue sends its head alone, as a probe
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

    def _may_take(self, now_us: int) -> bool:
        """WAITING: whether to send: the gap or start is due now (put first here), or a probe is."""
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
        """Whether all bridges have had time to bring what is missing."""
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
        """The publish delay of a stream with update windows (depth): bridges receive different
        windows, so they publish in turn.
        """
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

    # ---- replies of Redis ----------------------------------------------------------------------

    def no_reply(self) -> None:
        """Send everything again: the append script recognises duplicates."""
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
        if self._behind_flight:
            self._put_before_unsettled()

    def _settle(self, answer: Answer, now_us: int) -> None:
        self.in_flight = 0
        end: int | None = None  # the stream's position now, parsed when first needed
        replayed_until = self._unlogged.replayed_until
        for sign, slot in zip(answer.signs, self._drop_head(len(answer.signs)), strict=True):
            if sign == "+" and slot.entry.op is APPEND and slot.position > replayed_until:
                self.counters.published += 1  # the usual case
                self._settled_number = slot.entry.number
                if self._suspects:
                    self._suspects.clear()
            else:
                end = EntryId.parse(answer.last).position if end is None else end
                self._settle_one(sign, slot, end)
        if self._before_loss and answer.signs and answer.last != EMPTY:
            self._before_loss = ""
        is_head = not self._suspects or not self._put_suspects_back(
            EntryId.parse(answer.last).position, now_us
        )
        beginning = self._beginning
        if beginning is not None and beginning.is_stream and answer.last != EMPTY:
            self._beginning = None  # another bridge has begun it
        unplaced, self._unplaced = self._unplaced, None
        if answer.status == "ok" and is_before(answer.last, self.confirmed):
            self._lose(answer.last, None)  # shorter than it was, even if it took a late message
            return
        if unplaced is not None:
            self._try_again(unplaced, answer)
        if answer.status == "ok":
            self.confirmed = answer.last
            self._gap_wait = None
            # `_at_rest` without a gap wait, inline for speed: each batch comes by here
            self.state = OPEN if self._beginning is None else QueueState.WAITING
            if not self.slots:
                self._waited_since_us = None
            return
        self._probe_at_us = now_us + PROBE_EVERY_US
        self._refused(answer, is_head=is_head)

    def _at_rest(self) -> QueueState:
        is_waiting = self._gap_wait is not None or self._beginning is not None
        return QueueState.WAITING if is_waiting else OPEN

    def _refused(self, answer: Answer, *, is_head: bool) -> None:
        """Handle a refusal. The order matters: a stream that is shorter than it was is LOST, with
        any status. `is_head`: Redis refused the head; nothing was put before it since.
        """
        last = answer.last
        if answer.status == "foreign":  # the last ID is beyond 2^53: Lua is not exact there
            self._foreign(last)
        elif is_before(last, self.confirmed):
            self._lose(last, None)
        elif answer.status == "empty":  # there is no stream yet: it begins with a start, or a loss
            self._begin(self._beginning.cause if self._beginning else GapCause.START)
        elif answer.status == "mixed":  # another program's entry is the newest
            self._begin(GapCause.FOREIGN)
            self.confirmed = last
        elif not is_head or self._drop_ended(EntryId.parse(last)):
            self.confirmed, self.state = last, self._at_rest()
        elif self._may_be_old(EntryId.parse(last)):
            self._probed_slot, self._is_probing = self.slots[0], True
            self.confirmed, self._gap_wait = last, _GapWait(None)
            self.state = QueueState.WAITING
        else:
            self._wait(last)

    def _begin(self, cause: GapCause) -> None:
        self._gap_wait, self._beginning = None, _Beginning(cause)
        self.state = QueueState.WAITING

    def _has_ended(self, slot: Slot, end: EntryId) -> bool:
        """Whether the slot's numbering ended before the stream's newest entry: then the message is
        old, not missing. The stream continued with lower numbers and later times: another bridge
        began the new numbering, or this one did before its replay.
        """
        number, entry = end.position, slot.entry
        if entry.op is not Op.APPEND or entry.number <= number:
            return False
        if number < self._settled_number < entry.number:
            return True
        newest = Numbering(number, end.ms)
        return self._unlogged.follows(slot) and has_ended(entry.number, entry.ms, newest)

    def _drop_ended(self, end: EntryId) -> bool:
        """Drop slots of an ended numbering from the head on. Returns whether there were any."""
        waiting = len(self.slots)
        while self.slots and self._has_ended(self.slots[0], end):
            self._drop_first()
        self.counters.duplicates += waiting - len(self.slots)
        return len(self.slots) < waiting

    def _may_be_old(self, end: EntryId) -> bool:
        """Whether to read the stream, to see if it is past the head already."""
        head = self.slots[0]
        is_new = head is not self._probed_slot
        return is_new and self._unlogged.follows(head) and may_be_old(head, end)

    def _drop_old(self, page: Sequence[StoredEntry]) -> None:
        """Drop the slots that the stream is past already, by the page where the head would be."""
        self._is_probing = False
        if not self.slots or self.slots[0] is not self._probed_slot:
            self.release()
            return
        scanned = list(islice(self.slots, OLDEST_SCANNED))
        count = count_old(scanned, EntryId.parse(self.confirmed), page)
        for _ in range(count):
            self._settled_number = self._drop_first().entry.number
        self.counters.duplicates += count
        if count:
            self.release()
        else:
            self._wait(self.confirmed)

    def _wait(self, last: str) -> None:
        """Wait for the head's missing predecessor."""
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
                self.counters.duplicates += 1  # another bridge wrote one
            case _ if not self._was_delayed:
                self._unplaced = slot

    def _settle_gap(self, sign: str, slot: Slot) -> None:
        # With no other bridge, a gap that was sent without a reply and is refused now was written.
        is_ours = sign == "+" or (slot.in_doubt and not self._peers.live)
        if is_ours and not is_start(slot.entry):
            self.count_gap(slot.entry.fields()["cause"])
            self._is_book_void = True
            self._gaps_written.append(slot)
        if sign == "+":
            self._unlogged.settled(slot, slot.entry.ms)

    def _settle_message(self, sign: str, slot: Slot, end: int) -> None:
        """Count a settled message; `end`: the stream's position now."""
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
        """Whether the message is of a new numbering, although Redis found its time not newer: the
        time of stream IDs never steps back, while the exchange's may.
        """
        is_new = slot.begins_numbering or bool(self._suspects)
        return is_new and end - slot.entry.number > FAR and not self._is_replayed(slot)

    def _put_suspects_back(self, end: int, now_us: int) -> bool:
        """Put suspects back once a renumbering is certain: not newer by number but newer by time,
        as a true duplicate never is. Returns whether they were.

        They are kept until a message is appended again (a false alarm), or until this has lasted
        long enough: then the stream continues with the new numbering, from the first of them. Where
        another bridge has begun it, Redis recognises the duplicates.
        """
        has_begun = end < self._suspected_at
        lasted = now_us - self._suspects[0].at_us >= RENUMBER_AFTER_US
        if not has_begun and not (lasted and len(self._suspects) >= RENUMBER_MIN_MESSAGES):
            return False
        if not has_begun:
            self._beginning = _Beginning(GapCause.RENUMBERED)
        suspects, self._suspects = self._suspects, []
        for suspect in reversed(suspects):
            suspect.begins_numbering = False  # from now on it is the stream's own numbering
            self._add_first(suspect)
        return True

    def _try_again(self, snapshot: Slot, answer: Answer) -> None:
        """Handle a misplaced snapshot: the stream is at another position."""
        last = EntryId.parse(answer.last)
        if snapshot.rests and last.position < snapshot.entry.number:
            # the book is at rest and the stream is below it: deltas before it were missed
            is_beginning = answer.last == EMPTY
            snapshot.rests = False
            self._add_first(snapshot)
            self._mark_before(
                snapshot,
                from_=None if is_beginning else last.position + 1,
                cause=self._first_cause() if is_beginning else snapshot.cause or GapCause.SKIPPED,
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
        """Put a gap before the head: its predecessor did not arrive in time."""
        self._gap_wait = None
        head = self.slots[0]
        missing_from = EntryId.parse(self.confirmed).position + 1
        if head.entry.op is Op.APPEND and head.after >= missing_from:
            cause = head.cause or GapCause.SKIPPED
            self._mark_before(head, from_=missing_from, cause=cause, last=self.confirmed)

    def _write_beginning(self) -> None:
        first = next((slot for slot in self.slots if slot.entry.op is Op.APPEND), None)
        if first is not None and self._beginning is not None:
            self._mark_before(first, from_=None, cause=self._first_cause(), last=self.confirmed)

    def _first_cause(self) -> GapCause:
        """The cause with which the stream begins; it is due no longer."""
        cause = self._beginning.cause if self._beginning else GapCause.START
        self._beginning = None
        is_dropped = cause is GapCause.START and self.counters.overflowed
        return GapCause.OVERFLOW if is_dropped else cause

    def _mark_before(self, slot: Slot, *, from_: int | None, cause: GapCause, last: str) -> None:
        """Put a gap (or a start) first, which ends at the predecessor of `slot`."""
        gap = sequenced_gap(slot, symbol=self.stream.symbol, last=last, from_=from_, cause=cause)
        self._add_first(slot_of(gap, slot.position, slot.at_us))

    @property
    def may_read(self) -> bool:
        return self._is_probing or self._unlogged.has_places

    def pages_wanted(self) -> Sequence[Read]:
        """The page where a head that may be old would be; else pages that may have a gap which an
        earlier process wrote and, being killed, did not log.
        """
        if self.is_suspended:
            return ()
        if self._is_probing and self._probed_slot is not None:
            return [where_stored(self._probed_slot)]
        return self._unlogged.reads()

    def read_pages(self, pages: Sequence[Sequence[StoredEntry]]) -> None:
        if self._is_probing:
            self._drop_old(pages[0])
            return
        self._gaps_written += self._unlogged.take_pages(pages)

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
        """As in the base; `oldest_us` is not used: numbers show what is lost for good."""
        self._clear()
        self._gap_wait = self._beginning = None
        if self.is_lost:
            self.accept_loss()
        else:
            self._lose_again()
        self.state = self._at_rest()
        self.reason = ""
        self.position, self.replay_until = position, replay_until
        self._suspects, self._settled_number = [], 0
        self._window.clear()
        self._unlogged.forget()
        self._is_probing = False

    def discard(self) -> None:
        super().discard()
        self._suspects = []
        self._gap_wait = None
        self._is_probing = False

    def drain(self) -> None:
        """Stop waiting for predecessors: a gap is marked at once."""
        self._is_draining = True
        if self._gap_wait is not None:
            self._gap_wait = _GapWait(0)

    def replayed(self) -> None:
        self.replay_until = 0

    def drop_oldest(self, share: int) -> int:
        """As in the base. Entries in flight stay: their reply is pending. So does a gap at the head
        that was sent without a reply: it may be written, and has to be logged. At least one message
        is dropped: only then numbers show the loss, and a book whose snapshot is dropped restarts.
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
        is_counted = not (self.stream.window or self.is_suspended)
        if not (is_counted and self.slots) or self.waits_after() is not None:
            return None
        return self.slots[0].entry.ms * 1000 or BEHIND_US


def _order(slot: Slot) -> tuple[int, str]:
    # the order at the same number: the message (A), then a gap (G), then the snapshot (S)
    return slot.entry.number, slot.entry.op
