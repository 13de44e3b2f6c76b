"""Recovery over REST: what the streams of one core need, and what is made of the bodies (pure).

    depth streams    a book                            a snapshot, placed among the deltas
    trade streams    pages of history                  missing trades, or numbers found not to exist
    account streams  fills of an interval, snapshots   missing fills, events

`requests()` names streams with a new need, `wants()` returns the need. All decisions depend only on
the records and their times of receipt, so that a replay decides the same.
"""

from collections.abc import Iterable, Sequence

from bridge.contract.causes import GapCause
from bridge.contract.identity import EntryId
from bridge.contract.stream_types import Recovery
from bridge.contract.streams import Identity
from bridge.core import gap_log
from bridge.core.books import Books, When
from bridge.core.entries import Slot, content_entry, fill_from_history, slot_of
from bridge.core.gap_log import GapLog
from bridge.core.missed_fills import MissedFills
from bridge.core.outages import Outage
from bridge.core.outcomes import Join, Reach
from bridge.core.plan import CorePlan
from bridge.core.queue import StreamQueue
from bridge.core.queues import Queues
from bridge.core.records import BodyKind, RestBody
from bridge.core.trade_gaps import Recovered, TradeGaps, TradeStream
from bridge.core.wants import BookWanted, TradesWanted, Wants
from bridge.protocol.rest import account_event, fills_page, trades_page


