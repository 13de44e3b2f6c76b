"""Where frames become items in their stream's line (pure: time is an argument).

    frame → envelope → event → item → line        bad ones → quarantine line

It also follows each depth stream's book, to place snapshots, and bounds the memory of all lines.
It knows neither sockets nor Redis: the feed hands frames in, the publisher takes items out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bridge.contract.events import Depth, DepthSnapshot, Event, Level, Quarantined
from bridge.contract.identity import BadIdentity, believable_us
from bridge.contract.streams import Identity, Stream, StreamType, parse_stream
from bridge.pipeline.book import DepthBook, Join
from bridge.pipeline.items import Twins, numbered, snapshot, unnumbered
from bridge.pipeline.numbered import NumberedLine
from bridge.pipeline.translate import Rejected, translate
from bridge.pipeline.unnumbered import UnnumberedLine
from bridge.protocol.envelope import Ack, Data, Malformed, Refusal, parse

QUARANTINE_KEY = "bridge:quarantine"
MAX_RAW = 65_536  # characters of a refused frame that are kept
DROP_SHARE = 10  # a full buffer gives up a tenth of its largest line at a time
BOUND_EVERY = 256  # frames between two looks at the bound

Line = NumberedLine | UnnumberedLine


@dataclass(slots=True)
class Hearing:
    """One connection's ear: what only makes sense within one connection.

    `newest_us` is the exchange's own newest time heard on it: up to there it has heard everything.
    """

    twins: Twins = field(default_factory=Twins)
    newest_us: int = 0


@dataclass(slots=True)
class Counts:
    """What was heard, of all connections."""

    frames: int = 0
    quarantined: int = 0
    unknown_fields: int = 0


class Intake:
    """All lines of one bridge.

    `want_snapshot(name)` is called when a depth stream needs a REST snapshot.
    """

    def __init__(
        self,
        streams: Iterable[Stream],
        *,
        hold_us: int,
        snapshot_every: int,
        buffer_bytes: int,
        want_snapshot: Callable[[str], None],
    ) -> None:
        self.lines: dict[str, Line] = {}
        self.dirty: dict[str, Line] = {}  # lines with something waiting, in order of hearing
        self.counts = Counts()
        self.last_event_us: dict[str, int] = {}
        self._books: dict[str, DepthBook] = {}
        self._want_snapshot = want_snapshot
        self._buffer_bytes = buffer_bytes
        for stream in streams:
            self.lines[stream.name] = (
                NumberedLine(stream, hold_us)
                if stream.identity is Identity.NUMBERED
                else UnnumberedLine(stream)
            )
            if stream.type is StreamType.DEPTH:
                self._books[stream.name] = DepthBook(snapshot_every)
        self.quarantine = UnnumberedLine(Stream(QUARANTINE_KEY, StreamType.LIQUIDATION))

    def hear(self, frame: str | bytes, received_us: int, ear: Hearing) -> str | Refusal | None:
        """Take one frame in. Returns the stream it belongs to, or the exchange's error, or None."""
        self.counts.frames += 1
        if self.counts.frames % BOUND_EVERY == 0:
            self._bound()
        match parse(frame):
            case Data() as data:
                return self._hear_data(data, frame, received_us, ear)
            case Refusal() as refusal:
                return refusal
            case Malformed(reason):
                self._quarantine("", reason, frame, received_us)
            case Ack():
                pass
        return None

    def subscribed(self, names: Iterable[str]) -> None:
        """A connection (re)subscribed to these streams: books begin anew."""
        for name in names:
            if name in self._books:
                self._books[name].reset()

    def lost(self, names: Iterable[str], cause: str) -> None:
        """A connection is gone: what is missing next in its streams, is for that cause."""
        for name in names:
            line = self.lines[name]
            if isinstance(line, NumberedLine):
                line.disconnected(cause)

    def deaf(self, name: str, *, from_us: int, to_us: int, cause: str) -> None:
        """Nobody listened to an unnumbered stream from `from_us` until `to_us`."""
        line = self.lines[name]
        if isinstance(line, UnnumberedLine) and to_us > from_us:
            line.put_gap(from_us=from_us, to_us=to_us, cause=cause)
            self.dirty[name] = line

    def depth_body(
        self, name: str, update_id: int, bids: list[Level], asks: list[Level], received_us: int
    ) -> Join:
        """A REST depth body came: join it with the deltas heard; placed at once where possible."""
        joined = self._books[name].join(update_id, bids, asks)
        if joined is Join.PLACED:
            self._place_snapshot(name, received_us, believable_ms=0)
        return joined

    def put_own(self, name: str, event: Event, received_us: int) -> None:
        """An entry of the bridge's own in an unnumbered stream (an account snapshot)."""
        self._put(name, self.lines[name], event, received_us, None)

    def hurry(self) -> None:
        """The bridge is stopping: nothing waits for a missing predecessor any more."""
        for line in self.lines.values():
            if isinstance(line, NumberedLine):
                line.hurry()

    def pending_bytes(self) -> int:
        """Memory that waits for Redis, roughly."""
        waiting = sum(line.pending_bytes for line in self.lines.values())
        return waiting + self.quarantine.pending_bytes

    def _hear_data(
        self, data: Data, frame: str | bytes, received_us: int, ear: Hearing
    ) -> str | None:
        line = self.lines.get(data.stream)
        if line is None:
            self._quarantine(data.stream, "a stream not subscribed to", frame, received_us)
            return None
        event = translate(line.stream, data, frame, received_us)
        if isinstance(event, Rejected):
            self._quarantine(data.stream, event.reason, frame, received_us)
            return data.stream
        try:
            self._put(data.stream, line, event, received_us, ear.twins)
        except BadIdentity as fault:
            self._quarantine(data.stream, str(fault), frame, received_us)
            return data.stream
        if event.__pydantic_extra__:
            self.counts.unknown_fields += 1
        event_us = believable_us(event, received_us)
        ear.newest_us = max(ear.newest_us, event_us)
        self.last_event_us[data.stream] = event_us
        if isinstance(event, Depth):
            self._follow_book(data.stream, event, received_us)
        return data.stream

    def _put(
        self, name: str, line: Line, event: Event, received_us: int, twins: Twins | None
    ) -> None:
        if isinstance(line, NumberedLine):
            line.put(numbered(event, received_us))  # type: ignore[arg-type]  # by stream type
        elif line.stream.identity is Identity.EVENTS:
            line.put(unnumbered(event, received_us, twins))
        else:
            line.put(unnumbered(event, received_us))
        self.dirty[name] = line

    def _follow_book(self, name: str, delta: Depth, received_us: int) -> None:
        book = self._books[name]
        was_joined, was_at = book.joined, book.position
        joined = book.hear(delta)
        ms = believable_us(delta, received_us) // 1000
        if joined is Join.PLACED or book.crosses(delta):
            self._place_snapshot(name, received_us, believable_ms=ms)
        elif joined is Join.TOO_OLD or was_at == 0 or (was_joined and not book.joined):
            self._want_snapshot(name)

    def _place_snapshot(self, name: str, received_us: int, *, believable_ms: int) -> None:
        book, line = self._books[name], self.lines[name]
        bids, asks = book.levels()
        event = DepthSnapshot(
            symbol=line.stream.symbol,
            update_id=book.position,
            rest_update_id=book.rest_update_id or None,
            bids=bids,
            asks=asks,
            received_us=received_us,
        )
        book.rest_update_id = 0
        line.put(snapshot(event, believable_ms))
        self.dirty[name] = line

    def _quarantine(self, stream: str, reason: str, frame: str | bytes, received_us: int) -> None:
        raw = frame if isinstance(frame, str) else frame.decode(errors="backslashreplace")
        event = Quarantined(
            stream=stream[:256], reason=reason, raw=raw[:MAX_RAW], received_us=received_us
        )
        self.quarantine.put(unnumbered(event, received_us))
        self.dirty[QUARANTINE_KEY] = self.quarantine
        self.counts.quarantined += 1

    def _bound(self) -> None:
        """Full: the oldest of the largest line goes first, account events last; all is marked."""
        while self.pending_bytes() > self._buffer_bytes:
            public = [line for line in self.lines.values() if not line.stream.is_private]
            largest = max(
                (line for line in (*public, self.quarantine) if line.pending),
                key=lambda line: line.pending_bytes,
                default=None,
            ) or max(self.lines.values(), key=lambda line: line.pending_bytes)
            if largest.drop_oldest(DROP_SHARE) <= 0:
                return


def stream_lines(names: Iterable[str]) -> Mapping[str, Stream]:
    """Streams by name, in order."""
    return {name: parse_stream(name) for name in names}
