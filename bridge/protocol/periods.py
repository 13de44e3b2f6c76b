"""After how long without a message a stream is suspected to be stale (pure).

Periodic streams tick like a clock. Of the others only their own past tells: ten times the longest
quiet time seen, but of books never more than three times the shortest limit, so that one stall does
not teach to overlook the next. Trades have no such bound: a probe of their history is dear, and
many are quiet. Account events, liquidations and what other providers send come when they come:
nothing can be said.
"""

from dataclasses import dataclass

from bridge.contract.stream_types import Staleness
from bridge.contract.streams import Stream

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "month": 31 * 86_400}
TIMES_LONGEST, MOST_TIMES = 10, 3
FORGET_SHARE = 256
LATEST_TICK_S = 3.0  # a tick may be so late in any case: the exchange lags at times


@dataclass(frozen=True, slots=True)
class StaleLimits:
    """`suspect_s`: probe it after so long without a message. `certain_s`: after so long it is stale
    without a probe (None: only the exchange can tell whether there was something to send).
    `back_within_s`: subscribed to once more, it must have brought a message by then.
    """

    suspect_s: float
    certain_s: float | None
    back_within_s: float


@dataclass(slots=True)
class QuietTime:
    """A stream's longest time without a message that ended by itself; forgotten slowly."""

    longest_s: float = 0.0
    _asked_s: float = 0.0
    _cured_until_s: float = 0.0

    def subscribed_again(self, now_s: float, back_within_s: float) -> None:
        """What comes soon may have come for that."""
        self._asked_s, self._cured_until_s = now_s, now_s + back_within_s

    def received(self, before_s: float, now_s: float) -> None:
        """Two messages, one after the other, on one connection."""
        if before_s < self._asked_s <= now_s <= self._cured_until_s:
            return
        faded_s = self.longest_s * (1 - 1 / FORGET_SHARE)
        self.longest_s = max(faded_s, now_s - before_s)


def stale_limits(stream: Stream, longest_s: float, shortest_s: float) -> StaleLimits | None:
    """For a stream whose longest quiet time so far was `longest_s`; None: it cannot be judged.

    `shortest_s` is the shortest limit of a stream that depends on its market; a periodic stream's
    tick may be late by a third of it, and by three seconds.
    """
    spec, back_s = stream.spec, shortest_s / 10
    own_s = max(shortest_s, TIMES_LONGEST * longest_s)
    match spec.staleness:
        case Staleness.PERIOD:
            period_s = spec.period_s or 0
            limit_s = (period_s - 1) * 2 + max(shortest_s / 3, LATEST_TICK_S)
            return StaleLimits(limit_s, limit_s, back_s + period_s * 1.5)
        case Staleness.BOOK:
            return StaleLimits(min(own_s, MOST_TIMES * shortest_s), None, back_s)
        case Staleness.TRADES:
            return StaleLimits(own_s, None, back_s)
        case Staleness.CANDLE:
            # a closing frame always comes, of a candle without trades too
            length_s = interval_s(stream.interval)
            certain_s = length_s + shortest_s
            return StaleLimits(min(certain_s, 2 * own_s), certain_s, back_s + min(length_s, 60))
        case Staleness.CANNOT:
            return None


def interval_s(interval: str) -> int:
    """A candle's length (`1m`: 60); a month has 31 days here."""
    number = "".join(sign for sign in interval if sign.isdigit())
    return int(number) * _UNIT_S[interval[len(number) :]]
