"""Everything that can happen to a bridge, as typed records (pure).

`Core.apply(record, …)` is the only way into the core. What is journaled is read back from the
journal as the same record, so that live and replayed are one call. Times ending in `received_us`
are this side's wall clock, µs since 1970, when the record came; `at_us`, `asked_us` and marks are
by the exchange's clock.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from bridge.contract.causes import GapCause


class BodyKind(StrEnum):
    """What a REST body is, beside the stream it is about; the journal's spelling."""

    MAIN = ""  # the stream's own source: a book, a page of trades, where the account stands
    FILLS = "fills"  # a page of the account's fills
    END = "end"  # history reaches no further, or all of it has been told


class Frame(NamedTuple):
    """One message of the exchange, as it came."""

    received_us: int
    connection: int
    body: bytes


class Frames(NamedTuple):
    """Messages that were read at once on one connection; the journal has each as a `Frame`."""

    received_us: int
    connection: int
    bodies: Sequence[bytes]


class Opened(NamedTuple):
    """A connection was made, and is to receive these streams."""

    received_us: int
    connection: int
    name: str
    streams: Sequence[str]


class Subscribed(NamedTuple):
    """A connection is to receive these streams from now on, and no others."""

    received_us: int
    connection: int
    streams: Sequence[str]


class Answered(NamedTuple):
    """The exchange answered on a connection: it has all subscriptions but those of `excluded`,
    which were asked for later.

    `at_us` is the exchange's time of the answer; `asked_us` its time of the question where the
    answer took long (None: just before). `is_inferred`: no pong came, only enough time has passed
    for the subscriptions to hold; nothing is proved of what was sent since.
    """

    received_us: int
    connection: int
    at_us: int
    excluded: Sequence[str] = ()
    asked_us: int | None = None
    is_inferred: bool = False


class Suspected(NamedTuple):
    """A stream that should have brought something has not, on this connection, since `last_us`
    (None: since it was answered). It counts as received again from the next answer on.
    """

    received_us: int
    connection: int
    stream: str
    last_us: int | None


class Closing(NamedTuple):
    """A connection is about to be closed by us: no other may be closed because of it. Not
    journaled.
    """

    received_us: int
    connection: int


class Lost(NamedTuple):
    """A connection has ended."""

    received_us: int
    connection: int
    cause: GapCause


class RestBody(NamedTuple):
    """A REST body about a stream."""

    received_us: int
    stream: str
    kind: BodyKind
    body: bytes


class Watermarks(NamedTuple):
    """An earlier bridge's marks: everything the exchange sent of each stream up to then (µs, the
    exchange's clock) is in Redis.
    """

    received_us: int
    marks: Mapping[str, int]


class Started(NamedTuple):
    """A process starts: the connections of the one before it are gone."""

    received_us: int


class Missing(NamedTuple):
    """What was received of these streams from then until then (µs, this side's clock) cannot be
    told any more: it was dropped, or could not be written, or cannot be read. `spans` None: every
    stream, from `from_us` until `received_us`. `end`: up to which position it was, where that is
    known; a queue may begin in between. Not journaled.
    """

    received_us: int
    cause: GapCause
    spans: Mapping[str, tuple[int, int]] | None = None
    from_us: int = 0
    end: int = 0


class GapLogged(NamedTuple):
    """A record of the gap log, as the fields of its entry."""

    received_us: int
    fields: Mapping[str, str]


class SegmentState(NamedTuple):
    """What must be known to begin reading at a segment's first record: the open connections
    (number → stream → since when it is received, 0: not answered yet), what coverage knows, and
    the trade streams whose numbers are not dense.
    """

    received_us: int
    connections: Mapping[int, Mapping[str, int]]
    coverage: Mapping[str, Any]
    sparse: Sequence[str]


class CaughtUp(NamedTuple):
    """The journal has been read to its end: what follows is new. Not journaled."""

    received_us: int


class Rebased(NamedTuple):
    """The journal could be opened at last: positions given so far move up by so much. Not
    journaled.
    """

    received_us: int
    by: int


Record = (
    Frame
    | Opened
    | Subscribed
    | Answered
    | Suspected
    | Closing
    | Lost
    | RestBody
    | Watermarks
    | Started
    | Missing
    | GapLogged
    | SegmentState
    | CaughtUp
    | Rebased
)
