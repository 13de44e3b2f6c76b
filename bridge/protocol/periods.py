"""After how long without a message a stream is suspected to be stale (pure).

Periodic streams send at a fixed interval. The limit of other streams depends on their own past: ten
times the longest quiet time seen, but for books at most three times the shortest limit, so that one
stall does not hide the next. Trades have no such bound: a probe of their history is expensive, and
many markets are quiet. Account events, liquidations and data of other providers have no regular
interval, so they are never suspected.
"""

from dataclasses import dataclass

from bridge.contract.stream_types import Staleness
from bridge.contract.streams import Stream

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "month": 31 * 86_400}
TIMES_LONGEST, MOST_TIMES = 10, 3
FORGET_SHARE = 256
LATEST_TICK_S = 3.0  # a tick may always be so late: the exchange lags at times


@dataclass(frozen=True, slots=True)
class StaleLimits:
    """The limits of a stream. `suspect_s`: it is probed after so long without a message.
    `certain_s`: after so long it is stale without a probe (None: a probe is always needed).
    `back_within_s`: after subscribing again, a message is due within this time.
    """

    suspect_s: float
    certain_s: float | None
    back_within_s: float


@dataclass(slots=True)
class QuietTime:
    """A stream's longest time without a message that ended on its own; it decays slowly."""

    longest_s: float = 0.0
    _requested_s: float = 0.0
    _back_until_s: float = 0.0

    def subscribed_again(self, now_s: float, back_within_s: float) -> None:
        """Note a new subscription: messages within `back_within_s` may be due to it."""
        self._requested_s, self._back_until_s = now_s, now_s + back_within_s

    def received(self, before_s: float, now_s: float) -> None:
        """Take the times of two successive messages on one connection."""
        if before_s < self._requested_s <= now_s <= self._back_until_s:
            return
        faded_s = self.longest_s * (1 - 1 / FORGET_SHARE)
        self.longest_s = max(faded_s, now_s - before_s)


def stale_limits(stream: Stream, longest_s: float, shortest_s: float) -> StaleLimits | None:
    """The limits of a stream whose longest quiet time so far was `longest_s`; None: its silence
    proves nothing.

    `shortest_s`: the shortest limit of a stream that depends on its market; a periodic stream's
    tick may be late by a third of it, at least by three seconds.
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
            # a closing frame is always sent, even of a candle without trades
            length_s = interval_s(stream.interval)
            certain_s = length_s + shortest_s
            return StaleLimits(min(certain_s, 2 * own_s), certain_s, back_s + min(length_s, 60))
        case Staleness.CANNOT:
            return None


def interval_s(interval: str) -> int:
    """A candle's length (`1m`: 60); a month has 31 days here."""
    number = "".join(sign for sign in interval if sign.isdigit())
    return int(number) * _UNIT_S[interval[len(number) :]]
