"""Where frames become items in their stream's line (pure: time is an argument).

    frame → envelope → event → item → line        bad ones → quarantine line

Everything that reaches the lines comes through the methods of this class, in the order of hearing:
frames, connections opened, answered and lost, REST bodies, marks of an earlier bridge. The same
calls again give the same items, which is what the journal rests on. It knows neither sockets, files
nor Redis.

`offset` is where the journal has the record of a call; a line that has settled what stands there
does not take it a second time.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from bridge.contract import keys
from bridge.contract.events import Depth, Event, Quarantined, Trade
from bridge.contract.identity import BadIdentity, believable_us
from bridge.contract.streams import BadStreamName, Identity, Stream, StreamType, parse_stream
from bridge.pipeline.book import Join
from bridge.pipeline.books import Books, SnapshotPlan
from bridge.pipeline.deafness import SILENT, UNSUBSCRIBED, Deafness
from bridge.pipeline.ear import UNSURE_US, Ear
from bridge.pipeline.items import (
    Item,
    numbered,
    unnumbered,
)
from bridge.pipeline.ledger import new_ledger, of_gap
from bridge.pipeline.missing import Line, Missing
from bridge.pipeline.numbered import BUFFER_FULL, NumberedLine
from bridge.pipeline.past import NOT_RUNNING, Deaf
from bridge.pipeline.peers import Company
from bridge.pipeline.trade_holes import Reach
from bridge.pipeline.translate import Rejected, translate
from bridge.pipeline.unnumbered import UnnumberedLine
from bridge.protocol.envelope import Ack, Data, Malformed, Refusal, parse
from bridge.protocol.rest import account_event

MAX_RAW = 65_536  # characters of a refused frame that are kept
DROP_SHARE = 10  # a full buffer gives up a tenth of its largest line at a time

REPAIR_US = 30_000_000


@dataclass(slots=True)
class Counts:
    """What was heard, of all connections."""

    frames: int = 0
    quarantined: int = 0
    unknown_fields: int = 0
    unwanted: int = 0  # of a stream that was left, under way at the time


class Intake:
    """All lines of one bridge. `ask(name)`: REST should be asked about this stream: for the book
    of a depth stream, for what a trade stream misses, for the fills of an order stream.
    """

    def __init__(
        self,
        streams: Iterable[Stream],
        *,
        hold_us: int,
        snapshot_every: int,
        ask: Callable[[str], None],
        repair_us: int = REPAIR_US,
        snapshot_every_ms: int = 0,
        snapshot_levels: int = 1000,
    ) -> None:
        self.company = Company()
        self.lines: dict[str, Line] = {}
        self.dirty: dict[str, Line] = {}  # lines with something waiting, in order of hearing
        self.counts = Counts()
        self._books = Books(
            SnapshotPlan(snapshot_every, snapshot_every_ms, snapshot_levels),
            lambda name, item, offset: self._put(self.lines[name], item, offset),
            self._ask,
        )
        self.missing = Missing(repair_us, self._put_missing, self._note, self._ask)
        self._branch: Intake | None = None  # some of the lines hear the journal again there
        self._is_branch = False
        self._ask_rest = ask
        self.is_rehearing = False  # what is missing may come yet: nobody is asked
        self._hold_us = hold_us
        self._repair_us = repair_us
        self.on_new_line: Callable[[Line], None] = _leave_as_it_is
        self.ledger = new_ledger()
        quarantine = Stream(keys.QUARANTINE, StreamType.LIQUIDATION)
        self.quarantine = UnnumberedLine(quarantine, self.company)
        self.deafness = Deafness()
        self.unjournaled = Deafness()  # of connections that no journal has
        self.last_event_us: dict[str, int] = {}
        for stream in streams:
            self.add(stream)

    def add(self, stream: Stream, line: Line | None = None) -> None:
        """From now on there is a line for this stream: this one, or a new one."""
        if stream.name in self.lines:
            return
        line = line or (
            NumberedLine(stream, self._hold_us, self.company)
            if stream.identity is Identity.NUMBERED
            else UnnumberedLine(stream, self.company)
        )
        if stream.type is StreamType.DEPTH:
            self._books.add(stream.name)
        self.lines[stream.name] = line
        if isinstance(line, NumberedLine) and stream.type is StreamType.TRADE:
            self.missing.add(line)
        self.on_new_line(line)

    def branch(self, names: Iterable[str]) -> "Intake":
        """An intake for these lines alone: until `join_branch` they take nothing from this one."""
        branch = Intake(
            (),
            hold_us=self._hold_us,
            snapshot_every=self._books.plan.every_updates,
            ask=lambda _: None,
            repair_us=self._repair_us,
            snapshot_every_ms=self._books.plan.every_ms,
            snapshot_levels=self._books.plan.levels,
        )
        branch.company, branch.dirty, branch.ledger = self.company, self.dirty, self.ledger
        branch.is_rehearing = True
        for name in names:
            branch.add(self.lines[name].stream, self.lines[name])
        branch._is_branch = True
        branch.missing.restore_sparse(self.missing.sparse())
        self._branch = branch
        return branch

    def drop_branch(self) -> None:
        """What the branch has put into its lines is of no use."""
        self._branch = None

    def join_branch(self, now_us: int) -> None:
        """The branch has heard all there is: its lines take what is heard here again."""
        branch, self._branch = self._branch, None
        if branch is not None:
            for deaf in branch.deafness.settle_by(self.deafness, branch.lines):
                branch._mark([deaf], deaf.to_us, self.lines[deaf.stream].resume_from)
            self.missing.take_over(branch.missing, now_us)

    def hear(
        self, frame: str | bytes, received_us: int, connection: int, offset: int
    ) -> str | Refusal | None:
        """Take one frame in. Returns the stream it belongs to, or the exchange's error, or None."""
        self.counts.frames += 1
        match parse(frame):
            case Data() as data:
                return self._hear_data(data, frame, received_us, connection, offset)
            case Refusal() as refusal:
                return refusal
            case Malformed(reason):
                self._quarantine("", reason, frame, received_us, offset)
            case Ack():
                pass
        return None

    def deafness_of(self, connection: int) -> Deafness:
        """Whoever follows this connection: negative numbers are not in the journal."""
        return self.unjournaled if connection < 0 else self.deafness

    def listeners(self, name: str) -> int:
        """How many connections listen to the stream."""
        return self.deafness.listeners(name) + self.unjournaled.listeners(name)

    def started(self, received_us: int, offset: int) -> None:
        """A process starts: the connections of the one before it are gone."""
        for connection in self.deafness.open_connections():
            self.lost(connection, NOT_RUNNING, received_us, offset)

    def opened(self, connection: int, names: Iterable[str]) -> None:
        """A connection was made, to hear these streams: the books that nobody followed begin
        anew.
        """
        known = [name for name in names if self._has_line(name)]
        for name in known:
            if not self.listeners(name):
                self._books.reset(name)
        self.deafness_of(connection).opened(connection, known)

    def changed(self, connection: int, names: Iterable[str], received_us: int, offset: int) -> None:
        """A connection is to hear these streams from now on."""
        known = [name for name in names if self._has_line(name)]
        silent, deaf = self.deafness_of(connection).changed(connection, known)
        self._mark(deaf, received_us, offset)
        self._fall_silent(silent, UNSUBSCRIBED)
        for name in silent:
            self._books.reset(name)

    def answered(
        self,
        connection: int,
        at_us: int,
        received_us: int,
        offset: int,
        unasked: Collection[str] = (),
        until_us: int | None = None,
    ) -> None:
        """The exchange has answered on a connection, at `at_us` by its own clock: it has the
        subscriptions, but for those that it was asked for later. `until_us`: see `Deafness`.
        """
        deafness = self.deafness_of(connection)
        new = [name for name in deafness.unanswered(connection) if name not in unasked]
        deaf = deafness.answered(connection, at_us, received_us, unasked, until_us)
        self._mark(deaf, received_us, offset)
        for name in new:
            if name in self._books:
                self._books.ask_for(name)

    def doubted(
        self, connection: int, name: str, since_us: int, received_us: int, offset: int
    ) -> None:
        """A connection has brought nothing of this stream since then, and should have."""
        silent, deaf = self.deafness_of(connection).doubted(connection, name, since_us)
        self._mark(deaf, received_us, offset)
        self._fall_silent(silent, SILENT)

    def lost(self, connection: int, cause: str, received_us: int, offset: int) -> None:
        """A connection is gone: what is missing next in streams that nobody else hears, is for
        that cause.
        """
        silent, deaf = self.deafness_of(connection).lost(connection, cause)
        self._mark(deaf, received_us, offset)
        self._fall_silent(silent, cause)

    def resume(
        self, marks: Mapping[str, int], received_us: int, offset: int, connection: int = 0
    ) -> None:
        """An earlier bridge has heard each stream up to its mark (µs). `connection` is negative for
        streams that the journal does not tell of.
        """
        self._mark(self.deafness_of(connection).resume(marks), received_us, offset)

    def rest_body(
        self, name: str, text: bytes, received_us: int, offset: int, what: str = ""
    ) -> Join | Reach:
        """A REST body: where a stream stands, placed exactly or to be asked for again; or trades
        that were missed. Raises BadBody where it is something else.
        """
        line = self.lines[name]
        if self.missing.follows(name):
            return self.missing.take_trades(name, text, received_us, offset, what)
        if what:
            self.missing.take_fills(line, text, received_us, offset, what)
            return Join.PLACED
        if name not in self._books:
            event = account_event(line.stream, text, received_us)
            self._put(line, unnumbered(event, received_us), offset)
            return Join.PLACED
        return self._books.take_body(name, line.stream.symbol, text, received_us, offset)

    def misses_book(self, name: str) -> bool:
        """Is it a depth stream whose book is not known?"""
        return self._books.misses(name)

    def ask_for_missing(self, now_us: int) -> None:
        """Ask for every book that is heard but not known, and for trades."""
        for name in self._books:
            if self.listeners(name):
                self._books.ask_anew(name)
        self.missing.ask(now_us)

    def redis_answered(self, line: Line, now_us: int) -> None:
        """Redis has settled or refused something of a line: take note of gaps, mend holes."""
        name = line.stream.name
        if self._branch is not None and self.is_away(name):
            self._branch.redis_answered(line, now_us)
            return
        if line.written_gaps:
            written, line.written_gaps = line.written_gaps, []
            for gap in written if name in self.lines else ():
                self._note(of_gap(line.stream, gap), gap.offset)
                self.missing.marked(name, gap.position)
        if not isinstance(line, NumberedLine):
            return
        if name in self._books:
            self._books.redis_answered(line, now_us, may_place=not self.is_rehearing)
        if not self.is_rehearing:
            self.missing.refused(line, now_us)

    def forget(self) -> None:
        """The journal tells everything anew: connections that it has, and books, begin empty."""
        self.deafness = Deafness()
        for name in self._books:
            self._books.reset(name)
        self.missing.forget()

    def overflowed(self, from_us: int, to_us: int, offset: int) -> None:
        """Public frames heard from then until then were given up; both are one moment where it was
        a single frame.
        """
        for name, line in self.lines.items():
            if isinstance(line, NumberedLine):
                self._fall_silent((name,), BUFFER_FULL)
            elif not line.stream.is_private and not self.is_away(name):
                line.put_gap(
                    from_us=from_us, to_us=to_us, cause=BUFFER_FULL, heard_us=to_us, offset=offset
                )
                self.dirty[name] = line

    def lacks(self, spans: Mapping[str, tuple[int, int]], cause: str, offset: int) -> None:
        """What was heard of these streams, received from then until then (µs), cannot be said any
        more. Of what Redis has lost, it has all that is older.
        """
        for name, (from_us, to_us) in spans.items():
            if not self._has_line(name):
                continue
            line = self.lines[name]
            if isinstance(line, NumberedLine):
                self._fall_silent((name,), cause)
            elif (begin_us := max(from_us - UNSURE_US, line.there_until_us)) < to_us:
                self._mark([Deaf(name, begin_us, to_us, cause)], to_us, offset)

    def hurry(self) -> None:
        """The bridge is stopping: nothing waits for a missing predecessor any more."""
        for line in self.lines.values():
            if isinstance(line, NumberedLine):
                line.hurry()

    def pending_bytes(self) -> int:
        """Memory that waits for Redis, roughly; streams that fail alone are bounded apart."""
        return sum(line.pending_bytes for line in self.every_line() if not line.parked)

    def bound(self, limit_bytes: int) -> None:
        """Give up the oldest of the largest line until the rest fits: public data first, account
        events last; whatever goes is counted and marked. A line that has nothing to give leaves it
        to the next.
        """
        self._bound(list(self.every_line()), limit_bytes)

    def bound_private(self, limit_bytes: int) -> None:
        """The same of private streams alone, whatever waits of the others."""
        private = [line for line in self.lines.values() if line.stream.is_private]
        self._bound(private, limit_bytes)

    def _bound(self, lines: Sequence[Line], limit_bytes: int) -> None:
        while True:
            going = [line for line in lines if line.pending and not line.parked]
            if sum(line.pending_bytes for line in going) <= limit_bytes:
                return
            going.sort(key=lambda line: (line.stream.is_private, -line.pending_bytes))
            if not any(line.drop_oldest(DROP_SHARE) > 0 for line in going):
                return

    def bound_parked(self, limit_bytes: int) -> None:
        """A stream that fails alone gives up its own oldest, never the room of the others."""
        for line in self.every_line():
            while line.parked and line.pending_bytes > limit_bytes:
                if line.drop_oldest(DROP_SHARE) <= 0:
                    break

    def every_line(self) -> Iterable[Line]:
        """All lines, the ledger's and the quarantine's too."""
        return chain(self.lines.values(), (self.ledger, self.quarantine))

    def restore_sparse(self, names: Iterable[str]) -> None:
        """Trade streams whose numbers turned out not to be dense at an earlier time."""
        self.missing.restore_sparse([name for name in names if self._has_line(name)])

    def _hear_data(
        self, data: Data, frame: str | bytes, received_us: int, connection: int, offset: int
    ) -> str | None:
        line = self.lines.get(data.stream)
        deafness = self.deafness_of(connection)
        ear = deafness.ears.get(connection)
        if line is None or ear is None:
            self._quarantine(data.stream, "a stream not subscribed to", frame, received_us, offset)
            return None
        if data.stream not in ear.streams:
            self.counts.unwanted += 1  # it was under way when this connection left the stream
            return None
        event = translate(line.stream, data, frame, received_us)
        if isinstance(event, Rejected):
            self._quarantine(data.stream, event.reason, frame, received_us, offset)
            return data.stream
        try:
            item = _item(line, event, received_us, ear, connection)
        except BadIdentity as fault:
            self._quarantine(data.stream, str(fault), frame, received_us, offset)
            return data.stream
        event_us = believable_us(event, received_us)
        if (found := deafness.heard(ear, data.stream, event_us, received_us)).deaf:
            self._mark(found.deaf, received_us, offset)
            self._fall_silent(found.unheard, SILENT)
        if deafness.overlaps and self._is_double(line, item, deafness):
            line.counters.doubles += 1
            return data.stream
        if isinstance(event, Trade):
            self.missing.hear(data.stream, item, is_rehearing=self.is_rehearing)
        self._put(line, item, offset)
        self.counts.unknown_fields += bool(event.__pydantic_extra__)
        self.last_event_us[data.stream] = event_us
        if isinstance(event, Depth):
            self._books.hear(
                data.stream, event, received_us, offset, self._patience_us(data.stream)
            )
        return data.stream

    def _is_double(self, line: Line, item: Item, deafness: Deafness) -> bool:
        if not deafness.ends_overlap(item.heard_us):
            return not self.is_away(line.stream.name) and line.knows(item)
        other = self.unjournaled if deafness is self.deafness else self.deafness
        for name, each in self.lines.items():
            if not (other.listeners(name) or self.is_away(name)):
                each.forget_heard()
        return False

    def _patience_us(self, name: str) -> int | None:
        """How long what one connection has missed may come over another; None: there is none."""
        if not self.deafness.overlaps:
            return None
        return self._hold_us if self.listeners(name) > 1 else 0

    def _takes(self, line: Line, offset: int) -> bool:
        """Is what the journal has at this offset still to be put into the line, and from here?"""
        return offset >= line.resume_from and not self.is_away(line.stream.name)

    def is_away(self, name: str) -> bool:
        """Does the line take from the branch, not from here?"""
        return self._branch is not None and name in self._branch.lines

    def _put(self, line: Line, item: Item, offset: int) -> None:
        if not self._takes(line, offset):
            return
        item.offset = offset
        line.put(item)
        self.dirty[line.stream.name] = line

    def _mark(self, intervals: Iterable[Deaf], received_us: int, offset: int) -> None:
        for name, from_us, to_us, cause in intervals:
            line = self.lines.get(name)
            if isinstance(line, UnnumberedLine) and self._takes(line, offset):
                line.put_gap(
                    from_us=from_us, to_us=to_us, cause=cause, heard_us=received_us, offset=offset
                )
                self.dirty[name] = line
            if line is not None and line.stream.type is StreamType.ORDER_UPDATE:
                self.missing.deaf(name, from_us, to_us)

    def _fall_silent(self, names: Iterable[str], cause: str) -> None:
        for name in names:
            line = self.lines[name]
            if isinstance(line, NumberedLine) and not self.is_away(name):
                line.disconnected(cause)
            self.missing.disconnected(name, cause)

    def _has_line(self, name: str) -> bool:
        """Make one where there is none: a journal may tell of streams that are wanted no more."""
        if name not in self.lines:
            if self._is_branch:
                return False
            try:
                self.add(parse_stream(name))
            except BadStreamName:
                return False
        return True

    def _ask(self, name: str) -> bool:
        if self.is_rehearing:
            return False
        self._ask_rest(name)
        return True

    def _put_missing(self, line: Line, items: Sequence[Item], offset: int) -> bool:
        if not self._takes(line, offset):
            return False
        for item in items:
            item.offset = offset
        line.put_missing(items)
        self.dirty[line.stream.name] = line
        return True

    def _note(self, record: Item, offset: int) -> None:
        """A line of the ledger; it may be there from an earlier hearing."""
        if offset >= self.ledger.resume_from:
            record.offset = offset
            self.ledger.put_missing([record])
            self.dirty[self.ledger.stream.name] = self.ledger

    def _quarantine(
        self, stream: str, reason: str, frame: str | bytes, received_us: int, offset: int
    ) -> None:
        if self._is_branch:
            return  # it was there when it was heard first
        raw = frame if isinstance(frame, str) else frame.decode(errors="backslashreplace")
        event = Quarantined(
            stream=stream[:256], reason=reason, raw=raw[:MAX_RAW], received_us=received_us
        )
        self._put(self.quarantine, unnumbered(event, received_us), offset)
        self.counts.quarantined += 1


def _item(line: Line, event: Event, received_us: int, ear: Ear, connection: int) -> Item:
    if isinstance(line, NumberedLine):
        item = numbered(event, received_us)  # type: ignore[arg-type]  # by the stream's type
    else:
        twins = ear.twins if line.stream.identity is Identity.EVENTS else None
        item = unnumbered(event, received_us, twins)
    item.connection = connection
    return item


def _leave_as_it_is(line: Line) -> None:
    """A new line needs nothing."""


def stream_lines(names: Iterable[str]) -> Mapping[str, Stream]:
    """Streams by name, in order."""
    return {name: parse_stream(name) for name in names}
