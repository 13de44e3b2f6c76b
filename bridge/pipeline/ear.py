"""One connection's ear: since when it listens to which stream, and what it has heard (pure)."""

from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.pipeline.items import Twins

UNSURE_US = 1_000_000  # what may have been under way when a connection broke
JITTER_US = 100_000  # messages of several streams come about in the order of their times
TICK_US = 1_000_000
STALL_US = 3 * TICK_US  # so long without a tick, and for the last two nothing else either
PAUSE_US = 2 * TICK_US
LATELY_US = 10_000_000  # ticks that ended longer ago tell nothing
TICKING = ("ticker.", "markPrice.")
RHYTHMIC = (*TICKING, "bookTicker.", "kline.", "openInterest.")  # their silence would be found
# The same message may have two times over two connections; samples are taken at their own moments.
SKEW_US = 300_000
_SAMPLE_SKEW_US = {"ticker": 1_500_000, "openInterest": 90_000_000}


class Stretch(NamedTuple):
    """Everything of a stream was heard from then until then; `spoken_us` is its newest message."""

    from_us: int
    to_us: int
    spoken_us: int = 0

    def until(self, us: int) -> "Stretch":
        """What of it lies before that."""
        return self._replace(to_us=min(self.to_us, max(self.from_us, us)))


@dataclass(slots=True)
class Ear:
    """What only makes sense within one connection. Times are µs.

    `streams` says for each since when it is listened to (0: not answered yet); `newest_us` is the
    exchange's newest time heard on it, `answered_us` when it last answered a question. `ticked_us`
    is the newest tick, received at `ticked_at_us` (our clock); before any, since when it is waited
    for.
    """

    streams: dict[str, int] = field(default_factory=dict)
    twins: Twins = field(default_factory=Twins)
    newest_us: int = 0
    ticked_us: int = 0
    ticked_at_us: int = 0
    answered_us: int = 0
    unproven: dict[str, int] = field(default_factory=dict)  # answered then, no message came since
    is_leaving: bool = False  # its end is decided, so others cannot rest on it
    answers: int = 0
    beside: dict[int, int] = field(default_factory=dict)  # the others' answers when it began
    spoken_us: dict[str, int] = field(default_factory=dict)  # each stream's newest message
    first_us: dict[str, int] = field(default_factory=dict)  # and the first, since it is listened to

    def ticks(self) -> bool:
        """Does it hear a stream that speaks each second?"""
        return any(name.startswith(TICKING) for name in self.streams)

    def heard_until_us(self, name: str) -> int:
        """Everything of this stream is heard from its beginning until then; 0: nothing."""
        since_us = self.streams.get(name, 0)
        if not since_us:
            return 0
        return max(since_us, max(self.newest_us, self.answered_us) - UNSURE_US)

    def certain_until_us(self, name: str) -> int:
        """The same, as far as it would still be believed if the connection broke now."""
        said_us = max(self.streams.get(name, 0), self.spoken_us.get(name, 0))
        return certain_us(name, said_us, self.heard_until_us(name))

    def stretch(self, name: str) -> Stretch | None:
        """What it has heard of this stream, if anything."""
        until_us = self.heard_until_us(name)
        if not until_us:
            return None
        return Stretch(self.streams[name], until_us, self.spoken_us.get(name, 0))

    def stood_still(self, event_us: int, received_us: int) -> bool:
        """Does a message with this time show that the connection, on which something ticks, brought
        nothing for so long that ticks are missing, by the exchange's clock and by ours? A frame
        that was late and slipped through in the middle does not hide that.
        """
        last_us = max(self.newest_us, *self.streams.values())
        return (
            self.ticked_us > 0
            and event_us - last_us > PAUSE_US
            and event_us - self.ticked_us > STALL_US
            and received_us - self.ticked_at_us > STALL_US - UNSURE_US
            and self.ticks()
            and last_us - self.ticked_us <= LATELY_US
        )

    def stands_still(self, since_us: int) -> bool:
        """Has it brought nothing at all since a stream was heard last?"""
        return 0 < self.newest_us <= since_us + UNSURE_US

    def missed(self, name: str, other: "Ear") -> int:
        """When another heard something of this stream that should have come here, too, behind the
        last that did, or behind the beginning where none did; 0: it did not.
        """
        last_us = max(self.spoken_us.get(name, 0), self.streams.get(name, 0))
        first_us = other.first_us.get(name, 0)
        return first_us if first_us > last_us + skew_us(name) else 0


def skew_us(name: str) -> int:
    """How far the times of one message may be apart over two connections."""
    return _SAMPLE_SKEW_US.get(name.partition(".")[0], SKEW_US)


def certain_us(name: str, said_us: int, until_us: int) -> int:
    """Up to when a stream was heard for sure, of what a broken connection claims to have heard: its
    newest message was `said_us`.
    """
    return min(until_us, said_us or until_us) if name.startswith(RHYTHMIC) else until_us
