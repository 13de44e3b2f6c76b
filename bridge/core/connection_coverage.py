"""What one connection to the exchange covers: since when, and until when, it received each stream
(pure).

Times are µs by the exchange's clock, but for those ending in `received_us`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from bridge.contract.stream_types import STREAM_SPECS
from bridge.core.dedup import Occurrences

IN_FLIGHT_US = 1_000_000  # what may have been on its way when a connection broke
JITTER_US = 100_000  # messages of several streams come about in the order of their times
PERIOD_US = 1_000_000  # of a periodic stream
STALL_US = 3 * PERIOD_US  # so long without a tick, and for the last two nothing else either
PAUSE_US = 2 * PERIOD_US
SET_US = 1_800_000_000  # a pause so much longer by our clock: it was set
RECENT_US = 10_000_000  # ticks that ended longer ago prove nothing


class Timing(NamedTuple):
    """How the messages of a stream come that is monitored for staleness.

    `is_periodic`: each second, whatever the market does; such a message is called a tick.
    `skew_us`: how far the times of one message may be apart over two connections.
    """

    is_periodic: bool
    skew_us: int


# By the first part of a stream's name. Streams that are not here bring something when something
# happens: their silence proves nothing.
TIMINGS: Mapping[str, Timing] = {
    kind.value: Timing(spec.proves_life, spec.skew_us)
    for kind, spec in STREAM_SPECS.items()
    if spec.is_regular
}


def timing_of(name: str) -> Timing | None:
    """A stream's timing; None where it is not monitored."""
    return TIMINGS.get(name.partition(".")[0])


class Interval(NamedTuple):
    """Everything of a stream was received from `from_us` until `to_us`. `last_message_us` is the
    time of its last message, or `from_us` where none came.
    """

    from_us: int
    to_us: int
    last_message_us: int

    def until(self, us: int) -> Self:
        """The part of it before `us`; its beginning at least."""
        return self._replace(to_us=min(self.to_us, max(self.from_us, us)))


def certain_us(name: str, last_message_us: int | None, until_us: int) -> int:
    """Up to when a stream was received for certain, where its connection broke having covered it
    until `until_us`.
    """
    # A monitored stream that was silent when the connection broke may have been stale, and would
    # have been found to be if it had gone on. It is too late to ask: its last message counts.
    if last_message_us is None or timing_of(name) is None:
        return until_us
    return min(until_us, last_message_us)


@dataclass(slots=True)
class StreamCoverage:
    """One stream on one connection.

    `since_us`: everything is received from then on; None: the exchange has not answered yet, or the
    stream is suspected. `last_message_us`: time of the last message (0: it had none that can be
    believed). `first_message_us`: of the first one since the stream is covered.
    """

    timing: Timing | None
    is_periodic: bool
    since_us: int | None = None
    last_message_us: int | None = None
    first_message_us: int | None = None

    @classmethod
    def of(cls, name: str, since_us: int | None = None) -> Self:
        """A stream that has brought nothing yet."""
        timing = timing_of(name)
        return cls(timing, timing is not None and timing.is_periodic, since_us)

    @property
    def newest_us(self) -> int:
        """Time of its last message, or of its beginning."""
        return max(self.since_us or 0, self.last_message_us or 0)

    def missed_us(self, other: "StreamCoverage") -> int | None:
        """Time of the first message that another connection received of this stream and that should
        have come here too; None: there is none.
        """
        first_us = other.first_message_us
        if self.timing is None or first_us is None:
            return None
        return first_us if first_us > self.newest_us + self.timing.skew_us else None


