"""Turns received records into entries in the queues of their streams (pure).

    frame → envelope → event → entry → queue          invalid frames → quarantine

`Core.apply(record, position, at_us)` is the only input: frames, connections, REST bodies,
watermarks of an earlier bridge. The same records give the same entries, live and in replay: from a
record's position in the journal a queue knows whether it took the record already, and whether
Redis may have it.

What the core needs is polled: `requests()` and `wants()` return what to fetch over REST, the
`QueueTable` which queues have entries to send. The core uses no sockets, no files and no Redis.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from bridge.contract.causes import GapCause
from bridge.contract.events import UnknownEvent
from bridge.contract.identity import believable_us
from bridge.contract.streams import (
    GAP_LOG,
    QUARANTINE,
    Identity,
    Stream,
    is_private,
    stream_named,
)
from bridge.core import gap_log
from bridge.core.books import When
from bridge.core.connection_coverage import IN_FLIGHT_US, ConnectionCoverage
from bridge.core.content import Content
from bridge.core.counters import CoreCounters, UnknownEvents
from bridge.core.coverage import NOTHING, Coverage, Findings
from bridge.core.entries import Entry, Slot, content_entry, slot_of
from bridge.core.gap_log import GapLog
from bridge.core.outages import Outage
from bridge.core.outcomes import Applied, Join, Reach
from bridge.core.peers import Peers
from bridge.core.plan import FROM_THE_START, CorePlan, ResumePoints
from bridge.core.queue import QueueTable, StreamQueue
from bridge.core.queues import Queues
from bridge.core.records import (
    Answered,
    CaughtUp,
    Closing,
    Frame,
    Frames,
    GapLogged,
    Lost,
    Missing,
    Opened,
    Rebased,
    Record,
    RestBody,
    SegmentState,
    Started,
    Subscribed,
    Suspected,
    Watermarks,
)
from bridge.core.rest_recovery import RestRecovery
from bridge.core.sequenced import Sequenced
from bridge.core.translate import Rejected, quarantined, translate, unread_event
from bridge.core.usual import Message, Together, UsualMessages, judge, unread
from bridge.core.wants import BookWanted, Wants
from bridge.protocol.envelope import Data, Malformed, Refusal, parse


class Core:
    """The streams of one bridge, or some of them.

    `takes_private`: whether private streams are among them; if not, their records are ignored.
    `gap_log_of`: the core whose gap log is used. A core with one is a backfill: it receives its
    queues, creates none, and does not quarantine: the first core did when the frame was received.
    """

    def __init__(
        self,
        streams: Iterable[Stream],
        plan: CorePlan,
        table: QueueTable,
        peers: Peers,
        resume: ResumePoints = FROM_THE_START,
        *,
        takes_private: bool = True,
        gap_log_of: "Core | None" = None,
    ) -> None:
        self.plan = plan
        self.peers = peers
        self.table = table
        self.queues = Queues(table)
        self._usual = UsualMessages()
        self.counters = CoreCounters()
        self.unknown_events = UnknownEvents()
        self.coverage = Coverage()
        self.last_event_us: dict[str, int] = {}
        self._resume = resume
        self.takes_private = takes_private
        self._is_backfill = gap_log_of is not None
        self._reads_gap_log = not self._is_backfill
        if gap_log_of is None:
            self.journaled = gap_log.Journaled()
            self.gap_log = self._own_queue(GAP_LOG)
            self.quarantine = self._own_queue(QUARANTINE)
        else:
            self.journaled = gap_log_of.journaled
            self.gap_log, self.quarantine = gap_log_of.gap_log, gap_log_of.quarantine
        self._gaps = GapLog(self.gap_log, table, self.journaled, is_backfill=self._is_backfill)
        self._rest = RestRecovery(plan, self.queues, self._gaps)
        self.pending_requests = self._rest.pending
        # Read for each message: kept here to save the attribute lookups through their owners.
        self._detached, self._books = self.queues.detached, self._rest.books
        self._trades = self._rest.trades
        for stream in streams:
            self.add(stream)

    # ---- input ---------------------------------------------------------------------------------

    def apply(self, record: Record, position: int, at_us: int) -> Applied:
        """Apply one record, which has this position in the journal and was received at `at_us` by
        the steady clock. Raises BadBody for an invalid REST body.
        """
        if type(record) is Frame:
            frames = Frames(record.received_us, record.connection, (record.body,))
            return self.apply_frames(frames, (position,), at_us)[0]
        handle = _HANDLERS.get(type(record))
        when = When(record.received_us, at_us, position)
        return handle(self, record, when) if handle else None

    # ---- what is polled ------------------------------------------------------------------------

    def requests(self) -> Sequence[str]:
        """Streams with a new need for REST data; each is returned once."""
        return self._rest.requests()

    def wants(self, name: str, now_us: int) -> Wants | None:
        """What is to be fetched over REST for a stream now."""
        wants = self._rest.wants(name, now_us)
        if isinstance(wants, BookWanted) and not self.coverage.is_wanted(name):
            return None
        return wants

    def sparse(self) -> list[str]:
        """Trade streams whose trade IDs proved not to be dense."""
        return self._rest.sparse()

    def is_detached(self, name: str) -> bool:
        """Whether another core has the stream's queue."""
        return name in self._detached

    # ---- replies of Redis ----------------------------------------------------------------------

    def redis_answered(self, queue: StreamQueue, now_us: int) -> None:
        """After Redis settled or refused entries of a queue: log gaps, place snapshots."""
        if not queue.has_news:
            return
        for written in queue.gaps_written():
            if queue.name in self.queues:
                record = gap_log.of_gap(queue.stream, written.entry)
                position = max(written.position, self.gap_log.position)  # it is new
                self._gaps.log(record, position, now_us)
            self._rest.gap_marked(queue.name, written)
        self._rest.redis_answered(queue, now_us)

    # ---- queues --------------------------------------------------------------------------------

    def add(self, stream: Stream) -> None:
        """Create the stream's queue, if there is none."""
        if stream.name not in self.queues:
            self._adopt(self._new_queue(stream))

    def _new_queue(self, stream: Stream) -> StreamQueue:
        resume = self._resume.of(stream.name)
        if stream.identity is Identity.SEQUENCED:
            return Sequenced(stream, self.peers, resume, self.plan.hold_us)
        sample_us = stream.spec.sampled_every_us or 0
        return Content(stream, self.peers, resume, sample_us=sample_us)

    def _own_queue(self, stream: Stream) -> Content:
        queue = Content(stream, self.peers, self._resume.of(stream.name))
        self.table.add(queue, self)
        return queue

    def _adopt(self, queue: StreamQueue) -> None:
        self.queues[queue.name] = queue
        self._usual.add(queue)
        self.table.add(queue, self)
        self._rest.add(queue)

    def detach(self, names: Collection[str]) -> list[StreamQueue]:
        """Detach these queues: until `adopt_back` they take nothing from this core, which still
        follows their books and connections. Returns them.
        """
        return self.queues.detach(names)

    def backfill(self, queues: Iterable[StreamQueue], *, reads_gap_log: bool = False) -> "Core":
        """A core that reads the journal again for detached queues; `reads_gap_log`: also for the
        gap log.
        """
        core = Core((), self.plan, self.table, self.peers, self._resume, gap_log_of=self)
        for queue in queues:
            core._adopt(queue)
        core.restore_sparse(self.sparse())
        core._reads_gap_log, core.takes_private = reads_gap_log, self.takes_private
        return core

    def release(self, name: str) -> None:
        """Remove a queue from this backfill: it needs another one."""
        self.queues.pop(name, None)
        self._usual.remove(name)
        self._rest.remove(name)

    def adopt_back(self, backfill: "Core", position: int, now_us: int) -> None:
        """Take back the queues of a finished backfill: from `position` on they take what is applied
        here.
        """
        names = list(backfill.queues)
        # Other streams of the same connections show since when these are received.
        outages = backfill.coverage.settle_by(self.coverage, names)
        backfill._mark(outages, When(now_us, now_us, position))
        self.queues.take_back(names)
        for queue in backfill.queues.values():
            queue.begin_at(position)
            self.table.add(queue, self)
        if backfill._reads_gap_log:
            self.gap_log.replayed()
        backfill.apply(CaughtUp(now_us), position, now_us)
        self._rest.take_over(backfill._rest)
        self._rest.request_books_anew(self._received(names))

    def restore_sparse(self, names: Iterable[str]) -> None:
        """Mark trade streams whose trade IDs proved not to be dense earlier."""
        self._rest.mark_sparse(self._known(names))

    def wait_no_longer(self) -> None:
        """Stop waiting for missing trades, for lack of memory: mark them as gaps."""
        self._rest.wait_no_longer()

    def _every_queue(self) -> list[StreamQueue]:
        own = [] if self._is_backfill else [self.gap_log, self.quarantine]
        return [*self.queues.values(), *own]

    def _known(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._has_queue(name)]

    def _followed(self, names: Sequence[str]) -> Sequence[str]:
        """The streams that coverage follows on a connection: in a backfill all of them."""
        if not self._is_backfill:
            return self._known(names)
        return [name for name in names if not self._is_kept_out(name)]

    def _has_queue(self, name: str) -> bool:
        """Whether the stream has a queue; creates one where needed, since a journal may contain
        streams that are no longer configured.
        """
        if name in self.queues:
            return True
        if self._is_backfill or self._is_kept_out(name):
            return False
        stream = stream_named(name)
        if stream is not None:
            self.add(stream)
        return stream is not None

    # ---- frames --------------------------------------------------------------------------------

    def apply_frames(
        self, frames: Frames, positions: Sequence[int], at_us: int
    ) -> Sequence[Applied]:
        """`apply` for each frame, with its position in the journal."""
        received_us, connection, bodies = frames
        self.counters.frames += len(bodies)
        known = self.coverage.connection(connection)
        streams = known.streams if known is not None else ()
        together, read = Together.at(received_us, connection, streams), self._usual.read
        applied: list[Applied] = []
        for body, position in zip(bodies, positions, strict=True):
            message = read(body, together)
            if message is None or known is None:
                record = Frame(received_us, connection, body)
                applied.append(self._frame(record, position, at_us))
            else:
                self._take(known, message, position, at_us)
                applied.append(message[0].name)
        return applied

    def _frame(self, record: Frame, position: int, at_us: int) -> Applied:
        """Apply a frame that `read_usual` does not read, or that is invalid."""
        match parse(record.body):
            case Data() as data:
                return self._data(data, record, position, at_us)
            case Refusal() as refusal:
                return refusal
            case Malformed(reason):
                self._quarantine("", reason, record, position, at_us)
        return None

    def _data(self, data: Data, record: Frame, position: int, at_us: int) -> str | None:
        name = data.stream
        queue = self.queues.get(name)
        known = self.coverage.connection(record.connection)
        if known is None or name not in known.streams:
            is_left = None not in (known, queue)
            self._unexpected(name, record, position, at_us, is_left=is_left)
            return None
        if queue is None:
            self._received_elsewhere(data, known, record, position, at_us)
            return None
        counts = known.occurrences if queue.stream.identity is Identity.EVENTS else None
        judged = judge(queue, data, record, counts)
        if isinstance(judged, Rejected):
            self._quarantine(name, judged.reason, record, position, at_us)
            if queue.stream.is_private:
                self._take(known, unread(queue, data, record, counts), position, at_us)
            return name
        event, message = judged
        if self._take(known, message, position, at_us):
            self.counters.unknown_fields += bool(event.__pydantic_extra__)
            if type(event) is UnknownEvent:
                self.unknown_events.count(event.event or "")
        return name

    def _take(self, known: ConnectionCoverage, message: Message, position: int, at_us: int) -> bool:
        """Put a message into its queue, and update coverage, trade gaps and the book. False: it is
        a duplicate of one from another connection.
        """
        queue, entry, event_us, size, delta = message
        name, received_us, coverage = queue.name, entry.received_us, self.coverage
        if coverage.overlaps or not known.try_advance(name, event_us, received_us):
            findings = coverage.received(known, name, event_us, received_us)
            if findings is not NOTHING:
                self._note(findings, GapCause.STALE, When(received_us, at_us, position))
            if coverage.overlaps and self._is_repeated(queue, entry):
                queue.count_repeated()
                return False
        self.last_event_us[name] = event_us
        slot = Slot(entry, position, at_us, size)
        trades = self._trades.get(name)
        if trades is not None and not trades.gaps.try_receive(entry):
            self._rest.follow_trade(trades, slot)
        if position >= queue.position and name not in self._detached:
            queue.put(slot)
            self.table.ready[queue] = None
        if delta is not None and (
            coverage.overlaps or not self._books.try_follow(name, delta, entry.ms, position)
        ):
            hold_us = self._book_hold_us(name) if coverage.overlaps else None
            for snapshot in self._books.follow(name, delta, slot, hold_us):
                self.queues.put(queue, snapshot)
        return True

    def _unexpected(
        self, name: str, record: Frame, position: int, at_us: int, *, is_left: bool
    ) -> None:
        """A message of a stream that this connection is not to receive; `is_left`: it was
        unsubscribed, and the message was in flight.
        """
        if is_left or self._is_kept_out(name):
            self.counters.unwanted += 1
        else:
            self._quarantine(name, "a stream not subscribed to", record, position, at_us)

    def _received_elsewhere(
        self, data: Data, known: ConnectionCoverage, record: Frame, position: int, at_us: int
    ) -> None:
        """A message of a stream whose queue another core has: in a backfill, messages of all
        streams count for the coverage of their connection.
        """
        name, received_us = data.stream, record.received_us
        stream = stream_named(name)
        if stream is None or self._is_kept_out(name):
            self._unexpected(name, record, position, at_us, is_left=False)
            return
        event = translate(stream, data, record.body, received_us)
        if isinstance(event, Rejected) and stream.is_private:
            event = unread_event(stream, data, record.body, received_us)
        if not isinstance(event, Rejected):
            event_us = believable_us(event, received_us)
            findings = self.coverage.received(known, name, event_us, received_us)
            self._note(findings, GapCause.STALE, When(received_us, at_us, position))

    def _is_kept_out(self, name: str) -> bool:
        """Whether it is a private stream, and this core takes none; the journal may have some."""
        return is_private(name) and not self.takes_private

    def _is_repeated(self, queue: StreamQueue, entry: Entry) -> bool:
        """Whether the entry was already received over another connection."""
        if not self.coverage.ends_overlap(entry.received_us):
            return queue.name not in self._detached and queue.has_received(entry)
        for each in self.queues.here():
            each.forget_received()
        return False

    def _book_hold_us(self, name: str) -> int:
        """How long to wait for another connection to bring what one has missed."""
        return self.plan.hold_us if self.coverage.receivers(name) > 1 else 0

    def _quarantine(
        self, stream: str, reason: str, record: Frame, position: int, at_us: int
    ) -> None:
        if self._is_backfill:
            return  # it was put there when it was first received
        event = quarantined(stream, reason, record.body, record.received_us)
        entry = content_entry(event, record.received_us)
        self.queues.put(self.quarantine, slot_of(entry, position, at_us))
        self.counters.quarantined += 1

    # ---- connections ---------------------------------------------------------------------------

    def _opened(self, record: Opened, when: When) -> None:
        followed = self._followed(record.streams)
        for name in followed:
            if not self.coverage.receivers(name):
                self._books.reset(name)  # no connection received its deltas
        self.coverage.opened(record.connection, followed)

    def _subscribed(self, record: Subscribed, when: When) -> None:
        findings = self.coverage.subscribed(record.connection, self._followed(record.streams))
        self._note(findings, GapCause.UNSUBSCRIBED, when)
        for name in findings.uncovered:
            self._books.reset(name)

    def _suspected(self, record: Suspected, when: When) -> None:
        findings = self.coverage.suspected(record.connection, record.stream, record.last_us)
        self._note(findings, GapCause.STALE, when)

    def _lost(self, record: Lost, when: When) -> None:
        self._note(self.coverage.lost(record.connection, record.cause), record.cause, when)

    def _closing(self, record: Closing, when: When) -> None:
        self.coverage.closing(record.connection)

    def _watermarks(self, record: Watermarks, when: When) -> None:
        # What another bridge wrote up to a mark may have been lost since.
        lost = [name for name, queue in self.queues.items() if queue.is_refilled]
        self._mark(self.coverage.resume(record.marks, lost), when)

    def _started(self, record: Started, when: When) -> None:
        for connection in self.coverage.open_connections():
            findings = self.coverage.lost(connection, GapCause.NOT_RUNNING)
            self._note(findings, GapCause.NOT_RUNNING, when)

    def _segment_state(self, record: SegmentState, when: When) -> None:
        for streams in record.connections.values():
            self._followed(list(streams))  # makes queues for streams no longer configured, too
        self.coverage.restore(record.connections, record.coverage)
        if not record.coverage:
            # The process that wrote it had not read the journal up to there, so it did not know
            # since when the streams that no connection receives were not received.
            self.coverage.unknown(self.queues, 0, GapCause.NOT_IN_JOURNAL)
        self.restore_sparse(record.sparse)

    def _rebased(self, record: Rebased, when: When) -> None:
        for queue in self._every_queue():
            queue.move_positions(record.by)

    def _answered(self, record: Answered, when: When) -> None:
        """The exchange has confirmed subscriptions: now their books can be requested."""
        excluded = record.excluded
        new = [name for name in self.coverage.unanswered(record.connection) if name not in excluded]
        self._mark(self.coverage.answered(record), when)
        for name in new:
            if name in self._books:
                self._books.request(name)

    def _note(self, findings: Findings, cause: GapCause, when: When) -> None:
        """Mark outages, and keep the cause for numbers that are missing next."""
        self._mark(findings.outages, when)
        if not self._is_backfill:  # a backfill's streams may be received live
            self.peers.uncovered(findings.uncovered)
        self._set_gap_cause(findings.uncovered, cause)

    def _set_gap_cause(self, names: Iterable[str], cause: GapCause) -> None:
        for name in names:
            queue = self.queues.get(name)  # None: another core has it
            if queue is not None and name not in self._detached:
                queue.set_gap_cause(cause)
            self._rest.set_gap_cause(name, cause)

    def _mark(self, outages: Iterable[Outage], when: When) -> None:
        for outage in outages:
            queue = self.queues.get(outage.stream)
            if queue is None:
                continue
            if self.queues.takes(queue, when.position):
                queue.put_outage(
                    from_us=outage.from_us,
                    to_us=outage.to_us,
                    cause=outage.cause,
                    received_us=when.received_us,
                    position=when.position,
                    at_us=when.at_us,
                )
                self.table.mark_ready(queue)
            self._rest.miss(queue, outage)

    def _missing(self, record: Missing, when: When) -> None:
        """Mark what was received of these streams and can no longer be read. After a loss, Redis
        still has what was received until `stored_until_us`.
        """
        spans = record.spans
        if spans is None:
            spans = dict.fromkeys(self.queues, (record.from_us, record.received_us))
        for name in self._known(spans):
            from_us, to_us = spans[name]
            self._set_gap_cause((name,), record.cause)
            begin_us = max(from_us - IN_FLIGHT_US, self.queues[name].stored_until_us)
            if begin_us < to_us:
                # The position where the queue begins may be in the missing part.
                position = max(when.position, min(self.queues[name].position, record.end - 1))
                moved = when._replace(received_us=to_us, position=position)
                self._mark([Outage(name, begin_us, to_us, record.cause)], moved)
        if record.spans is None:
            # Records of connections are missing as well, so coverage is unknown until the next.
            self.coverage.unknown(self.queues, record.received_us, record.cause)

    # ---- REST, and the end of a replay ---------------------------------------------------------

    def _rest_body(self, record: RestBody, when: When) -> Join | Reach | None:
        return self._rest.take_body(record, when)

    def _caught_up(self, record: CaughtUp, when: When) -> None:
        """End of the replay: missing messages now wait by the clock, and are requested."""
        for queue in self._every_queue():
            if queue.name not in self._detached:
                queue.replayed()
        self._rest.caught_up(when.at_us, self._received(self._books))

    def _received(self, names: Iterable[str]) -> list[str]:
        """Those of these streams that a connection receives."""
        return [name for name in names if self.coverage.receivers(name)]

    # ---- the gap log ---------------------------------------------------------------------------

    def _gap_logged(self, record: GapLogged, when: When) -> None:
        entry = gap_log.of_fields(record.fields)
        if entry is not None:
            self.journaled.has(entry)
            if self._reads_gap_log:
                self._gaps.log(entry, when.position, when.at_us)


_HANDLERS: Mapping[type, Callable[[Core, Any, When], Applied]] = {
    Opened: Core._opened,
    Subscribed: Core._subscribed,
    Answered: Core._answered,
    Suspected: Core._suspected,
    Closing: Core._closing,
    Lost: Core._lost,
    RestBody: Core._rest_body,
    Watermarks: Core._watermarks,
    Started: Core._started,
    Missing: Core._missing,
    GapLogged: Core._gap_logged,
    SegmentState: Core._segment_state,
    CaughtUp: Core._caught_up,
    Rebased: Core._rebased,
}
