"""What is heard goes through here: into the journal first, then into the lines.

Normally (live) both happen at once. When more waits for Redis than memory may hold, at the start,
and after Redis has lost entries, it goes into the journal only, and is heard from there
(`rehearing`).

A journal that cannot be written is done without: memory is then bounded by giving up the oldest,
marked as gaps.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import structlog

from bridge.contract.streams import is_private
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.journal import Journal
from bridge.journal.record import (
    Answer,
    Kind,
    Record,
    render,
    render_answer,
    render_frame,
    render_record,
)
from bridge.journal.rehearing import PARKED_SHARE, Rehearing
from bridge.journal.segments import SegmentWriter
from bridge.pipeline.book import Join
from bridge.pipeline.intake import Intake
from bridge.pipeline.trade_holes import Reach
from bridge.protocol.envelope import Data, Refusal, parse

log = structlog.get_logger(__name__)

BOUND_EVERY = 256  # frames between two looks at the memory


class Hearing:
    """The one way into an intake. Times in µs; `on_items` runs after something was put.

    Connections whose numbers are negative are not in the journal, nor is anything heard on them.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        buffer_bytes: int,
        keep_private: bool,
        clock_us: Callable[[], int],
        on_items: Callable[[], None],
    ) -> None:
        self.intake = intake
        self.journal = Journal()
        self._buffer_bytes = buffer_bytes
        self._keep_private = keep_private
        self.rehearing = Rehearing(
            intake, self.journal, buffer_bytes, clock_us, keep_private=keep_private
        )
        self._clock_us = clock_us
        self._on_items = on_items
        # connections as the feed knows them now: since when each stream is listened to, or 0
        self._open: dict[int, dict[str, int]] = {}
        self._connection = 0

    # ---- what the feed says -------------------------------------------------------------------

    def opened(self, name: str, streams: Sequence[str]) -> int:
        """A connection was made; returns its number."""
        self._connection += 1
        number = self._connection
        if not self._keep_private and any(map(is_private, streams)):
            number = -number
        else:
            self._open[number] = dict.fromkeys(streams, 0)
        body = json.dumps({"name": name, "streams": list(streams)}, separators=(",", ":"))
        self._take(Record(self._clock_us(), Kind.OPENED, number, body.encode()))
        return number

    def changed(self, connection: int, streams: Sequence[str]) -> None:
        """The connection is to hear these streams from now on."""
        if (known := self._open.get(connection)) is not None:
            self._open[connection] = {name: known.get(name, 0) for name in streams}
        body = json.dumps({"streams": list(streams)}, separators=(",", ":")).encode()
        self._take(Record(self._clock_us(), Kind.CHANGED, connection, body))

    def answered(
        self,
        connection: int,
        at_us: int,
        unasked: Sequence[str] = (),
        until_us: int | None = None,
    ) -> None:
        """The exchange has answered on the connection, at `at_us` by its own clock: it has what was
        subscribed to before it was asked, which is all but `unasked`. `until_us`: when it was
        asked, which matters where the answer took long; 0: it did not answer.
        """
        for name, since_us in self._open.get(connection, {}).items():
            if name not in unasked:
                self._open[connection][name] = since_us or at_us
        body = render_answer(Answer(at_us, unasked, until_us))
        self._take(Record(self._clock_us(), Kind.ANSWERED, connection, body))

    def doubted(self, connection: int, stream: str, since_us: int) -> None:
        """A stream that should speak has been silent on the connection since then (the exchange's
        time; 0: since it was answered). It counts as listened to again with the next answer.
        """
        if stream in self._open.get(connection, {}):
            self._open[connection][stream] = 0
        body = json.dumps({"stream": stream, "since_us": since_us}, separators=(",", ":")).encode()
        self._take(Record(self._clock_us(), Kind.DOUBTED, connection, body))

    def may_leave(self, connection: int) -> bool:
        """Would the end of this connection leave no deafness, as far as is known just now?"""
        return not self.is_live or self.intake.deafness_of(connection).may_leave(connection)

    def leaving(self, connection: int) -> None:
        """The connection is about to be closed: no other may leave because of it."""
        self.intake.deafness_of(connection).leaving(connection)

    def lost(self, connection: int, cause: str) -> None:
        """The connection is gone."""
        self._open.pop(connection, None)
        body = json.dumps({"cause": cause}).encode()
        self._take(Record(self._clock_us(), Kind.LOST, connection, body))

    def hear(self, frame: str | bytes, received_us: int, connection: int) -> str | Refusal | None:
        """A frame came. Returns its stream, or the exchange's error, or None."""
        if connection < 0:
            heard = self.intake.hear(frame, received_us, connection, self.journal.end)
        elif self.journal.writer is not None:
            offset = self.journal.writer.append(render_frame(received_us, connection, frame))
            if not self.is_live:
                return _stream_of(frame)
            heard = self.intake.hear(frame, received_us, connection, offset)
        else:
            if self.journal.is_broken:
                raw = frame.encode(errors="surrogatepass") if isinstance(frame, str) else frame
                self.rehearing.hold(Record(received_us, Kind.FRAME, connection, raw))
            if not self.is_live:
                return _stream_of(frame)
            heard = self.intake.hear(frame, received_us, connection, self.journal.end)
        if self.intake.counts.frames % BOUND_EVERY == 0:
            self._bound()
        self._on_items()
        return heard

    def resume(self, marks: Mapping[str, int]) -> None:
        """An earlier bridge's heard marks were read from Redis."""
        apart = {} if self._keep_private else {
            name: us for name, us in marks.items() if is_private(name)
        }  # fmt: skip
        journaled = {name: us for name, us in marks.items() if name not in apart}
        for connection, those in ((0, journaled), (-1, apart)):
            body = json.dumps(those, separators=(",", ":")).encode()
            self._take(Record(self._clock_us(), Kind.MARKS, connection, body))

    def rest_body(self, name: str, text: bytes, what: str = "") -> Join | Reach | None:
        """A REST body about a stream. Raises BadBody, or says whether to ask again. None: it is in
        the journal, and what it means will be known later.
        """
        place = f"{name}/{what}" if what else name
        body = place.encode() + b" " + text.replace(b"\n", b" ")
        journaled = self._keep_private or not is_private(name)
        return self._take(Record(self._clock_us(), Kind.REST, 0 if journaled else -1, body))

    def missing_fills(self, name: str) -> tuple[int, int] | None:
        """From when to when (µs) fills of this order stream may be missing; None: none are."""
        return self.intake.missing.fills_wanted(name)

    def missing_trades(self, name: str) -> int | None:
        """How many of its newest trades are needed to mend a stream; None where it is whole."""
        return self.intake.missing.trades_wanted(name, self._clock_us())

    def misses_book(self, name: str) -> bool:
        """Is the book of this depth stream not known, so that it has to be asked for?"""
        return self.is_wanted(name) and self.intake.misses_book(name)

    def is_wanted(self, name: str) -> bool:
        """Is there a connection that is to hear this stream, as the feed knows them now?"""
        is_journaled = any(name in streams for streams in self._open.values())
        return is_journaled or self.intake.unjournaled.is_wanted(name)

    def heard(self, name: str) -> int:
        """How many messages of a stream were heard, ever."""
        return self.intake.lines[name].heard

    # ---- the journal ---------------------------------------------------------------------------

    def attach(self, writer: SegmentWriter, *, sync_each_flush: bool) -> None:
        """From now on there is a journal."""
        self.journal.attach(writer, sync_each_flush=sync_each_flush)
        writer.head = self.state

    def begin(self, checkpoint: Checkpoint | None, target: str) -> None:
        """A process starts, as `Rehearing.begin` says. Before anything else is said."""
        if self.journal.writer is None:
            return
        self._take(Record(self._clock_us(), Kind.STARTED, 0, b""))
        self.rehearing.begin(checkpoint, target)

    def begin_without(self, trouble: str) -> None:
        """A process starts, and its journal cannot be opened: `begin_late` comes when it can."""
        self.journal.await_writer(trouble)
        self._take(Record(self._clock_us(), Kind.STARTED, 0, b""))

    def begin_late(self, checkpoint: Checkpoint | None, target: str) -> None:
        """The journal could be opened at last, and is attached; with `mend` it is written again."""
        self.rehearing.begin_late(checkpoint, target)

    def waiting_unjournaled(self) -> int:
        """How many entries wait for Redis that the journal says nothing of."""
        lines, holes = self.intake.lines.values(), set(self.journal.holes)
        return sum(
            len(line.pending)
            if line.stream.is_private and not self._keep_private
            else sum(item.offset in holes for item in line.pending)
            for line in lines
        )

    @property
    def is_live(self) -> bool:
        return self.rehearing.behind is None

    def behind_bytes(self) -> int:
        """How much of the journal is still to be heard again."""
        behind = self.rehearing.behind
        return 0 if behind is None else self.journal.end - behind

    def catch_up(self, limit: int) -> bool:
        """Hear up to `limit` records again; False where there is nothing to do just now."""
        did_something = self.rehearing.catch_up(limit)
        if did_something:
            self._on_items()
        return did_something

    def state(self) -> bytes:
        """The line that a new segment begins with: what must be known to begin reading there."""
        facts = {
            "connections": {str(number): since for number, since in self._open.items()},
            "deafness": self.intake.deafness.state() if self.is_live else {},
            "sparse": self.intake.missing.sparse(),
        }
        body = json.dumps(facts, separators=(",", ":")).encode()
        return render(self._clock_us(), Kind.STATE, 0, body)

    def mend(self) -> None:
        """After a failure: try whether the journal can be written again."""
        if self.journal.is_broken:
            unwritten = self.journal.unwritten.lines(self._clock_us())
            self.rehearing.mend([self.state(), *unwritten])

    # ---- inside --------------------------------------------------------------------------------

    def _bound(self) -> None:
        """More waits than memory may hold: leave it to the journal, or give up the oldest."""
        self.intake.bound_parked(self._buffer_bytes // PARKED_SHARE)
        if not self.is_live:
            if not self._keep_private:
                self.intake.bound_private(self._buffer_bytes)  # no journal has them
            return
        if self.intake.pending_bytes() <= self._buffer_bytes:
            return
        if self.journal.writer is None:
            self.intake.bound(self._buffer_bytes)
            return
        self.rehearing.take_over()
        log.warning("journal_takes_over", pending_bytes=self.intake.pending_bytes())

    def _take(self, record: Record) -> Join | Reach | None:
        """Journal one of the rare records, then apply it unless catching up."""
        offset = self.journal.end
        if record.connection >= 0:
            if self.journal.writer is not None:
                offset = self.journal.writer.append(render_record(record))
            elif self.journal.is_broken:
                self.rehearing.hold(record)
            if not self.is_live:
                return None
        joined = self.rehearing.player.apply(record, offset, strict=True)
        self._on_items()
        return joined


def _stream_of(frame: str | bytes) -> str | Refusal | None:
    match parse(frame):
        case Data(stream):
            return stream
        case Refusal() as refusal:
            return refusal
        case _:
            return None
