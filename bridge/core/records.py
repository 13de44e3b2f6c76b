"""The records: typed inputs of the core (pure).

`Core.apply(record, …)` is the only input of the core. A journaled record is read back as the same
record, so that live and replay use the same call. Times in µs since 1970: `received_us` is the time
of receipt by our wall clock; `at_us`, `pinged_us` and marks are by the exchange's clock.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from bridge.contract.causes import GapCause


class BodyKind(StrEnum):
    """The kind of a REST body about a stream; the journal's spelling."""

    MAIN = ""  # the stream's own source: a book, a page of trades, a snapshot of the account
    FILLS = "fills"  # a page of the account's fills
    END = "end"  # history has no further page


class Frame(NamedTuple):
    """One WebSocket message of the exchange, unchanged."""

    received_us: int
    connection: int
    body: bytes


class Frames(NamedTuple):
    """Frames that were read at once on one connection; the journal has each as a `Frame`."""

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
    """The exchange answered on a connection: it has all subscriptions except those in `excluded`,
    which were requested later.

    `at_us`: the exchange's time of the answer; `pinged_us`: of the ping, if the answer took long
    (None: just before). `is_inferred`: there was no pong, only enough time has passed for the
    subscriptions to be in effect; nothing is proved about messages sent since.
    """

    received_us: int
    connection: int
    at_us: int
    excluded: Sequence[str] = ()
    pinged_us: int | None = None
    is_inferred: bool = False


class Suspected(NamedTuple):
    """A stream that should have sent something has not, on this connection, since `last_us` (None:
    since its answer). It counts as received again from the next answer on.
    """

    received_us: int
    connection: int
    stream: str
    last_us: int | None


class Closing(NamedTuple):
    """We are about to close a connection: no other may be closed because of it. Not journaled."""

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
    """The watermarks of an earlier bridge: everything that the exchange sent of each stream up to
    its mark (µs, the exchange's clock) is in Redis.
    """

    received_us: int
    marks: Mapping[str, int]


class Started(NamedTuple):
    """A process has started: the connections of the previous one have ended."""

    received_us: int


class Missing(NamedTuple):
    """Records of these streams are missing from the journal: dropped, not written, or unreadable.
    `spans`: stream → from when until when they were received (µs, our clock); None: every stream,
    from `from_us` until `received_us`. `end`: the position up to which they were, if known; a queue
    may begin in between. Not journaled.
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
    """The state needed to begin reading at a segment's first record: the open connections (number →
    stream → since when it is received, 0: not answered yet), the state of coverage, and the trade
    streams whose trade IDs are not dense.
    """

    received_us: int
    connections: Mapping[int, Mapping[str, int]]
    coverage: Mapping[str, Any]
    sparse: Sequence[str]


class CaughtUp(NamedTuple):
    """The journal has been read to its end: later records are new. Not journaled."""

    received_us: int


class Rebased(NamedTuple):
    """The journal was opened late: positions given so far are raised by `by`. Not journaled."""

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
