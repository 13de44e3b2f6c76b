"""The queue of a stream identified by content: account events, liquidations, states (pure).

No number orders these messages, so each batch is appended only if the stream's last ID is still the
one this queue expects. Otherwise another program wrote (or a reply was lost): the queue reads the
stream's tail, drops the entries that are there already, compared by content, and sends the rest.

States (tickers, candles, prices) are ordered by update id or time: one that is below the last is
late and dropped, an equal one with other content is kept.

Where another bridge publishes the stream first (`Peers.publish_delay_us`), this queue sends a
message only after that delay, and only if the tail still lacks it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from bridge.contract.causes import GapCause
from bridge.contract.identity import EntryId
from bridge.contract.streams import Identity, Stream
from bridge.core.connection_coverage import IN_FLIGHT_US
from bridge.core.dedup import DedupWindow
from bridge.core.entries import Answer, Entry, Slot, content_gap, slot_of
from bridge.core.overflow import overflow_oldest
from bridge.core.peers import OutageVerdict, Peers
from bridge.core.queue import (
    IN_FLIGHT,
    OLDEST_SCANNED,
    OPEN,
    Batch,
    QueueState,
    Resume,
    StreamQueue,
    is_before,
)
from bridge.core.states import NEW, NewestState, Rank, Samples
from bridge.core.tail import NEWEST_STATES, NOTHING_STORED, TAIL_MS, Edge, Stored, Tail, TailWanted

MAX_RECOVERED = 20_000  # keys of entries recovered over REST lately
FLOOR_US = 10_000_000  # two bridges receive the same message within this time
WATERMARK_LAG_US = 5_000_000  # the watermark of another bridge may be this old


@dataclass(frozen=True, slots=True)
class _Backfill:
    """What the stream kept in a loss that is being backfilled: everything received before
    `floor_us`, and nothing received after `stored_until_us`.
    """

    floor_us: int = 0
    stored_until_us: int = 0


class Content(StreamQueue):
    """The queue; `sample_us`: the sampling period of a stream without an engine time, else 0."""

    def __init__(self, stream: Stream, peers: Peers, resume: Resume, *, sample_us: int = 0) -> None:
        super().__init__(stream, peers, resume)
        self._is_of_states = stream.identity is Identity.STATES
        self._sample_us = sample_us
        self._expected: str | None = None  # the stream's last ID; None: read the tail
        self._reads_tail_first = False  # an entry may be in the stream already
        self._tail_is_fresh = False  # the tail was read since the last take
        self._stored: Stored = NOTHING_STORED
        self._kept: Edge | None = None  # LOST: the last entry that Redis kept
        self._lost_until_us = 0  # what other bridges wrote before it may be lost
        self._backfill: _Backfill | None = None
        self._recovered: dict[tuple[object, ...], None] = {}
        self._newest = NewestState()
        self._window = DedupWindow()
        self._samples = Samples()

    # ---- input ---------------------------------------------------------------------------------

    def has_received(self, entry: Entry) -> bool:
        if self._sample_us and entry.order:
            return self._samples.has(entry, self._sample_us)
        return self._window.is_duplicate(
            entry.key, entry.connection, entry.received_us, is_timed=entry.engine_us > 0
        )

    def forget_received(self) -> None:
        self._window.clear()

    def put(self, slot: Slot) -> None:
        """Add an entry, unless it is a duplicate, or a state older than the newest one."""
        self.counters.received += 1
        entry = slot.entry
        is_replayed = slot.position < self.replay_until
        if is_replayed:
            slot.in_doubt = True
        # For states received for the first time their order is enough: no other lookup is needed.
        is_by_order = self._is_of_states and not (is_replayed or self._backfill or self._recovered)
        if not is_by_order and self._was_taken(slot):
            self.counters.duplicates += 1
            return
        if self._is_of_states and entry.order:
            rank = self._newest.take(entry)
            if rank is not NEW:
                self._pass_over(rank)
                return
            if (late := self._newest.passed_over) is not None:
                self._put_gap(slot, *late, GapCause.RENUMBERED)
        self.bytes += slot.size
        self.slots.append(slot)

    def _pass_over(self, rank: Rank) -> None:
        if rank is Rank.LATE:
            self.counters.late += 1
        else:
            self.counters.duplicates += 1

    def _was_taken(self, slot: Slot) -> bool:
        """Whether the entry is a duplicate, apart from its order among states."""
        entry = slot.entry
        return self._was_kept(entry) or entry.key in self._recovered or self._was_stored(slot)

    def put_recovered(self, slots: Sequence[Slot], before: Slot | None = None) -> None:
        """Add entries that may have been missed, or may be in the stream already."""
        known = {slot.entry.key for slot in self.slots}
        for slot in slots:
            key = slot.entry.key
            if key in known or key in self._recovered:
                continue
            slot.in_doubt = self._is_replayed(slot)
            self._recovered[key] = None
            self._add(slot)
            self._reads_tail_first = True
        while len(self._recovered) > MAX_RECOVERED:
            del self._recovered[next(iter(self._recovered))]
        if self._reads_tail_first and not self.in_flight:
            self._expected = None

    def set_gap_cause(self, cause: GapCause) -> None:
        """Ignored: without numbers, `put_outage` marks what is missing."""

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
        """Insert a gap before the first entry received at `received_us` or later."""
        backfill = self._backfill
        if backfill is not None and received_us < backfill.floor_us:
            return
        entry = content_gap(
            symbol=self.stream.symbol,
            from_us=from_us or None,  # 0: not even the first record can be read
            to_us=to_us,
            cause=cause,
            received_us=received_us,
        )
        slot = slot_of(entry, position, at_us)
        slot.in_doubt = self._is_replayed(slot)
        if self._was_stored(slot):
            self.counters.duplicates += 1
            return
        slot.cause = cause
        # What another bridge wrote before a loss may be lost, too: it covers no outage of then.
        is_lost = from_us < self._lost_until_us or (backfill and self._is_replayed(slot))
        if not is_lost and (backfill is None or self._peers.live):
            slot.outage = from_us, to_us
        index = len(self.slots)
        while index > self.in_flight and self.slots[index - 1].entry.received_us >= received_us:
            index -= 1
        self._insert(index, (slot,))

    # ---- output --------------------------------------------------------------------------------

    @property
    def may_read(self) -> bool:
        return self._expected is None or self._peers.publish_delay_us(self.name) > 0

    def tail_wanted(self, now_us: int) -> TailWanted | None:
        if not self._may_send():
            return None
        if self._expected is None:
            self._reads_tail_first = False
            return TailWanted(max(0, min(slot.entry.ms for slot in self.slots) - TAIL_MS))
        delay_us = self._delay_us
        head = self.slots[0]
        if delay_us and not self._tail_is_fresh and head.at_us + delay_us <= now_us:
            oldest_ms = max(0, head.entry.ms - TAIL_MS)
            return TailWanted(oldest_ms, NEWEST_STATES if self._is_of_states else None)
        return None

    def take(self, now_us: int, limit: int) -> Batch | None:
        if self._expected is None or not self._may_send():
            return None
        delay_us = self._peers.publish_delay_us(self.name)
        if delay_us and not self._tail_is_fresh:
            return None
        self._tail_is_fresh = False
        if (delay_us or self.slots[0].outage) and self._waits_at_the_head(now_us, delay_us):
            return None
        slots = list(islice(self.slots, limit))
        if delay_us or (len(slots) > 1 and [slot for slot in slots if slot.outage]):
            slots = list(self._sendable(now_us, limit, delay_us))
        if not slots:
            return None
        self.in_flight, self.state = len(slots), IN_FLIGHT
        return Batch(self, slots, self._expected)

    def due_us(self) -> int | None:
        """When the head's publish delay ends, where another bridge publishes the stream first."""
        delay_us = self._delay_us
        if not delay_us or not self._may_send() or self.slots[0].outage:
            return None
        return self.slots[0].at_us + delay_us

    def _may_send(self) -> bool:
        return bool(self.slots) and self.state is OPEN and self._peers.may_publish(self.name)

    @property
    def _delay_us(self) -> int:
        return self._peers.publish_delay_us(self.name)

    def _sendable(self, now_us: int, limit: int, delay_us: int) -> Iterator[Slot]:
        """Slots from the head on that may be sent, up to one that needs a decision at the head."""
        for number, slot in enumerate(islice(self.slots, limit)):
            is_early = delay_us and slot.at_us + delay_us > now_us
            if is_early or (number and self._must_be_head(slot, delay_us)):
                return
            yield slot

    def _must_be_head(self, slot: Slot, delay_us: int) -> bool:
        if slot.outage is None:
            return bool(delay_us) and slot.entry.is_account_snapshot
        # an outage of this bridge: another bridge may have received those messages
        peers = self._peers
        is_alone = peers.is_known and not peers.live
        return not is_alone or peers.watermarks.get(self.name, 0) > slot.outage[0]

    def _waits_at_the_head(self, now_us: int, delay_us: int) -> bool:
        """Drop outages and snapshots at the head that another bridge covers. Returns whether the
        head must wait, or nothing is left.
        """
        while self.slots and (outage := self.slots[0].outage):
            head = self.slots[0]
            match self._peers.judge_outage(
                self.name, outage[1], waited_since_us=head.at_us, now_us=now_us
            ):
                case OutageVerdict.WAIT:
                    return True
                case OutageVerdict.REAL:
                    self._shorten_head(*outage)
                    return False
                case OutageVerdict.COVERED:
                    # Account snapshots fetched after the outage are covered too; writing them now
                    # would step back.
                    snapshots = [each for each in self.slots if each.entry.is_account_snapshot]
                    self._drop([head, *snapshots])
        # another bridge has fetched and written a snapshot of its own
        is_shared = delay_us and self._peers.is_known
        while is_shared and self.slots and self.slots[0].entry.is_account_snapshot:
            self._drop([self.slots[0]])
        return not self.slots

    def _shorten_head(self, from_us: int, to_us: int) -> None:
        """Shorten an outage at the head by the part that another bridge has received."""
        known_us = self._peers.watermarks.get(self.name, 0)
        if known_us <= from_us:
            return
        old = self._drop_first()
        self.put_outage(
            from_us=known_us,
            to_us=to_us,
            cause=old.cause or GapCause.CONNECTION_LOST,
            received_us=old.entry.received_us,
            position=old.position,
            at_us=old.at_us,
        )

    def _drop(self, slots: Sequence[Slot]) -> None:
        dropped = set(map(id, slots))
        self.counters.duplicates += len(dropped)
        self._replace([slot for slot in self.slots if id(slot) not in dropped])

    # ---- replies of Redis ----------------------------------------------------------------------

    def no_reply(self) -> None:
        """Read the tail next: it shows which entries were appended."""
        for slot in islice(self.slots, self.in_flight):
            slot.in_doubt = True
        self.in_flight = 0
        self._expected = None
        if self.state is QueueState.IN_FLIGHT:
            self.state = QueueState.OPEN

    def settle(self, answer: Answer, now_us: int) -> None:
        self.in_flight, self.state = 0, OPEN
        self._tail_is_fresh = False
        for slot in self._drop_head(answer.settled):
            if slot.entry.connection:
                self.counters.published += 1  # a message of the exchange, the usual case
            else:
                self._count(slot)
        if self._before_loss and answer.settled:
            self._before_loss = ""  # the gap that marks it is the first entry
        if answer.status == "foreign":
            self._foreign(answer.last)
        elif answer.status == "moved":
            self._expected = None
        else:
            self.confirmed = answer.last
            self._expected = None if self._reads_tail_first else answer.last

    def read_tail(self, tail: Tail) -> None:
        """Continue from the stream's actual tail: drop the entries that it has."""
        if is_before(tail.last, self.confirmed):
            self._lose(tail.last, tail.newest)
            return
        self.confirmed = tail.last
        # An entry queued during the read may be in the stream already: the tail is read again.
        self._expected = None if self._reads_tail_first else tail.last
        self._tail_is_fresh = True
        self._stored = stored = tail.stored()
        if self._is_of_states:
            self._newest.learn(stored.newest, stored.keys)
        there = [slot for slot in self.slots if self._is_there(slot)]
        self._gaps_written += [slot for slot in there if slot.entry.is_gap]
        self._drop(there)

    def fail(self, reason: str) -> None:
        super().fail(reason)
        self._expected = None

    def _count(self, slot: Slot) -> None:
        if slot.entry.is_gap:
            self.count_gap(slot.entry.fields()["cause"])
            self._gaps_written.append(slot)
        elif slot.entry.is_account_snapshot:
            self.counters.snapshots += 1
        else:
            self.counters.published += 1

    def _is_ordered(self, entry: Entry) -> bool:
        """Whether it is a state with a known order, by which late ones are dropped."""
        return self._is_of_states and entry.order != 0

    def _is_stored(self, entry: Entry) -> bool:
        """Whether the entry, or a newer state, is in the tail already."""
        if self._is_ordered(entry):
            return self._stored.overtakes(entry)
        return self._stored.has(entry)

    def _was_stored(self, slot: Slot) -> bool:
        """Whether the entry was in the tail read last: another bridge may have written it long
        before it was received here. For states received for the first time their order is used.
        """
        if self._is_of_states and not self._is_replayed(slot):
            return False
        return self._is_there(slot)

    def _is_there(self, slot: Slot) -> bool:
        """Whether the entry is stored, or was stored until retention removed it."""
        if self._is_stored(slot.entry):
            return True
        # This bridge sends in order, so an entry below the first one left was sent and trimmed. Not
        # so with another bridge: it may have written that first entry, and not ours.
        return slot.in_doubt and not self._peers.live and self._stored.had(slot.entry)

    # ---- losses --------------------------------------------------------------------------------

    def _lose(self, last: str, newest: Edge | None) -> None:
        super()._lose(last, newest)
        self._kept = newest
        mark_us = self._peers.watermarks.get(self.name)
        if mark_us is not None:
            self._lost_until_us = mark_us + WATERMARK_LAG_US

    @property
    def stored_until_us(self) -> int:
        return self._backfill.stored_until_us if self._backfill else 0

    @property
    def is_refilled(self) -> bool:
        return self._backfill is not None

    def accept_loss(self) -> None:
        until_us = EntryId.parse(self.confirmed).ms * 1000 + 999
        if self.slots:
            until_us = max(until_us, self.slots[0].entry.ms * 1000)
        self._begin_again()
        self._put_first_gap(until_us)

    def rewind(self, position: int, replay_until: int, oldest_us: int) -> None:
        was_lost = self.is_lost
        self._clear()
        self.state, self.reason = QueueState.OPEN, ""
        self.position, self.replay_until = position, replay_until
        self._newest = NewestState()
        self._recovered.clear()
        self._window.clear()
        self._samples = Samples()
        self._expected = None
        if was_lost:
            kept = self._kept
            # Without an entry of the contract at the end, what the stream kept is unknown: the last
            # ID may be another program's.
            kept_us = kept.received_us if kept else 0
            self._begin_again()
            if kept_us < oldest_us:
                self._put_first_gap(oldest_us)
            if kept is None:
                self._backfill = _Backfill()
            else:
                floor_us = min(kept.received_us, kept.moment_us) - FLOOR_US
                self._backfill = _Backfill(floor_us, kept.received_us)
        else:
            self._lose_again()

    def discard(self) -> None:
        super().discard()
        self._expected = None
        self._newest = NewestState()

    def replayed(self) -> None:
        self.replay_until = 0
        self._backfill = None
        if not (self.slots or self.is_lost):
            self._before_loss = ""  # the stream has everything

    def drop_oldest(self, share: int) -> int:
        waiting = list(self.slots)
        keep, rest = waiting[: self.in_flight], waiting[self.in_flight :]
        overflowed = overflow_oldest(self.stream.symbol, rest, share)
        if overflowed is None:
            return 0
        self._replace([*keep, overflowed.gap, *rest[overflowed.slots :]])
        self.counters.overflowed += overflowed.messages
        return overflowed.freed

    def _begin_again(self) -> None:
        self.confirmed, self.state = self.lost_last, QueueState.OPEN
        self._expected = None
        self._stored = NOTHING_STORED

    def _put_first_gap(self, until_us: int) -> None:
        """Put a gap first for what Redis lost: from the last entry it kept until `until_us`; from
        the stream's beginning where that is unknown.
        """
        last_us, kept = EntryId.parse(self.confirmed).ms * 1000, self._kept
        from_us = min(last_us, kept.moment_us, kept.received_us) if kept else None
        entry = content_gap(
            symbol=self.stream.symbol,
            from_us=from_us,
            to_us=until_us,
            cause=GapCause.REDIS_LOST,
            received_us=until_us,
        )
        position = self.slots[0].position if self.slots else self.position
        self._add_first(slot_of(entry, position, at_us=0))  # it waits for no peer

    def _put_gap(self, slot: Slot, from_us: int, to_us: int, cause: GapCause) -> None:
        entry = content_gap(
            symbol=self.stream.symbol,
            from_us=from_us,
            to_us=to_us,
            cause=cause,
            received_us=slot.entry.received_us,
        )
        self._add(slot_of(entry, slot.position, slot.at_us))

    def _was_kept(self, entry: Entry) -> bool:
        """During the backfill of a loss: whether the entry was received well before the last one
        that Redis kept.

        IDs cannot show it: they are raised to the stream's own time, and the exchange's may step
        back. Nor can one clock alone: another bridge's may be wrong. The first entry that was
        received later ends this check; from there on the tail decides.
        """
        backfill = self._backfill
        if backfill is None or not backfill.floor_us:
            return False
        if max(entry.received_us, entry.moment_us) < backfill.floor_us:
            return True
        self._backfill = replace(backfill, floor_us=0)
        return False

    # ---- progress ------------------------------------------------------------------------------

    def settled_until_us(self, received_until_us: int) -> int | None:
        """As in the base: an engine time is never above the time at which a message was sent."""
        is_known = len(self.slots) <= OLDEST_SCANNED and not self.is_lost
        if not is_known or any(slot.entry.is_gap for slot in self.slots):
            return None
        waiting = [slot.entry.ms * 1000 - IN_FLIGHT_US for slot in self.slots]
        return min([received_until_us, *waiting])

    def outage_until_us(self) -> int | None:
        return max((slot.outage[1] for slot in self.slots if slot.outage), default=None)
