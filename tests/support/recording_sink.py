"""A sink that records what it is given, and replies like the bridge's own sink."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from bridge.contract.causes import GapCause
from bridge.contract.streams import parse_stream
from bridge.core.outcomes import Applied, Join, Reach
from bridge.core.records import (
    Answered,
    BodyKind,
    Closing,
    Frame,
    Lost,
    Opened,
    Record,
    RestBody,
    Subscribed,
    Suspected,
)
from bridge.core.wants import BookWanted, FillsWanted, TradesWanted, Wants
from bridge.protocol.envelope import Data, Refusal, parse
from bridge.protocol.rest import account_event, depth_body, fills_page, trades_page

R = TypeVar("R")


class Outage(NamedTuple):
    """An interval in which no connection provably received a stream."""

    from_us: int
    to_us: int
    cause: GapCause


class RecordingSink:
    """`sink.want(name, …)` makes the feed send a REST request; `outcomes[name]` are the outcomes of
    its bodies, which otherwise settle the request. All connections share it: it is a `Sinks` too.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.requested = asyncio.Event()
        self.flushed = 0  # the number of records at the last flush
        self.keeps_open = False  # whether no connection may be closed
        self.rubbish: list[bytes] = []
        self.outages: dict[str, list[Outage]] = {}
        self.wanted: dict[str, Wants] = {}
        self.outcomes: dict[str, Iterator[Applied]] = {}
        # whether it is answered, by connection and stream
        self.open: dict[int, dict[str, bool]] = {}
        self.closing: set[int] = set()
        self._requests: list[str] = []
        self._connections = 0
        self._messages: dict[str, list[bytes]] = {}
        self._proved_us: dict[str, int] = {}  # the time up to which a stream is proved, by stream
        self._causes: dict[str, GapCause] = {}

    def of(self, *, is_private: bool) -> "RecordingSink":
        return self

    # ---- for tests -----------------------------------------------------------------------------

    def kept(self, kind: type[R]) -> list[R]:
        """The records of one kind, in order."""
        return [record for record in self.records if isinstance(record, kind)]

    def messages(self, name: str) -> list[bytes]:
        """The messages of a stream, in order."""
        return self._messages.get(name, [])

    def receivers(self, name: str) -> int:
        """The number of connections that provably receive a stream."""
        return sum(streams.get(name, False) for streams in self.open.values())

    def causes(self, name: str) -> list[GapCause]:
        """The causes of a stream's closed outages."""
        return [outage.cause for outage in self.outages.get(name, ())]

    def want(self, name: str, wanted: Wants) -> None:
        """Request data of this stream over REST."""
        self.wanted[name] = wanted
        self._requests.append(name)
        self.requested.set()

    # ---- Sink ----------------------------------------------------------------------------------

    def new_connection(self) -> int:
        self._connections += 1
        return self._connections

    def take_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[Applied]:
        frames = [Frame(received_us, connection, body) for body in bodies]
        self.records += frames
        return [self._frame(frame) for frame in frames]

    def take(self, record: Record) -> Applied:
        self.records.append(record)
        match record:
            case RestBody():
                return self._rest_body(record)
            case Opened(_, number, _, streams):
                self.open[number] = dict.fromkeys(streams, False)
            case Subscribed(_, number, streams):
                self._subscribed(number, streams)
            case Answered():
                self._answered(record)
            case Suspected(_, number, stream, _):
                if stream in self.open[number]:
                    self._uncover(number, [stream], GapCause.STALE)
            case Closing(_, number):
                self.closing.add(number)
            case Lost(_, number, cause):
                self._uncover(number, list(self.open[number]), cause)
                del self.open[number]
        return None

    def flush(self) -> None:
        self.flushed = len(self.records)

    def may_close(self, connection: int) -> bool:
        others = [
            streams
            for number, streams in self.open.items()
            if number != connection and number not in self.closing
        ]
        return not self.keeps_open and all(
            any(streams.get(name) for streams in others) for name in self.open[connection]
        )

    def requests(self) -> Sequence[str]:
        requests, self._requests = self._requests, []
        return requests

    def wants(self, name: str) -> Wants | None:
        return self.wanted.get(name)

    def is_wanted(self, name: str) -> bool:
        return any(name in streams for streams in self.open.values())

    def received(self, name: str) -> int:
        return len(self.messages(name))

    # ---- helpers -------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> str | Refusal | None:
        match parse(frame.body):
            case Data(stream) if stream in self.open[frame.connection]:
                self._messages.setdefault(stream, []).append(frame.body)
                self._proved_us[stream] = frame.received_us
                return stream
            case Refusal() as refusal:
                return refusal
        self.rubbish.append(frame.body)
        return None

    def _subscribed(self, number: int, streams: Sequence[str]) -> None:
        known = self.open[number]
        self._uncover(number, [name for name in known if name not in streams],
                      GapCause.UNSUBSCRIBED)  # fmt: skip
        self.open[number] = {name: known.get(name, False) for name in streams}

    def _answered(self, answer: Answered) -> None:
        for name in self.open[answer.connection]:
            if name in answer.excluded:
                continue
            if not self.receivers(name) and name in self._causes:
                outage = Outage(self._proved_us[name], answer.at_us, self._causes.pop(name))
                self.outages.setdefault(name, []).append(outage)
            if not self.open[answer.connection][name]:
                self._proved_us[name] = answer.at_us
            elif not answer.is_inferred:
                self._proved_us[name] = answer.pinged_us or answer.at_us
            self.open[answer.connection][name] = True

    def _uncover(self, number: int, names: Sequence[str], cause: GapCause) -> None:
        for name in names:
            was_received = self.receivers(name)
            self.open[number][name] = False
            if was_received and not self.receivers(name):
                self._causes[name] = cause

    def _rest_body(self, record: RestBody) -> Applied:
        applied = self._settled(record)
        if outcomes := self.outcomes.get(record.stream):
            applied = next(outcomes)
        elif record.kind is not BodyKind.FILLS:
            self.wanted.pop(record.stream, None)
        return applied

    def _settled(self, record: RestBody) -> Applied:
        """Raise BadBody if the body does not fit the request."""
        stream = parse_stream(record.stream)
        match self.wanted.get(record.stream):
            case TradesWanted():
                trades_page(stream.symbol, record.body, record.received_us)
                return Reach.DONE
            case BookWanted():
                depth_body(record.body)
            case FillsWanted() if record.kind is not BodyKind.MAIN:
                fills_page(record.body, record.received_us)
            case _:
                account_event(stream, record.body, record.received_us)
        return Join.PLACED
