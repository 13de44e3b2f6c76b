"""The coverage of one connection: from when until when it received each stream (pure).

Times are µs by the exchange's clock, except those ending in `received_us` (our clock).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from bridge.contract.stream_types import STREAM_SPECS
from bridge.core.dedup import Occurrences

IN_FLIGHT_US = 1_000_000  # messages may be in flight for so long when a connection breaks
JITTER_US = 100_000  # messages of several streams may be out of order by so much
PERIOD_US = 1_000_000  # the period of a periodic stream
STALL_US = 3 * PERIOD_US  # a stall: no tick for so long, and no message at all for PAUSE_US
PAUSE_US = 2 * PERIOD_US
SET_US = 1_800_000_000  # a pause so much longer by our clock means that our clock was set
RECENT_US = 10_000_000  # a last tick longer ago proves nothing


class Timing(NamedTuple):
    """The timing of a stream that is monitored for staleness.

    `is_periodic`: it sends each second, whatever the market does; such a message is a tick.
    `skew_us`: how much the times of the same message may differ between two connections.
    """

    is_periodic: bool
    skew_us: int


# By the first part of a stream's name. Streams that are not here send only when something happens:
# their silence proves nothing.
TIMINGS: Mapping[str, Timing] = {
    kind.value: Timing(spec.proves_life, spec.skew_us)
    for kind, spec in STREAM_SPECS.items()
    if spec.is_regular
}


def timing_of(name: str) -> Timing | None:
    """The timing of a stream; None: it is not monitored."""
    return TIMINGS.get(name.partition(".")[0])


class Interval(NamedTuple):
    """Everything of a stream was received from `from_us` until `to_us`. `last_message_us`: the time
    of its last message, or `from_us` if there was none.
    """

    from_us: int
    to_us: int
    last_message_us: int

    def until(self, us: int) -> Self:
        """The part of it before `us`; empty if it begins later."""
        return self._replace(to_us=min(self.to_us, max(self.from_us, us)))


def certain_us(name: str, last_message_us: int | None, until_us: int) -> int:
    """Up to when a stream was certainly received on a broken connection that covered it until
    `until_us`.
    """
    # A monitored stream that was silent when the connection broke may have been stale; with the
    # connection lost this cannot be checked any more, so only its last message counts.
    if last_message_us is None or timing_of(name) is None:
        return until_us
    return min(until_us, last_message_us)


@dataclass(slots=True)
class StreamCoverage:
    """The coverage of one stream on one connection.

    `since_us`: everything is received from then on; None: the exchange has not confirmed it yet, or
    the stream is suspected. `last_message_us`: time of the last message (0: it had no believable
    one). `first_message_us`: time of the first message since `since_us`.
    """

    timing: Timing | None
    is_periodic: bool
    since_us: int | None = None
    last_message_us: int | None = None
    first_message_us: int | None = None

    @classmethod
    def of(cls, name: str, since_us: int | None = None) -> Self:
        """A stream without any message yet."""
        timing = timing_of(name)
        return cls(timing, timing is not None and timing.is_periodic, since_us)

    @property
    def newest_us(self) -> int:
        """Time of its last message, or of its beginning."""
        return max(self.since_us or 0, self.last_message_us or 0)

    def missed_us(self, other: "StreamCoverage") -> int | None:
        """Time of the first message of this stream that another connection received and that should
        have been received here too; None: there is none.
        """
        first_us = other.first_message_us
        if self.timing is None or first_us is None:
            return None
        return first_us if first_us > self.newest_us + self.timing.skew_us else None


@dataclass(slots=True)
class ConnectionCoverage:
    """The coverage of one connection. Only `Coverage` calls the methods that change it.

    `streams`: those it is to receive. `occurrences` counts equal messages. `newest_us`: the newest
    time received on it (0 before any message). `answered_us`: everything sent until then was
    received, as an answer proves. `last_tick_us`: time of the newest tick, received at
    `last_tick_received_us`; before the first one, when the wait for it began.
    """

    streams: dict[str, StreamCoverage]
    occurrences: Occurrences = field(default_factory=Occurrences)
    newest_us: int = 0
    answered_us: int = 0
    last_tick_us: int | None = None
    last_tick_received_us: int = 0
    is_closing: bool = False  # it is to be closed, so no other may be closed because of it
    answers: int = 0  # answers of the exchange on it
    # stream → when it was answered; covered from the next message on, which proves that the server
    # is not stuck
    unproven: dict[str, int] = field(default_factory=dict)
    # connection → answers on it when the newest of these streams began
    answers_before: dict[int, int] = field(default_factory=dict)
    # unsubscribed streams; their messages still count if they are subscribed to again
    left: dict[str, StreamCoverage] = field(default_factory=dict)

    @classmethod
    def of(cls, streams: Iterable[str]) -> Self:
        """A new connection, without any answer yet."""
        return cls({name: StreamCoverage.of(name) for name in streams})

    def has_periodic(self) -> bool:
        """Whether it is to receive a periodic stream."""
        return any(stream.is_periodic for stream in self.streams.values())

    def interval(self, name: str) -> Interval | None:
        """The interval of this stream received without a break; None: nothing is certain."""
        stream = self.streams.get(name)
        if stream is None or (since_us := stream.since_us) is None:
            return None
        return Interval(since_us, max(since_us, self._settled_us), stream.newest_us)

    def intervals(self) -> Iterator[tuple[str, Interval]]:
        """`interval` of each stream that has one."""
        settled_us = self._settled_us
        for name, stream in self.streams.items():
            if (since_us := stream.since_us) is not None:
                newest_us = max(since_us, stream.last_message_us or 0)
                yield name, Interval(since_us, max(since_us, settled_us), newest_us)

    @property
    def _settled_us(self) -> int:
        # Frames in flight when a connection breaks are lost: they are of the last second.
        return max(self.newest_us, self.answered_us) - IN_FLIGHT_US

    def stood_still(self, event_us: int, received_us: int) -> bool:
        """Whether a message with this time shows that the connection had stalled: ticks are missing
        by the exchange's clock and by ours.
        """
        tick_us = self.last_tick_us
        if tick_us is None or not self.has_periodic():
            return False
        begun_us = (stream.since_us or 0 for stream in self.streams.values())
        last_us = max(self.newest_us, *begun_us)
        ours_us = received_us - self.last_tick_received_us
        return (
            event_us - last_us > PAUSE_US
            # A single late frame in the middle of a stall does not hide it: it is not a tick.
            and event_us - tick_us > STALL_US
            # By our clock too: if the exchange's clock was set, no tick is missing. The upper bound
            # is for our clock being set, while the exchange's times were not believable.
            and STALL_US - IN_FLIGHT_US < ours_us < event_us - tick_us + SET_US
            # If ticks had ended while other messages continued, their lack shows no stall now.
            and last_us - tick_us <= RECENT_US
        )

    def is_still_since(self, last_us: int) -> bool:
        """Whether nothing at all was received on it since then."""
        return 0 < self.newest_us <= last_us + IN_FLIGHT_US

    def try_advance(self, name: str, event_us: int, received_us: int) -> bool:
        """Note a message that cannot reveal a stall, the usual case. False: it may, and nothing was
        noted.
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
            # Our clock is hours off, so the tick's time is not believed; but no tick is missing.
            self.last_tick_received_us = received_us

    def subscribe(self, names: Iterable[str]) -> None:
        """Change its streams to these."""
        known = self.left | self.streams
        self.streams = {name: known.get(name) or StreamCoverage.of(name) for name in names}
        self.left = {name: stream for name, stream in known.items() if name not in self.streams}
        for stream in self.left.values():
            stream.since_us = None
        self.unproven = {name: us for name, us in self.unproven.items() if name in self.streams}

    def begin(self, since_us: Mapping[str, int], answers: Mapping[int, int]) -> None:
        """Cover these streams, each from its time on; `answers`: the answers of the exchange so far
        by connection.
        """
        self.answers_before = dict(answers)
        for name, at_us in since_us.items():
            stream = self.streams[name]
            stream.since_us, stream.first_message_us = at_us, None

    def uncover(self, names: Iterable[str]) -> None:
        """End the coverage of these streams until the next answer."""
        for name in names:
            self.streams[name].since_us = None

    def unconfirm(self, name: str) -> None:
        """Forget the answer for a stream that waits for a message."""
        self.unproven.pop(name, None)

    def count_answer(self) -> None:
        """Count an answer of the exchange."""
        self.answers += 1

    def prove(self, until_us: int) -> None:
        """Note that everything sent until then has been received."""
        self.answered_us = max(self.answered_us, until_us)

    def await_message(self, names: Iterable[str], at_us: int, received_us: int) -> None:
        """Note that these streams were answered; the next message begins their coverage."""
        self.unproven = {name: self.unproven.get(name, at_us) for name in names}
        if self.last_tick_us is None:
            self.last_tick_us, self.last_tick_received_us = at_us, received_us

    def take_unproven(self) -> Mapping[str, int]:
        """Remove and return the streams that wait for a message, and when each was answered."""
        answered, self.unproven = self.unproven, {}
        return answered

    def close_soon(self) -> None:
        """Note that it will be closed; it still receives until then."""
        self.is_closing = True

    # ---- in a segment's state ----------------------------------------------------------------

    def state(self) -> list[object]:
        """Its state as plain values, in the journal's order; 0 means unknown."""
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
        """A connection with these streams (0: not answered yet) and these values of `state`."""
        # Earlier versions wrote fewer values: those at the end may be missing.
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
