"""The messages that a journal has of one stream, and where each was received.

Reads files only; the bridge that writes them may be running. Frames, and the exchange's history in
REST bodies, are decoded by the core's own functions.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from bridge.contract.events import Event
from bridge.contract.identity import BadIdentity, believable_us
from bridge.contract.stream_types import Identity, StreamType
from bridge.contract.streams import Stream
from bridge.core.dedup import Occurrences
from bridge.core.entries import Entry, fill_from_history, message_entry, trade_from_history
from bridge.core.records import BodyKind, Frame, Opened, RestBody
from bridge.core.translate import Rejected, translate
from bridge.journal.inspection import Line, lines_of
from bridge.journal.segments import Segment
from bridge.protocol.envelope import Data, parse
from bridge.protocol.rest import BadBody, fills_page, trades_page

_tuple = tuple.__new__  # faster than `Place(…)`, which is a Python function, for each message


class Origin(StrEnum):
    """How a message was received."""

    FRAME = "frame"
    REST = "rest"


class Place(NamedTuple):
    """Where a journal has a record. `offset` counts bytes of lines in the segment, `position` in
    the whole journal. `connection` 0: a REST body.
    """

    segment: str
    offset: int
    position: int
    received_us: int
    origin: Origin
    connection: int = 0
    connection_name: str = ""


class Received(NamedTuple):
    """One message of the stream; `entry` as the core makes it, or None where it was refused for
    `fault`.
    """

    place: Place
    body: bytes
    entry: Entry | None
    fault: str = ""


class JournalStream:
    """One stream in a list of segments, oldest first."""

    def __init__(self, stream: Stream, segments: Iterable[Segment]) -> None:
        self.damaged = 0
        self.first_us = 0
        self.last_us = 0
        self._stream = stream
        self._segments = segments
        self._names: dict[int, str] = {}
        self._occurrences: dict[int, Occurrences] = {}

    def received(self, mark: bytes = b"") -> Iterator[Received]:
        """Every message, in the order received. `mark`: only frames that contain these bytes.
        Raises ConfigError where a file cannot be read.
        """
        name = b'"%b"' % self._stream.name.encode()
        for segment in self._segments:
            for line in lines_of(segment, name):
                if line.record is None:
                    self.damaged += 1
                    continue
                self.first_us = self.first_us or line.received_us
                self.last_us = max(self.last_us, line.received_us)
                if isinstance(line.record, Opened):
                    self._names[line.number] = line.record.name
                elif isinstance(line.record, Frame):
                    received = self._frame(segment, line, line.record, mark)
                    if received is not None:
                        yield received
                elif isinstance(line.record, RestBody):
                    yield from self._rest(segment, line, line.record)

    def _frame(self, segment: Segment, line: Line, frame: Frame, mark: bytes) -> Received | None:
        if mark not in frame.body:
            return None
        envelope = parse(frame.body)
        if not isinstance(envelope, Data) or envelope.stream != self._stream.name:
            return None
        received_us, connection, _ = frame
        place = _tuple(
            Place,
            (
                segment.path.name,
                line.position - segment.start,
                line.position,
                received_us,
                Origin.FRAME,
                connection,
                self._names.get(connection, ""),
            ),
        )
        event = translate(self._stream, envelope, frame.body, frame.received_us)
        if isinstance(event, Rejected):
            return Received(place, frame.body, None, event.reason)
        try:
            return _tuple(Received, (place, frame.body, self._entry(event, frame), ""))
        except BadIdentity as error:
            return Received(place, frame.body, None, str(error))

    def _entry(self, event: Event, frame: Frame) -> Entry:
        occurrences = None  # as in the core: states are not counted
        if self._stream.spec.identity is Identity.EVENTS:
            occurrences = self._occurrences.setdefault(frame.connection, Occurrences())
        event_us = believable_us(event, frame.received_us)
        return message_entry(event, frame.received_us, frame.connection, event_us, occurrences)

    def _rest(self, segment: Segment, line: Line, body: RestBody) -> Iterator[Received]:
        if body.stream != self._stream.name:
            return
        place = Place(
            segment.path.name,
            line.position - segment.start,
            line.position,
            body.received_us,
            Origin.REST,
        )
        for entry in _messages_of(self._stream, body):
            yield Received(place, body.body, entry)


def _messages_of(stream: Stream, body: RestBody) -> list[Entry]:
    """The messages in a REST body."""
    try:
        if stream.type is StreamType.TRADE and body.kind is BodyKind.MAIN:
            trades = trades_page(stream.symbol, body.body, body.received_us)
            return [trade_from_history(trade) for trade in trades]
        if body.kind is BodyKind.FILLS:
            return [fill_from_history(fill) for fill in fills_page(body.body, body.received_us)]
    except (BadBody, BadIdentity):
        pass  # the bridge refused it, too
    return []
