"""What is heard goes through here: into the journal first, then into the lines.

Normally (live) both happen at once. When more waits for Redis than memory may hold, at the start,
and after Redis has lost entries, what is heard goes into the journal only, and `catch_up` reads the
journal from the place that is settled and hears it again, as fast as Redis takes it, until it has
reached the end: then live again. The lines get the same calls in the same order either way.

A journal that cannot be written (disk full) is said loudly and done without: memory is then bounded
by giving up the oldest, marked as gaps.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import structlog

from bridge.contract.identity import EMPTY
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.player import Player
from bridge.journal.record import Kind, Record, read, render, render_frame
from bridge.journal.segments import SegmentWriter, WriteFailed, list_segments, read_lines
from bridge.pipeline.book import Join
from bridge.pipeline.intake import Intake, Line
from bridge.protocol.envelope import Data, Refusal, parse

log = structlog.get_logger(__name__)

LOW_SHARE = 2  # catching up goes on while less than 1/2 of the memory waits
PARKED_SHARE = 16  # of the memory, for each stream that fails alone
BOUND_EVERY = 256  # frames between two looks at the memory
TWINS_BYTES = 1024 * 1024  # of the journal before the settled place that are heard for their counts
PRIVATE_STREAM = b'"stream":"account.'
NOTHING = Record(0, Kind.STATE, 0, b"{}")


class Hearing:
    """The one way into an intake. Times in µs; `on_items` runs after something was put."""

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
        self.writer: SegmentWriter | None = None
        self.trouble = ""  # why nothing can be journaled just now
        self._buffer_bytes = buffer_bytes
        self._private = (
            frozenset()
            if keep_private
            else frozenset(name for name, line in intake.lines.items() if line.stream.is_private)
        )
        self._unjournaled: set[int] = set()
        self._clock_us = clock_us
        self._on_items = on_items
        self._open: dict[int, Sequence[str]] = {}  # connections, as the feed knows them now
        self._connection = 0
        self._behind: int | None = None  # catching up: the offset to read next
        self._player = Player(intake)
        self._sync_each_flush = False
        self._target = ""
        self._broken: SegmentWriter | None = None
        self._held: deque[Record] = deque()  # behind, and the journal cannot be written
        self._held_bytes = 0

    # ---- what the feed says -------------------------------------------------------------------

    def opened(self, name: str, streams: Sequence[str]) -> int:
        """A connection was made; returns its number."""
        self._connection += 1
        number = self._connection
        if self._private and any(stream in self._private for stream in streams):
            number = -number  # the journal can say nothing about it
            self._unjournaled.add(number)
        else:
            self._open[number] = streams
        body = json.dumps({"name": name, "streams": list(streams)}, separators=(",", ":"))
        self._take(Record(self._clock_us(), Kind.OPENED, number, body.encode()))
        return number

    def answered(self, connection: int) -> None:
        """The exchange has the connection's subscription."""
        self._take(Record(self._clock_us(), Kind.ANSWERED, connection, b""))

    def lost(self, connection: int, cause: str) -> None:
        """The connection is gone."""
        self._open.pop(connection, None)
        body = json.dumps({"cause": cause}).encode()
        self._take(Record(self._clock_us(), Kind.LOST, connection, body))

    def hear(self, frame: str | bytes, received_us: int, connection: int) -> str | Refusal | None:
        """A frame came. Returns its stream, or the exchange's error, or None."""
        if connection in self._unjournaled:
            heard = self.intake.hear(frame, received_us, connection, self._end())
        elif self.writer is not None:
            offset = self.writer.append(render_frame(received_us, connection, frame))
            if self._behind is not None:
                return _stream_of(frame)
            heard = self.intake.hear(frame, received_us, connection, offset)
        elif self._behind is None:
            heard = self.intake.hear(frame, received_us, connection, self._end())
        else:
            raw = frame.encode() if isinstance(frame, str) else frame
            self._hold(Record(received_us, Kind.FRAME, connection, raw))
            return _stream_of(frame)
        if self.intake.counts.frames % BOUND_EVERY == 0:
            self._bound()
        self._on_items()
        return heard

    def resume(self, marks: Mapping[str, int]) -> None:
        """An earlier bridge's heard marks were read from Redis."""
        body = json.dumps(dict(marks), separators=(",", ":")).encode()
        self._take(Record(self._clock_us(), Kind.MARKS, 0, body))

    def rest_body(self, name: str, text: bytes) -> Join:
        """A REST body of where a stream stands. Raises BadBody, or says to ask again."""
        body = name.encode() + b" " + text.replace(b"\n", b" ")
        joined = self._take(Record(self._clock_us(), Kind.REST, 0, body))
        return joined or Join.AHEAD

    def heard(self, name: str) -> int:
        """How many messages of a stream were heard, ever."""
        return self.intake.lines[name].heard

    # ---- the journal ---------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        return self._behind is None

    def behind_bytes(self) -> int:
        """How much of the journal is still to be heard again."""
        return 0 if self._behind is None else self._end() - self._behind

    def recorded_bytes(self) -> int:
        """Where the journal ends."""
        return self._end()

    def flush(self) -> None:
        """Before anything is published: what it came from is with the operating system."""
        if self.writer is None:
            return
        try:
            self.writer.flush()
            if self._sync_each_flush:
                self.writer.sync()
        except OSError as error:
            self._go_on_without(error)

    def attach(self, writer: SegmentWriter, *, sync_each_flush: bool) -> None:
        """From now on there is a journal."""
        self.writer = writer
        self._sync_each_flush = sync_each_flush
        writer.head = self.state

    def begin(self, checkpoint: Checkpoint | None, target: str) -> None:
        """A process starts: go on from where an earlier one was. Before anything else is said.

        `target` names the Redis and prefix that is published to. A checkpoint of another says
        nothing of this one, and what was heard for that one is not published here.
        """
        if self.writer is None:
            return
        self._target = target
        end = self.writer.end
        if checkpoint is not None and checkpoint.target != target:
            log.warning("journal_other_redis", journal_is_of=checkpoint.target, now=target)
            checkpoint = Checkpoint(end, target)
        self._take(Record(self._clock_us(), Kind.STARTED, 0, b""))
        offset = min(checkpoint.offset if checkpoint else self._oldest(), end)
        for name, line in self._lines():
            line.resume_from = offset
            if checkpoint:
                line.confirmed = checkpoint.confirmed.get(name, EMPTY)
                line.resume_from = min(offset, checkpoint.parked.get(name, offset))
        self._read_from(min(line.resume_from for _, line in self._lines()))

    def refill(self) -> None:
        """Redis lost entries of some streams: hear the journal again for these, if there is one."""
        lost = {name for name, line in self._lines() if line.lost_at is not None}
        for name, line in self._lines():
            if name in lost:
                log.error("redis_lost_entries", stream=name, redis_has=line.lost_at,
                          acknowledged=line.confirmed, journal=self.writer is not None)  # fmt: skip
                self.intake.dirty[name] = line
        self.flush()
        if self.writer is None:
            for name in lost:
                self._line(name).accept_loss()
            return
        oldest = self._oldest()
        oldest_us = next((record.received_us for _, record in self._records(oldest)), 0)
        for name, line in self._lines():
            if name not in self._private:
                line.rewind(oldest if name in lost else self._settled(line), oldest_us)
            elif name in lost:
                line.accept_loss()  # it was never in the journal
        self._read_from(oldest)

    def catch_up(self, limit: int) -> bool:
        """Hear up to `limit` records again; False where there is nothing to do just now."""
        if self._behind is None:
            return False
        self.flush()
        if self.intake.pending_bytes() > self._buffer_bytes // LOW_SHARE:
            return False
        self._pass_over(self._oldest())
        for following, record in islice(self._records(self._behind), limit):
            self._player.apply(record, self._behind, strict=False)
            self._behind = following
        if self._behind >= self._end():
            self._live_again()
        self._on_items()
        return True

    def give_up(self, until: int) -> None:
        """The journal must make room: what stands before `until` and is not heard yet goes.

        Account events last: they are heard now, whatever waits. The rest is marked.
        """
        if self._behind is not None:
            self._pass_over(until)

    def checkpoint(self) -> Checkpoint:
        """Up to where everything is settled, for the next start."""
        lines = list(self._lines())
        return Checkpoint(
            min((self._settled(line) for _, line in lines if not line.parked), default=self._end()),
            self._target,
            {name: line.confirmed for name, line in lines if line.confirmed != EMPTY},
            {name: self._settled(line) for name, line in lines if line.parked},
        )

    def state(self) -> bytes:
        """The line that a new segment begins with: what must be known to begin reading there."""
        facts = {
            "connections": {str(number): list(names) for number, names in self._open.items()},
            "deafness": self.intake.deafness.state() if self._behind is None else {},
        }
        body = json.dumps(facts, separators=(",", ":")).encode()
        return render(self._clock_us(), Kind.STATE, 0, body)

    def mend(self) -> None:
        """After a failure: try whether the journal can be written again."""
        if self._broken is None:
            return
        try:
            self._broken.append(self.state())
            self._broken.flush()
        except OSError:
            return
        self.writer, self._broken, self.trouble = self._broken, None, ""
        log.info("journal_mended")

    def close(self) -> None:
        """Write what is left and close the files."""
        self.flush()
        if self.writer is not None:
            self.writer.close()

    # ---- inside --------------------------------------------------------------------------------

    def _lines(self) -> Iterator[tuple[str, Line]]:
        for line in self.intake.every_line():
            yield line.stream.name, line

    def _line(self, name: str) -> Line:
        return self.intake.lines.get(name, self.intake.quarantine)

    def _end(self) -> int:
        writer = self.writer or self._broken
        return writer.end if writer else 0

    def _settled(self, line: Line) -> int:
        """From which offset on a line would have to be heard again if memory were lost now."""
        reading = self._end() if self._behind is None else self._behind
        oldest = line.oldest_offset()
        return reading if oldest is None else min(oldest, reading)

    def _oldest(self) -> int:
        writer = self.writer or self._broken
        segments = list_segments(writer.folder) if writer else []
        return segments[0].start if segments else 0

    def _records(self, offset: int) -> Iterator[tuple[int, Record]]:
        writer = self.writer or self._broken
        assert writer is not None
        for following, line in read_lines(writer.folder, offset):
            record = read(line)
            if record is None:
                self._player.damaged += 1
                record = NOTHING
            yield following, record

    def _read_from(self, offset: int) -> None:
        """Catch up from here; begin at a segment's start, where connections are known, and early
        enough that twins of what was settled last are counted.
        """
        writer = self.writer
        assert writer is not None
        starts = [segment.start for segment in list_segments(writer.folder)]
        early = max(0, offset - TWINS_BYTES)
        self._behind = max((start for start in starts if start <= early), default=starts[0])
        for name, line in self._lines():
            if name not in self._private:
                line.hear_again()
        self._player.begin()
        self.intake.forget(keep=self._unjournaled)

    def _live_again(self) -> None:
        self._behind = None
        for _, line in self._lines():
            line.caught_up()
        held, self._held = self._held, deque()
        self._held_bytes = 0
        for record in held:
            self._player.apply(record, self._end(), strict=False)
        self.intake.want_missing_books()
        log.info("journal_caught_up", damaged_lines=self.damaged_lines)

    @property
    def damaged_lines(self) -> int:
        """Lines and records of the journal that could not be made sense of."""
        return self._player.damaged

    def _pass_over(self, until: int) -> None:
        """Go on reading at `until`; what is left out is marked where no numbers tell."""
        if self._behind is None or until <= self._behind:
            return
        first_us = last_us = passed = 0
        for following, record in self._records(self._behind):
            if self._behind >= until:
                break
            is_public = record.kind is Kind.FRAME and PRIVATE_STREAM not in record.body
            if is_public:
                first_us = first_us or record.received_us
                last_us = max(last_us, record.received_us)
                passed += 1
            else:
                self._player.apply(record, self._behind, strict=False)
            self._behind = following
        self._behind = max(self._behind, until)
        if passed:
            log.error("journal_gave_up_oldest", frames=passed)
            self.intake.overflowed(first_us, last_us, self._behind)

    def _go_on_without(self, error: OSError) -> None:
        """Publishing goes on without the net. Behind, what was not written is kept in memory."""
        log.error("journal_failed", reason=error.strerror or str(error))
        self.trouble = f"cannot write the journal: {error.strerror or error}"
        self._broken, self.writer = self.writer, None
        if self._behind is not None and isinstance(error, WriteFailed):
            for line in error.lines:
                if (record := read(line.rstrip(b"\n"))) is not None:
                    self._hold(record)

    def _bound(self) -> None:
        """More waits than memory may hold: leave it to the journal, or give up the oldest."""
        self.intake.bound_parked(self._buffer_bytes // PARKED_SHARE)
        if self._behind is not None or self.intake.pending_bytes() <= self._buffer_bytes:
            return
        if self.writer is None:
            self.intake.bound(self._buffer_bytes)
            return
        self.flush()
        self._behind = self._end()
        log.warning("journal_takes_over", pending_bytes=self.intake.pending_bytes())

    def _take(self, record: Record) -> Join | None:
        """Journal one of the rare records, then apply it unless catching up."""
        offset = self._end()
        if self.writer is not None and record.connection not in self._unjournaled:
            line = render(record.received_us, record.kind, record.connection, record.body)
            offset = self.writer.append(line)
            if self._behind is not None:
                return None
        elif self._behind is not None and record.connection not in self._unjournaled:
            self._hold(record)
            return None
        joined = self._player.apply(record, offset, strict=True)
        self._on_items()
        return joined

    def _hold(self, record: Record) -> None:
        """Behind, and the journal cannot be written: keep it in memory until the end is reached."""
        self._held.append(record)
        self._held_bytes += len(record.body)
        if self._held_bytes > self._buffer_bytes // LOW_SHARE:
            self._pass_over(self._end())
            self._live_again()


def _stream_of(frame: str | bytes) -> str | Refusal | None:
    match parse(frame):
        case Data(stream):
            return stream
        case Refusal() as refusal:
            return refusal
        case _:
            return None