class RestRecovery:
    """The recovery of the streams in `queues`. The end of a gap is logged in `gaps`."""

    def __init__(self, plan: CorePlan, queues: Queues, gaps: GapLog) -> None:
        self.pending: dict[str, None] = {}  # streams with a new need
        self.books = Books(plan.snapshots, self.pending)
        self.trades: dict[str, TradeStream] = {}
        self._fills = MissedFills()
        self._recover_us = plan.recover_us
        self._queues = queues
        self._gaps = gaps

    def add(self, queue: StreamQueue) -> None:
        """Follow a queue's gaps, if they can be recovered over REST."""
        stream = queue.stream
        if stream.spec.source(Recovery.SNAPSHOT) and stream.identity is Identity.SEQUENCED:
            self.books.add(stream.name, stream.symbol)
        if stream.spec.source(Recovery.HISTORY):
            self.trades[stream.name] = TradeStream(queue, TradeGaps(self._recover_us))

    def remove(self, name: str) -> None:
        self.trades.pop(name, None)
        self.books.remove(name)

    # ---- what is polled ------------------------------------------------------------------------

    def requests(self) -> Sequence[str]:
        """Streams with a new need; each is returned once."""
        requests = list(self.pending)
        self.pending.clear()
        return requests

    def wants(self, name: str, now_us: int) -> Wants | None:
        """What is to be fetched for a stream now."""
        if (trades := self.trades.get(name)) is not None:
            back = trades.gaps.wanted(now_us)
            return None if back is None else TradesWanted(back)
        if (fills := self._fills.wanted(name)) is not None:
            return fills
        return BookWanted() if self.books.is_missing(name) else None

    def sparse(self) -> list[str]:
        """Trade streams whose trade IDs proved not to be dense."""
        return [name for name, trades in self.trades.items() if trades.gaps.is_sparse]

    # ---- events of the streams -----------------------------------------------------------------

    def follow_trade(self, trades: TradeStream, slot: Slot) -> None:
        """Follow a trade that is not simply the successor of the one before."""
        queue, gaps = trades
        if gaps.receive(slot):
            if slot.position < queue.replay_until:
                slot.wait_while_replaying()  # later records of the journal may recover it
            self.pending[queue.name] = None
        if gaps.has_released():
            queue.release()

    def set_gap_cause(self, name: str, cause: GapCause) -> None:
        """Set the cause of a gap before the next trade."""
        if (trades := self.trades.get(name)) is not None:
            trades.gaps.set_gap_cause(cause)

    def miss(self, queue: StreamQueue, outage: Outage) -> None:
        """Note that fills may be missing in this outage."""
        if queue.stream.spec.source(Recovery.FILLS):
            self._fills.miss(queue.name, outage.from_us, outage.to_us)
            self.pending[queue.name] = None

    def mark_sparse(self, names: Iterable[str]) -> None:
        """Mark trade streams whose trade IDs proved not to be dense earlier."""
        for name in names:
            if (trades := self.trades.get(name)) is not None:
                trades.gaps.mark_sparse()

    def wait_no_longer(self) -> None:
        """Stop waiting for missing trades, for lack of memory: mark them as gaps."""
        for name, (queue, gaps) in self.trades.items():
            if name not in self._queues.detached:
                gaps.wait_no_longer()
                queue.release()

    def caught_up(self, now_us: int, received: Iterable[str]) -> None:
        """End of the replay: missing trades now wait by the clock, and are requested; so are fills,
        and the books of the streams that are `received`.
        """
        for name, (queue, gaps) in self.trades.items():
            if name in self._queues.detached:
                continue
            gaps.wait_as_usual()
            queue.release()
            if gaps.wanted(now_us):
                self.pending[name] = None
        self.request_books_anew(received)
        self.pending |= dict.fromkeys(self._fills)

    def request_books_anew(self, names: Iterable[str]) -> None:
        """Request the books of these streams, unless they are known."""
        for name in names:
            if name in self.books:
                self.books.request_anew(name)

    def take_over(self, other: "RestRecovery") -> None:
        """Take over a backfill's trade streams, and its requests."""
        self.trades |= other.trades
        self.pending |= dict.fromkeys(other.requests())

    # ---- replies of Redis ----------------------------------------------------------------------

    def gap_marked(self, name: str, gap: Slot) -> None:
        """Note that a gap was written: the trades before it cannot be recovered any more."""
        if (trades := self.trades.get(name)) is not None:
            trades.gaps.marked(gap.entry.number)

    def redis_answered(self, queue: StreamQueue, now_us: int) -> None:
        """After Redis settled or refused entries of a queue."""
        if queue.name in self.books:
            self._place_own_snapshot(queue, now_us)
        elif (trades := self.trades.get(queue.name)) is not None:
            self._explain_refusal(trades, now_us)

    def _place_own_snapshot(self, queue: StreamQueue, now_us: int) -> None:
        """Put a snapshot of the bridge's own book, after a gap or a misplaced snapshot. (While the
        book is not known, it is already requested.)
        """
        name = queue.name
        if tries := queue.snapshot_tries():
            self.books.retry(name, tries)
        # In a replay the snapshots of that time follow in the journal.
        is_new = self.books.position(name) >= queue.replay_until
        if queue.snapshot_due() and is_new:
            slot = self.books.own_snapshot(name, When(now_us, now_us, 0))
            if slot is not None:
                self._queues.put(queue, slot)

    def _explain_refusal(self, trades: TradeStream, now_us: int) -> None:
        """Open a gap before a trade that Redis refused although no number showed one: where the
        queue begins, for example.
        """
        queue, gaps = trades
        head = queue.unexplained_head()
        if head is None or head.position < queue.replay_until:
            return
        missing_from = EntryId.parse(queue.confirmed).position + 1
        if gaps.open_before(head, missing_from, now_us):
            queue.release()
            self.pending[queue.name] = None

    # ---- REST bodies ---------------------------------------------------------------------------

    def take_body(self, record: RestBody, when: When) -> Join | Reach | None:
        """Apply a REST body. None: this core has no such stream. Raises BadBody."""
        _, name, kind, body = record
        queue = self._queues.get(name)
        if queue is None:
            return None
        if (trades := self.trades.get(name)) is not None:
            return self._history(trades, kind, body, when)
        if kind is not BodyKind.MAIN:
            self._take_fills(queue, kind, body, when)
            return Join.PLACED
        if name in self.books:
            joined, snapshot = self.books.take_body(name, body, when)
            if snapshot is not None:
                self._queues.put(queue, snapshot)
            return joined
        event = account_event(queue.stream, body, when.received_us)
        entry = content_entry(event, when.received_us)
        self._queues.put(queue, slot_of(entry, when.position, when.at_us))
        return Join.PLACED

    def _history(self, trades: TradeStream, kind: BodyKind, body: bytes, when: When) -> Reach:
        """Apply a page of trades, or the end of history."""
        queue, gaps = trades
        if kind is BodyKind.END:
            reach, ended = Reach.DONE, gaps.end_of_history(when.at_us)
        else:
            page = trades_page(queue.stream.symbol, body, when.received_us)
            reach, ended = gaps.page(page, when.at_us)
        for recovered in ended:
            self._recovered(queue, recovered, when)
        for run in gaps.unseen():
            queue.count_gap(GapCause.SKIPPED)
            record = gap_log.of_unseen(queue.stream, run, when.received_us)
            self._gaps.log(record, when.position, when.at_us)
        return reach

    def _recovered(self, queue: StreamQueue, recovered: Recovered, when: When) -> None:
        if not self._queues.takes(queue, when.position):
            return
        for row in recovered.rows:
            row.move_to(when.position)
        self._queues.put_recovered(queue, recovered.rows, recovered.waiting)
        if recovered.run.first <= recovered.run.last:
            queue.count_recovered()
            record = gap_log.of_recovered(queue.stream, recovered, when.received_us)
            self._gaps.log(record, when.position, when.at_us)

    def _take_fills(self, queue: StreamQueue, kind: BodyKind, body: bytes, when: When) -> None:
        """Apply a page of the account's fills, or their end."""
        if kind is BodyKind.END:
            self._fills.fetched(queue.name)
            return
        fills = [
            slot_of(fill_from_history(event), when.position, when.at_us)
            for event in fills_page(body, when.received_us)
        ]
        if self._queues.takes(queue, when.position):
            self._queues.put_recovered(queue, fills)