@dataclass(slots=True)
class ConnectionCoverage:
    """What only makes sense within one connection. Only `Coverage` calls what changes it.

    `streams`: those it is to receive. `occurrences` counts equal messages. `newest_us`: the newest
    time received on it (the epoch before any message). `answered_us`: everything sent until then
    was received, as an answer proves. `last_tick_us`: time of the newest tick, received at
    `last_tick_received_us`; before any, since when one is waited for.
    """

    streams: dict[str, StreamCoverage]
    occurrences: Occurrences = field(default_factory=Occurrences)
    newest_us: int = 0
    answered_us: int = 0
    last_tick_us: int | None = None
    last_tick_received_us: int = 0
    is_closing: bool = False  # its end is decided, so no other may be closed because of it
    answers: int = 0  # how often the exchange has answered on it
    # answered then; covered from the next message on, which proves that the server is not stuck
    unproven: dict[str, int] = field(default_factory=dict)
    # how often it had answered on each connection when the newest of these streams began
    answers_before: dict[int, int] = field(default_factory=dict)
    # streams it has left; subscribed to again, what came before still counts
    left: dict[str, StreamCoverage] = field(default_factory=dict)

    @classmethod
    def of(cls, streams: Iterable[str]) -> Self:
        """A new connection, on which nothing was answered yet."""
        return cls({name: StreamCoverage.of(name) for name in streams})

    def has_periodic(self) -> bool:
        """Whether it is to receive a stream that brings something each second."""
        return any(stream.is_periodic for stream in self.streams.values())

    def interval(self, name: str) -> Interval | None:
        """What it has received of this stream without a break; None: nothing is certain."""
        stream = self.streams.get(name)
        if stream is None or (since_us := stream.since_us) is None:
            return None
        return Interval(since_us, max(since_us, self._settled_us), stream.newest_us)

    def intervals(self) -> Iterator[tuple[str, Interval]]:
        """The same of all streams of which anything is certain."""
        settled_us = self._settled_us
        for name, stream in self.streams.items():
            if (since_us := stream.since_us) is not None:
                newest_us = max(since_us, stream.last_message_us or 0)
                yield name, Interval(since_us, max(since_us, settled_us), newest_us)

    @property
    def _settled_us(self) -> int:
        # Frames stuck in the network when a connection breaks are lost inside the last second.
        return max(self.newest_us, self.answered_us) - IN_FLIGHT_US

    def stood_still(self, event_us: int, received_us: int) -> bool:
        """Whether a message with this time shows that the connection brought nothing for so long
        that ticks are missing, by the exchange's clock and by ours.
        """
        tick_us = self.last_tick_us
        if tick_us is None or not self.has_periodic():
            return False
        begun_us = (stream.since_us or 0 for stream in self.streams.values())
        last_us = max(self.newest_us, *begun_us)
        ours_us = received_us - self.last_tick_received_us
        return (
            event_us - last_us > PAUSE_US
            # A late frame that slipped through in the middle of a stall does not hide it: ticks do
            # not come with it.
            and event_us - tick_us > STALL_US
            # By our clock too: the exchange's may have been set, and then no tick is missing. Nor
            # where ours was, while the exchange's times were too far from it to be believed.
            and STALL_US - IN_FLIGHT_US < ours_us < event_us - tick_us + SET_US
            # Ticks that had ended while other messages came say nothing of a stall now.
            and last_us - tick_us <= RECENT_US
        )

    def is_still_since(self, last_us: int) -> bool:
        """Whether it has brought nothing at all since then."""
        return 0 < self.newest_us <= last_us + IN_FLIGHT_US

    def goes_on(self, name: str, event_us: int, received_us: int) -> bool:
        """Note a message that shows nothing of the past, as nearly all. False: it may show
        something, and nothing was noted.
        """
        if self.unproven or event_us > self.newest_us + PAUSE_US:
            return False
        self.advance(name, event_us, received_us)
        return True

    def advance(self, name: str, event_us: int, received_us: int) -> None:
        """Note a message of one of its streams."""
        stream = self.streams[name]
        stream.last_message_us = event_us
        if stream.first_message_us is None:
            stream.first_message_us = event_us
        if event_us > self.newest_us:
            self.newest_us = event_us
        if stream.is_periodic and event_us > (self.last_tick_us or 0):
            self.last_tick_us, self.last_tick_received_us = event_us, received_us
        elif stream.is_periodic and not event_us:
            # Our clock is hours off, so its time is not believed; but it came, none is missing.
            self.last_tick_received_us = received_us

    def subscribe(self, names: Iterable[str]) -> None:
        """It is to receive these streams from now on, and no others."""
        known = self.left | self.streams
        self.streams = {name: known.get(name) or StreamCoverage.of(name) for name in names}
        self.left = {name: stream for name, stream in known.items() if name not in self.streams}
        for stream in self.left.values():
            stream.since_us = None
        self.unproven = {name: us for name, us in self.unproven.items() if name in self.streams}

    def begin(self, since_us: Mapping[str, int], answers: Mapping[int, int]) -> None:
        """These streams are covered, each from then on; `answers`: so often the exchange has
        answered on each connection.
        """
        self.answers_before = dict(answers)
        for name, at_us in since_us.items():
            stream = self.streams[name]
            stream.since_us, stream.first_message_us = at_us, None

    def uncover(self, names: Iterable[str]) -> None:
        """These streams are not covered until the next answer."""
        for name in names:
            self.streams[name].since_us = None

    def unconfirm(self, name: str) -> None:
        """What was answered of this stream will not be proved by a message."""
        self.unproven.pop(name, None)

    def count_answer(self) -> None:
        """The exchange has answered once more."""
        self.answers += 1

    def prove(self, until_us: int) -> None:
        """Everything sent until then has been received."""
        self.answered_us = max(self.answered_us, until_us)

    def await_message(self, names: Iterable[str], at_us: int, received_us: int) -> None:
        """These streams were answered, and are covered with the next message."""
        self.unproven = {name: self.unproven.get(name, at_us) for name in names}
        if self.last_tick_us is None:
            self.last_tick_us, self.last_tick_received_us = at_us, received_us

    def take_unproven(self) -> Mapping[str, int]:
        """The streams that wait for a message, and when each was answered; they wait no more."""
        answered, self.unproven = self.unproven, {}
        return answered

    def close_soon(self) -> None:
        """Its end is decided; until then it receives on."""
        self.is_closing = True

    # ---- in a segment's state ----------------------------------------------------------------

    def state(self) -> list[object]:
        """All of it as plain values, in the journal's order; 0 stands for what is not known."""
        every = self.left | self.streams
        return [
            self.newest_us,
            self.answered_us,
            _monitored({name: stream.last_message_us for name, stream in every.items()}),
            self.last_tick_received_us,
            _monitored({name: stream.first_message_us for name, stream in every.items()}),
            self.last_tick_us or 0,
            {name: stream.since_us or 0 for name, stream in self.streams.items()},
            dict(self.unproven),
            self.answers,
            {str(number): answers for number, answers in self.answers_before.items()},
        ]

    @classmethod
    def restored(cls, streams: Mapping[str, int], facts: Sequence[Any]) -> Self:
        """A connection with these streams (0: not answered yet) and what `state` said of it."""
        # Earlier versions knew less and wrote fewer values: those at the end may be missing.
        known = [*facts, *(0, 0, {}, 0, {}, 0, streams, {}, 0, {})[len(facts) :]]
        newest_us, answered_us, last, tick_received_us, first, tick_us, since = known[:7]
        unproven, answers, answers_before = known[7:10]
        self = cls({name: StreamCoverage.of(name, us or None) for name, us in since.items()})
        for name in {**last, **first}:
            stream = self.streams.get(name) or self.left.setdefault(name, StreamCoverage.of(name))
            stream.last_message_us, stream.first_message_us = last.get(name), first.get(name)
        self.newest_us, self.answered_us = newest_us, answered_us
        self.last_tick_us, self.last_tick_received_us = tick_us or None, tick_received_us
        self.unproven, self.answers = dict(unproven), answers
        self.answers_before = {int(number): count for number, count in answers_before.items()}
        return self


def _monitored(times_us: Mapping[str, int | None]) -> dict[str, int]:
    return {name: us for name, us in times_us.items() if us is not None and timing_of(name)}
